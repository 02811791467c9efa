//! What is proposed of packages, and what is answered.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{PackageFacts, PackageKey};
use crate::Authorship;

/// A change of the packages. An upload begins, brings its parts in their order, and ends with the last of them; each
/// of these may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageCommand {
    /// An upload begins, or goes on.
    Begin {
        /// The package.
        key: PackageKey,
        /// What it is.
        facts: PackageFacts,
        /// When, nanoseconds since the Unix epoch, by the proposer's clock.
        time_ns: u64,
        /// Who brings it.
        by: String,
        /// Who that is in full, for the record of what is dropped for it; `None`: nothing is recorded of that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        authorship: Option<Box<Authorship>>,
    },
    /// The next part.
    Part {
        /// The package.
        key: PackageKey,
        /// Which part, from 0.
        index: u32,
        /// Its bytes.
        #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
        content: Vec<u8>,
    },
    /// It is needed no more.
    Remove {
        /// The package.
        key: PackageKey,
    },
}

impl PackageCommand {
    /// The first wire version whose control-plane nodes know of packages.
    pub(crate) const VERSION: u32 = 5;
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageReply {
    /// The package is there.
    Stored,
    /// This part is wanted next.
    Wants(u32),
    /// It is gone.
    Removed,
}

fn to_base64<S: Serializer>(content: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(content))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
}
