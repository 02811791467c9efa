//! How plugin packages and those who sign them are named.
//!
//! Invariants: each has one text, so that equal texts are equal things.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

const BYTES: usize = 32;

/// The SHA-256 of a file (a package, a part of one, a component, a document): `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileDigest([u8; BYTES]);

/// A publisher's Ed25519 key (RFC 8032): `ed25519:` and 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublisherKey([u8; BYTES]);

/// Why a text names no digest or key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {prefix} and 64 hexadecimal digits in lower case")]
pub struct NotSoNamed {
    text: String,
    prefix: &'static str,
}

impl FileDigest {
    const PREFIX: &'static str = "sha256:";
}

impl PublisherKey {
    const PREFIX: &'static str = "ed25519:";
}

fn parse(text: &str, prefix: &'static str) -> Result<[u8; BYTES], NotSoNamed> {
    let wrong = || NotSoNamed { text: text.to_owned(), prefix };
    let digits = text.strip_prefix(prefix).ok_or_else(wrong)?.as_bytes();
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    if digits.len() != 2 * BYTES {
        return Err(wrong());
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = value(pair[0]).zip(value(pair[1])).ok_or_else(wrong)?;
        *byte = high << 4 | low;
    }
    Ok(bytes)
}

/// What both have in common, and their texts.
macro_rules! named {
    ($name:ident) => {
        impl $name {
            /// Of these bytes.
            pub const fn from_bytes(bytes: [u8; BYTES]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; BYTES] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Self::PREFIX)?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotSoNamed;

            fn from_str(text: &str) -> Result<Self, NotSoNamed> {
                parse(text, Self::PREFIX).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": format!("^{}[0-9a-f]{{64}}$", Self::PREFIX) })
            }
        }
    };
}

named!(FileDigest);
named!(PublisherKey);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_text() {
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
            format!("ed25519:{digits}"),
        ] {
            let error = wrong.parse::<FileDigest>().unwrap_err().to_string();
            assert!(error.contains("sha256:") && error.contains(&wrong), "{error}");
        }
    }
}
