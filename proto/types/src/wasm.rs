//! Plugins that are WebAssembly components: what their documents say.
//!
//! Invariants: what is run is named by its hash; what a component may reach and which credentials its requests carry
//! are said here and never by the component. Left out: the component itself (a file on each node), and how it is run
//! (`provost-data-wasm`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{EgressSpec, SecretRef};

/// A source of tools that is a WebAssembly component of the world `provost:plugin/tool-plugin`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WasmPlugin {
    /// The component's file: its name in the folder `plugins` of the data directory of every node that serves calls.
    pub file: String,
    /// The SHA-256 of that file. Another file of this name is not run.
    pub digest: FileDigest,
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

const BYTES: usize = 32;
const PREFIX: &str = "sha256:";

/// The SHA-256 of a file: `sha256:` and 64 hexadecimal digits in lower case. One digest has one text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileDigest([u8; BYTES]);

/// Why a text names no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not {PREFIX} and 64 hexadecimal digits in lower case")]
pub struct NotADigest(String);

impl FileDigest {
    /// Of these bytes.
    pub const fn from_bytes(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }
}

impl FromStr for FileDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let wrong = || NotADigest(text.to_owned());
        let digits = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        if pairs.len() != BYTES || !rest.is_empty() {
            return Err(wrong());
        }
        let mut bytes = [0; BYTES];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (high, low) = value(*high).zip(value(*low)).ok_or_else(wrong)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for FileDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for FileDigest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FileDigest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_text() {
        let digits = "00ff".repeat(16);
        let digest: FileDigest = format!("sha256:{digits}").parse().unwrap();
        assert_eq!((digest.to_string(), digest.as_bytes()[1]), (format!("sha256:{digits}"), 0xff));
        assert_eq!(serde_json::from_str::<FileDigest>(&format!("\"sha256:{digits}\"")).unwrap(), digest);
        for wrong in [
            digits.clone(),
            format!("sha256:{}", digits.to_uppercase()),
            format!("sha256:{}", &digits[1..]),
            format!("sha256:{digits}0"),
            format!("sha256:+{}", &digits[1..]),
            format!("sha512:{digits}"),
        ] {
            let error = wrong.parse::<FileDigest>().unwrap_err().to_string();
            assert!(error.contains("sha256:") && error.contains(&wrong), "{error}");
        }
    }
}
