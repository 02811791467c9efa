//! By which names agents may know which data-plane nodes.
//!
//! Invariants: a node gets no name that no rule gives it; a wildcard in a rule is no wildcard in a
//! certificate. Rules come from the configuration of control-plane nodes, so that a data-plane node, which
//! writes its own file, cannot give itself the name of another.

use std::collections::BTreeSet;

use provost_types::Name;
use provost_wire::tls::{HostName, HostNameError};
use serde::Serialize;

use crate::{ControlError, ErrorKind};

/// Names of one certificate.
pub const MAX_AGENT_NAMES: usize = 32;
/// What a refusal is called.
const CODE: &str = "PV-TLS-AGENT-NAMES";

/// Nodes and the names that they may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AgentNameRule {
    /// Names of nodes; `dp-*` takes all that begin with `dp-`.
    pub nodes: Vec<String>,
    /// DNS names and addresses; `*.example.com` takes those with one label more.
    pub names: Vec<String>,
}

/// All rules. Without any no node gets such a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AgentNames(Vec<AgentNameRule>);

impl AgentNames {
    /// Checks that every rule can match something.
    pub fn new(rules: Vec<AgentNameRule>) -> Result<Self, String> {
        for rule in &rules {
            if rule.nodes.is_empty() || rule.names.is_empty() {
                return Err("a rule needs nodes and names".to_owned());
            }
            for node in &rule.nodes {
                let fixed = node.strip_suffix('*').unwrap_or(node);
                // What is left of a pattern may end where a name may not.
                if !node.ends_with('*') && Name::new(node.as_str()).is_err() || fixed.contains('*') {
                    return Err(format!("`{node}` is neither a node's name nor the beginning of names, such as dp-*"));
                }
            }
            for name in &rule.names {
                let fixed = name.strip_prefix("*.").unwrap_or(name);
                let parsed = fixed.parse().map_err(|e: HostNameError| e.to_string())?;
                if fixed.len() < name.len() && matches!(parsed, HostName::Ip(_)) {
                    return Err(format!("`{name}`: an address has no names below it"));
                }
            }
        }
        Ok(Self(rules))
    }

    /// Whether the node may have all of these names.
    pub(super) fn check(&self, node: &Name, wanted: &[HostName]) -> Result<(), ControlError> {
        let refused = |text: String, hint: &str| Err(ControlError::new(ErrorKind::Forbidden, CODE, text, hint));
        if wanted.is_empty() || wanted.len() > MAX_AGENT_NAMES {
            let text = format!("a certificate for agents has 1 to {MAX_AGENT_NAMES} names, and not {}", wanted.len());
            return refused(text, "write the node's names into its data_plane.hosts");
        }
        let rules: Vec<&AgentNameRule> = self.0.iter().filter(|r| r.nodes.iter().any(|n| takes(n, node))).collect();
        let allowed = |name: &HostName| rules.iter().any(|r| r.names.iter().any(|n| covers(n, name)));
        let not: BTreeSet<String> = wanted.iter().filter(|n| !allowed(n)).map(ToString::to_string).collect();
        if not.is_empty() {
            return Ok(());
        }
        let not: Vec<String> = not.into_iter().collect();
        let text = format!("no rule lets node {node} be known to agents as {}", not.join(", "));
        refused(text, "add a rule to [[agent_names]] in the file of every control-plane node, and restart them in turn")
    }
}

fn takes(pattern: &str, node: &Name) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => node.as_str().starts_with(prefix),
        None => node.as_str() == pattern,
    }
}

fn covers(rule: &str, name: &HostName) -> bool {
    match (rule.strip_prefix("*."), name) {
        (Some(zone), HostName::Dns(dns)) => {
            dns.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(zone))
        }
        (Some(_), HostName::Ip(_)) => false,
        (None, name) => rule.parse::<HostName>().is_ok_and(|rule| rule == *name),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rule(nodes: &[&str], names: &[&str]) -> AgentNameRule {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        AgentNameRule { nodes: owned(nodes), names: owned(names) }
    }

    #[test]
    fn a_node_gets_the_names_of_its_rules_and_no_other() {
        let rules = vec![
            rule(&["dp-*"], &["mcp.example.com", "192.0.2.1"]),
            rule(&["dp-1"], &["*.One.example.com", "2001:db8::1"]),
            rule(&["edge"], &["edge.example.com"]),
        ];
        let names = AgentNames::new(rules).unwrap();
        let ask = |node: &str, wanted: &[&str]| {
            let wanted: Vec<HostName> = wanted.iter().map(|w| w.parse().unwrap()).collect();
            names.check(&Name::new(node).unwrap(), &wanted).is_ok()
        };
        for (node, wanted, expect) in [
            ("dp-1", &["mcp.example.com"][..], true),
            ("dp-2", &["MCP.example.com", "192.0.2.1"], true),
            ("dp-1", &["a.one.example.com", "2001:db8:0::1"], true),
            ("dp-1", &["a.b.one.example.com"], false),
            ("dp-1", &["one.example.com"], false),
            ("dp-2", &["a.one.example.com"], false),
            ("dp-2", &["mcp.example.com", "edge.example.com"], false),
            ("edge", &["edge.example.com"], true),
            ("edge", &["mcp.example.com"], false),
            ("edge-2", &["edge.example.com"], false),
            ("edge", &[], false),
            ("dp-1", &["192.0.2.2"], false),
        ] {
            assert_eq!(ask(node, wanted), expect, "{node} {wanted:?}");
        }
        let many: Vec<HostName> = vec![HostName::Dns("mcp.example.com".to_owned()); MAX_AGENT_NAMES + 1];
        let refused = names.check(&Name::new("dp-1").unwrap(), &many).unwrap_err();
        assert_eq!(refused.code(), CODE);
        assert!(AgentNames::default().check(&Name::new("dp-1").unwrap(), &many[..1]).is_err());
    }

    #[test]
    fn rules_that_match_nothing_are_refused() {
        for (nodes, names) in [
            (&["dp-*"][..], &[][..]),
            (&[], &["a.example.com"]),
            (&["Dp"], &["a.example.com"]),
            (&["d*p"], &["a.example.com"]),
            (&["dp-1"], &["*"]),
            (&["dp-1"], &["a.*.example.com"]),
            (&["dp-1"], &["*.192.0.2.1"]),
            (&["dp-1"], &["a b"]),
        ] {
            assert!(AgentNames::new(vec![rule(nodes, names)]).is_err(), "{nodes:?} {names:?}");
        }
        assert!(AgentNames::new(vec![rule(&["*"], &["*.example.com"])]).is_ok());
    }
}
