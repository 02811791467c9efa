//! What a package asks for, and what of it a plugin was given.

use provost_package::Wants;
use provost_types::{HostPattern, WasmPlugin};

/// What is wanted and not granted, in words.
pub(super) fn not_granted(wants: &Wants, plugin: Option<&WasmPlugin>) -> Vec<String> {
    let egress = plugin.and_then(|plugin| plugin.egress.as_deref());
    let allowed: Vec<&String> = egress.iter().flat_map(|egress| &egress.allow_hosts).collect();
    let patterns: Vec<HostPattern> = allowed.iter().filter_map(|host| host.parse().ok()).collect();
    // A pattern is granted only as it is; a host also by a pattern that it fits.
    let has_host = |host: &String| allowed.contains(&host) || patterns.iter().any(|pattern| pattern.matches(host));
    let has_credential = |alias: &str| plugin.is_some_and(|plugin| plugin.credentials.contains_key(alias));
    let hosts = wants.hosts.iter().filter(|host| !has_host(host)).map(|host| format!("requests to {host}"));
    let credentials = wants.credentials.iter().filter(|alias| !has_credential(alias.as_str()));
    let credentials = credentials.map(|alias| format!("the credential {alias}"));
    let may_call = |tool: &str| plugin.is_some_and(|plugin| plugin.tools.iter().any(|granted| covers(granted, tool)));
    let tools = wants.tools.iter().filter(|tool| !may_call(tool.as_str()));
    let tools = tools.map(|tool| format!("calls of {tool} in the name of its caller"));
    hosts.chain(credentials).chain(tools).collect()
}

/// Whether what is granted is all of what is wanted: a `*` ends a prefix, in both.
fn covers(granted: &str, wanted: &str) -> bool {
    granted == wanted || granted.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_is_not_asked_for() {
        let wants = r#"{"hosts":["api.a.example","b.example"],"credentials":["key","other"]}"#;
        let wants: Wants = serde_json::from_str(wants).expect("wants");
        let plugin = r#"{"egress":{"allowHosts":["*.a.example"]},
            "credentials":{"key":{"header":"x-key","value":{"secret":"s"},"hosts":["api.a.example"]}}}"#;
        let plugin: WasmPlugin = serde_json::from_str(plugin).expect("a plugin");
        assert_eq!(not_granted(&wants, Some(&plugin)), ["requests to b.example", "the credential other"]);
        assert_eq!(not_granted(&wants, None).len(), 4);
    }
    #[test]
    fn tools_that_it_may_call_are_not_asked_for() {
        let wants: Wants = serde_json::from_str(r#"{"tools":["crm.read","sql.*","hr.pay"]}"#).expect("wants");
        let table: [(&str, &[&str]); 4] = [
            (r#"{"tools":["crm.read","sql.*","hr.pay"]}"#, &[]),
            (r#"{"tools":["crm.*","sql.*"]}"#, &["hr.pay"]),
            // One tool of a plugin is not all of it.
            (r#"{"tools":["crm.read","sql.query","hr.*"]}"#, &["sql.*"]),
            ("{}", &["crm.read", "hr.pay", "sql.*"]),
        ];
        for (granted, lacks) in table {
            let plugin: WasmPlugin = serde_json::from_str(granted).expect("a plugin");
            let mut told = not_granted(&wants, Some(&plugin));
            told.sort();
            let expect: Vec<String> =
                lacks.iter().map(|tool| format!("calls of {tool} in the name of its caller")).collect();
            assert_eq!(told, expect, "{granted}");
        }
    }
}
