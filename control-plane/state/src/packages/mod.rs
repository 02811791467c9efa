//! Which plugin packages the cluster has.
//!
//! Invariants: a package never changes, and is named by its hash; together they have a bound, and so have uploads that
//! never end; what a plugin runs is not removed.
//! Left out: the bytes. They are in commands, and then where `provost-control-api` stores them: a state has what is
//! known of packages, and how many of its parts an upload has. Whether the bytes are those of the digest, and signed,
//! is looked at before they are proposed, and again by each node that runs them.

mod apply;
mod check;
mod command;
mod key;

use std::collections::BTreeMap;

use provost_types::{Name, PublisherKey, Revision};
use serde::{Deserialize, Serialize};

pub(crate) use check::{check_plugins, check_publisher};
pub use command::{PackageCommand, PackageReply};
pub use key::{PackageKey, PartKey};

/// Bytes of each part of a package but the last: no command is larger than it has to be.
pub const PACKAGE_PART_BYTES: usize = 256 << 10;
/// Bytes of one package.
pub const MAX_STORED_PACKAGE_BYTES: u64 = 64 << 20;
/// Bytes of all packages of a cluster, with those on their way.
pub const MAX_PACKAGES_BYTES: u64 = 512 << 20;
/// Bytes of all packages of a tenant, so that one leaves room for others.
pub const MAX_TENANT_PACKAGES_BYTES: u64 = 256 << 20;
/// All packages of a cluster, with those on their way: what is known of them is written with each that comes.
pub const MAX_PACKAGES: usize = 1_024;
/// All packages of a tenant.
pub const MAX_TENANT_PACKAGES: usize = 256;
/// Packages on their way at a time; the oldest makes room.
pub const MAX_UPLOADS: usize = 4;
/// An upload that has not ended after so long is forgotten when the next one begins.
pub const MAX_UPLOAD_NS: u64 = 10 * 60 * 1_000_000_000;
/// Packages of one name that no plugin runs and that stay all the same, the newest: to go back to.
pub const KEPT_PACKAGES: usize = 4;

/// What is known of a package without its bytes: its manifest and its signature, as they were checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFacts {
    /// The plugin, as its publisher calls it.
    pub name: Name,
    /// Its version.
    pub version: String,
    /// The publisher that it names.
    pub publisher: Name,
    /// Who signed it.
    pub key: PublisherKey,
    /// Its size.
    pub bytes: u64,
}

impl PackageFacts {
    /// How many parts it has.
    pub fn parts(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(PACKAGE_PART_BYTES as u64)).unwrap_or(u32::MAX)
    }
}

/// A package that is there, or on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPackage {
    /// What it is.
    pub facts: PackageFacts,
    /// The log index of its last part; of one on its way that of its beginning.
    pub revision: Revision,
    /// When it was brought, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Who brought it.
    pub by: String,
    /// Parts that have come: all of them, or it is on its way.
    pub received: u32,
}

impl StoredPackage {
    fn is_whole(&self) -> bool {
        self.received >= self.facts.parts()
    }
}

/// All packages, and those on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    all: BTreeMap<PackageKey, StoredPackage>,
}

impl Packages {
    /// Whether there are none, whole or not.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A whole package.
    pub fn get(&self, key: &PackageKey) -> Option<&StoredPackage> {
        self.all.get(key).filter(|package| package.is_whole())
    }

    /// The whole packages, in order of tenant and digest.
    pub fn iter(&self) -> impl Iterator<Item = (&PackageKey, &StoredPackage)> {
        self.all.iter().filter(|(_, package)| package.is_whole())
    }

    /// Whether parts of it are stored, of one on its way too.
    pub fn has(&self, key: &PackageKey) -> bool {
        self.all.contains_key(key)
    }

    /// The part that is next of one on its way; `None`: none is.
    pub fn wants(&self, key: &PackageKey) -> Option<u32> {
        self.all.get(key).filter(|package| !package.is_whole()).map(|package| package.received)
    }

    /// Every part that is stored, in order.
    pub fn parts(&self) -> impl Iterator<Item = PartKey> {
        self.all
            .iter()
            .flat_map(|(key, package)| (0..package.received).map(|index| PartKey { package: key.clone(), index }))
    }

    /// What a tenant had goes with it.
    pub(crate) fn keep_tenants(&mut self, exists: impl Fn(&Name) -> bool) {
        self.all.retain(|key, _| exists(&key.tenant));
    }

    /// Whether packages of this tenant are stored.
    pub(crate) fn has_of(&self, tenant: &Name) -> bool {
        self.all.keys().any(|key| key.tenant == *tenant)
    }
}
