//! Which log a record belongs to, and how that log is called on disk and in checkpoints.

use std::{fmt, path::PathBuf};

use provost_types::Name;
use serde::{Deserialize, Serialize};

/// Folder of the cluster's own log, below the audit directory.
pub const CLUSTER_DIR: &str = "cluster";
/// Folder that holds one folder a tenant, below the audit directory.
pub const TENANTS_DIR: &str = "tenants";
/// Last part of the cluster log's origin; no tenant can be called that (names begin with a letter
/// or digit).
const CLUSTER_ORIGIN: &str = "_cluster";

/// One log: a tenant's, or the cluster's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId(pub Option<Name>);

impl LogId {
    /// The cluster's own log.
    pub const CLUSTER: LogId = LogId(None);

    /// The C2SP origin: `CLUSTER_NAME/TENANT`, or `CLUSTER_NAME/_cluster`.
    pub fn origin(&self, cluster: &str) -> String {
        match &self.0 {
            Some(tenant) => format!("{cluster}/{tenant}"),
            None => format!("{cluster}/{CLUSTER_ORIGIN}"),
        }
    }

    /// The log that an origin names; `None` when its last part is not a tenant's name.
    pub fn from_origin(origin: &str) -> Option<Self> {
        let (_, last) = origin.rsplit_once('/')?;
        if last == CLUSTER_ORIGIN {
            return Some(Self::CLUSTER);
        }
        Name::new(last).ok().map(|name| Self(Some(name)))
    }

    /// The log's folder, relative to the audit directory.
    pub fn folder(&self) -> PathBuf {
        match &self.0 {
            Some(tenant) => PathBuf::from(TENANTS_DIR).join(tenant.as_str()),
            None => PathBuf::from(CLUSTER_DIR),
        }
    }

    /// The tenant's name, empty for the cluster's log.
    pub fn tenant(&self) -> &str {
        self.0.as_ref().map_or("", Name::as_str)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(tenant) => write!(f, "tenant {tenant}"),
            None => f.write_str("cluster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_names_one_log() {
        let acme = LogId(Name::new("acme").ok());
        assert_eq!(acme.origin("provost"), "provost/acme");
        assert_eq!(LogId::from_origin("provost/acme"), Some(acme));
        assert_eq!(LogId::from_origin("provost/_cluster"), Some(LogId::CLUSTER));
        assert_eq!(LogId::from_origin("provost/../x y"), None);
        assert_eq!(LogId::from_origin("provost"), None);
    }
}
