//! What a document gives to its component, to be compared with what another gave.

use std::collections::{BTreeMap, BTreeSet};

use provost_types::{WasmCredential, WasmPlugin};

/// What a component may reach.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    hosts: BTreeSet<String>,
    private: BTreeSet<String>,
    credentials: BTreeMap<String, WasmCredential>,
    tools: BTreeSet<String>,
}

impl Given {
    /// By a document.
    pub(crate) fn by(spec: &WasmPlugin) -> Self {
        let egress = spec.egress.as_deref().cloned().unwrap_or_default();
        Self {
            hosts: egress.allow_hosts,
            private: egress.allow_private,
            credentials: spec.credentials.clone(),
            tools: spec.tools.clone(),
        }
    }

    /// Whether the other has all of it. Texts are compared, not what patterns mean: "no" costs a moment of waiting.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let has_credential = |(alias, own): (&String, &WasmCredential)| {
            other.credentials.get(alias).is_some_and(|its| {
                own.header == its.header
                    && own.value == its.value
                    && own.hosts.iter().all(|host| its.hosts.contains(host))
            })
        };
        self.hosts.is_subset(&other.hosts)
            && self.private.is_subset(&other.private)
            && self.tools.is_subset(&other.tools)
            && self.credentials.iter().all(has_credential)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn given(text: &str) -> Given {
        Given::by(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_is_taken_away_is_noticed_and_what_is_added_is_not() {
        let full = r#"{"egress":{"allowHosts":["a.example"],"allowPrivate":["10.0.0.0/8"]},"tools":["crm.*"],
            "credentials":{"key":{"header":"x-key","value":{"secret":"s"},"hosts":["a.example"]}}}"#;
        let before = given(full);
        assert!(before.is_within(&before) && given("{}").is_within(&before));
        let more = full.replace(r#"["crm.*"]"#, r#"["crm.*","sql.query"]"#);
        assert!(before.is_within(&given(&more)) && !given(&more).is_within(&before));
        let table = [
            (r#"allowHosts":["a.example"]"#, r#"allowHosts":["b.example"]"#),
            (r#"["10.0.0.0/8"]"#, "[]"),
            (r#"["crm.*"]"#, r#"["crm.read"]"#),
            (r#""secret":"s""#, r#""secret":"other""#),
            (r#""x-key""#, r#""x-other""#),
            (r#""hosts":["a.example"]"#, r#""hosts":["b.example"]"#),
            (r#""key":"#, r#""other":"#),
        ];
        for (from, to) in table {
            assert!(full.contains(from) && !before.is_within(&given(&full.replace(from, to))), "{from}");
        }
    }
}
