//! What packages and their parts are stored under.

use std::fmt;

use provost_types::{FileDigest, Name};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A package of a tenant. Its text is `TENANT/DIGEST`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageKey {
    /// Whose it is. Another tenant's package of this digest is another.
    pub tenant: Name,
    /// Its SHA-256.
    pub digest: FileDigest,
}

impl fmt::Display for PackageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.digest)
    }
}

impl Serialize for PackageKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackageKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (tenant, digest) = text.split_once('/').ok_or_else(|| D::Error::custom("a package has a tenant"))?;
        let tenant = Name::new(tenant).map_err(D::Error::custom)?;
        Ok(Self { tenant, digest: digest.parse().map_err(D::Error::custom)? })
    }
}

/// A part of a package.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartKey {
    /// The package.
    pub package: PackageKey,
    /// Which part, from 0.
    pub index: u32,
}
