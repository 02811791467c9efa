//! How the process of a stdio plugin is kept apart from its node.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The network of an isolated process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IsolatedNetwork {
    /// No network at all, loopback and sockets in `/run` included.
    #[default]
    None,
    /// The node's network: the process connects as it likes.
    Host,
}

/// Walls around the process of a stdio plugin. On Linux: its own processes, files and user as far as the machine
/// permits, bounds on what it uses, and no network unless it is granted. Elsewhere there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct IsolationSpec {
    /// `false`: the process runs as the node does, without walls and bounds.
    pub enabled: bool,
    /// `none`, or `host` for servers that must reach others, `npx` and `uvx` included.
    pub network: IsolatedNetwork,
    /// Most memory of all its processes together, in MiB; more ends it.
    pub memory_mib: u32,
    /// Most processor time, in hundredths of one core; above it the process is held up.
    pub cpu_percent: u32,
    /// Most processes and threads.
    pub processes: u32,
    /// Most open files of one process.
    pub open_files: u32,
    /// Folders that it may write to. All others are read-only, but for an empty `/tmp` of its own, which is also its
    /// home and its working directory, and goes with it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub writable: BTreeSet<String>,
    /// Folders that it may read though they lie where it sees nothing otherwise: in `/tmp`, in the node's data
    /// directory, in folders closed to other users, or without a network in `/run`. The folder of its program is one.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub readable: BTreeSet<String>,
    /// Whether it starts where the machine does not permit every wall. `true`: only with all of them. `false`: with
    /// those that there are. Not given: a process without network has none, or does not start; the others may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

impl Default for IsolationSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            network: IsolatedNetwork::None,
            memory_mib: 1_024,
            cpu_percent: 200,
            processes: 256,
            open_files: 1_024,
            writable: BTreeSet::new(),
            readable: BTreeSet::new(),
            required: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_denied_and_bounded() {
        let spec: IsolationSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(spec, IsolationSpec::default());
        assert_eq!((spec.enabled, spec.network, spec.required), (true, IsolatedNetwork::None, None));
        let spec: IsolationSpec = serde_json::from_str(r#"{"network":"host","memoryMib":64}"#).unwrap();
        assert_eq!((spec.network, spec.memory_mib), (IsolatedNetwork::Host, 64));
        let again: IsolationSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        assert!(serde_json::from_str::<IsolationSpec>(r#"{"netwrk":"host"}"#).is_err());
    }
}
