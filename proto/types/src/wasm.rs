//! Plugins that are WebAssembly components: what their documents say.
//!
//! Invariants: what is run is named by its hash; what a component may reach and which credentials its requests carry
//! are said here and never by the component. Left out: the component itself (a package in the control plane, or a file
//! on each node), and how it is run (`provost-data-wasm`).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{EgressSpec, FileDigest, SecretRef};

/// A source of tools that is a WebAssembly component of the world `provost:plugin/tool-plugin`: of a `package`, or of a
/// `file` with its `digest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WasmPlugin {
    /// The package, by its SHA-256, as `provost plugin install` stored it. It is signed by a `Publisher` of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<FileDigest>,
    /// The component's file: its name in the folder `plugins` of the data directory of every node that serves calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The SHA-256 of that file. Another file of this name is not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<FileDigest>,
    /// Its configuration, as its schema asks for it.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Where its requests may go: `allowHosts` names the hosts. Without it, it may not send any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Box<EgressSpec>>,
    /// What its requests may carry, by the name that it asks for. It never sees them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, WasmCredential>,
    /// The tools that it may call, in the name and with the rights of who calls it: names as clients see them
    /// (`plugin.tool`); `*` ends a prefix (`crm.*`). Without any, it may call none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<String>,
    /// The most memory of one call, in MiB. 0: the default, 64.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_mib: u32,
    /// How long one call may compute, in milliseconds; to wait for what it asked for is not computing. 0: the default,
    /// 30000.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub compute_ms: u32,
}

/// Where a component comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WasmSource<'a> {
    /// The package of this digest, which every node fetches.
    Package(FileDigest),
    /// A file that lies on every node.
    File {
        /// Its name.
        name: &'a str,
        /// Its SHA-256.
        digest: FileDigest,
    },
}

impl WasmPlugin {
    /// Where it comes from; `None`: the document names nothing, or both, or only half of a file.
    pub fn source(&self) -> Option<WasmSource<'_>> {
        match (self.package, self.file.as_deref(), self.digest) {
            (Some(package), None, None) => Some(WasmSource::Package(package)),
            (None, Some(name), Some(digest)) => Some(WasmSource::File { name, digest }),
            _ => None,
        }
    }

    /// The first wire version whose control-plane nodes can read it.
    pub(crate) fn since_version(&self) -> u32 {
        match self {
            Self { compute_ms: 1.., .. } => 7,
            Self { package: Some(_), .. } => 5,
            Self { tools, .. } if !tools.is_empty() => 5,
            _ => 4,
        }
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A header with a secret, which the node adds to a component's request that asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WasmCredential {
    /// The header's name.
    pub header: String,
    /// Its value.
    pub value: SecretRef,
    /// The hosts that it may be sent to, in the form of `allowHosts`; at least one.
    pub hosts: Vec<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_component_comes_from_a_package_or_from_a_file() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let read = |text: &str| serde_json::from_str::<WasmPlugin>(&text.replace('D', &digest)).unwrap();
        let package = read(r#"{"package":"D"}"#);
        assert!(matches!(package.source(), Some(WasmSource::Package(_))) && package.since_version() == 5);
        let file = read(r#"{"file":"a.wasm","digest":"D"}"#);
        assert!(matches!(file.source(), Some(WasmSource::File { name: "a.wasm", .. })) && file.since_version() == 4);
        // Stored as before there were packages.
        assert_eq!(serde_json::to_string(&file).unwrap(), r#"{"file":"a.wasm","digest":"D"}"#.replace('D', &digest));
        for neither in ["{}", r#"{"file":"a.wasm"}"#, r#"{"digest":"D"}"#, r#"{"package":"D","file":"a","digest":"D"}"#]
        {
            assert_eq!(read(neither).source(), None, "{neither}");
        }
    }
}
