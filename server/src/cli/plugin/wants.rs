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
    let tools = wants.tools.iter().map(|tool| format!("calls of {tool} in the name of its caller"));
    hosts.chain(credentials).chain(tools).collect()
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
}
