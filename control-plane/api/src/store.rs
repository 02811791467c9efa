//! The state on disk: one RocksDB a generation.
//!
//! `state-N/` is a generation; the file `state-current` names the one in use. Every write is one
//! `WriteBatch` with the group's applied state, unsynced and a moment late ([`crate::write_behind`]):
//! after a crash an older state comes back with the older applied state, and the log is applied again
//! from there.
//! A snapshot is installed into a new generation, then the pointer is flipped: a crash before the
//! flip leaves a generation that the next start removes, after it the old one is removed.
//! The bytes of plugin packages are here only, in parts, written with the state that lists them. What no state lists
//! any more is removed later, when nobody reads an older state's: parts never change, so an older one's are the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use provost_control_raft::AppliedState;
use provost_control_state::{
    HistoryEntry, Ledger, LedgerRow, LedgerRowKey, PackageKey, Packages, PartKey, Release, State, Unrecorded,
};
use provost_types::{Name, Resource, ResourceKey, Revision};
use rocksdb::{ColumnFamilyDescriptor, DB, DBRecoveryMode, IteratorMode, LogLevel, Options, WriteBatch};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Resources by `Kind/tenant/name`.
const RESOURCES: &str = "resources";
/// History entries by big-endian revision.
const HISTORY: &str = "history";
/// Rows of the quota ledger by their names: an exchange writes those that it touched.
const LEDGER: &str = "ledger";
/// Changes that the audit log does not have yet, by big-endian revision.
const OUTBOX: &str = "outbox";
/// Applied state and counters.
const META: &str = "meta";
/// Parts of plugin packages by `TENANT/DIGEST`, a zero byte and the big-endian index.
const PARTS: &str = "package-parts";
const APPLIED_KEY: &[u8] = b"applied";
const COUNTERS_KEY: &[u8] = b"counters";
const CLUSTER_KEY: &[u8] = b"cluster";
const PACKAGES_KEY: &[u8] = b"packages";
/// Between a package and the index of its part; the byte after it ends the package's parts.
const PART_MARK: u8 = 0;
const POINTER: &str = "state-current";
/// The file of RocksDB's that a database has from its beginning on.
const CURRENT_FILE: &str = "CURRENT";

/// What differs between the stored state and the present one.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Resources that changed.
    pub(crate) keys: BTreeSet<ResourceKey>,
    /// The oldest revision that is not stored.
    pub(crate) since: Option<Revision>,
    /// The newest change that left the outbox.
    pub(crate) carried: Option<Revision>,
    /// The cluster's own facts.
    pub(crate) cluster: bool,
    /// Rows of the ledger.
    pub(crate) ledger: BTreeSet<LedgerRowKey>,
    /// What is known of packages.
    pub(crate) packages: bool,
    /// Parts that came.
    pub(crate) parts: BTreeMap<PartKey, Vec<u8>>,
    /// Whether packages may have gone.
    pub(crate) sweeps: bool,
}

impl Dirty {
    /// Adds what changed later.
    pub(crate) fn merge(&mut self, later: Self) {
        self.keys.extend(later.keys);
        self.since = self.since.or(later.since);
        self.carried = self.carried.max(later.carried);
        self.cluster |= later.cluster;
        self.ledger.extend(later.ledger);
        self.packages |= later.packages;
        self.parts.extend(later.parts);
        self.sweeps |= later.sweeps;
    }
}

/// What is not a resource or a history entry.
#[derive(Default, Serialize, Deserialize)]
struct Counters {
    revision: Revision,
    compacted: Revision,
    key_ring: BTreeMap<u64, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release: Option<Release>,
}

/// The generation in use.
pub(crate) struct StateStore {
    dir: PathBuf,
    generation: u64,
    db: DB,
    /// The compaction of the stored history.
    compacted: Revision,
    /// Whether parts may be here that the stored state does not list.
    sweeps: bool,
    /// Readers of older states: what those list stays.
    readers: Arc<AtomicUsize>,
}

/// A generation that is being filled.
pub(crate) struct Next {
    db: DB,
    generation: u64,
}

impl Next {
    /// Keeps a part of a package.
    pub(crate) fn put_part(&self, key: &PartKey, content: &[u8]) -> io::Result<()> {
        self.db.put_cf(&family(&self.db, PARTS)?, part_name(key), content).map_err(io::Error::other)
    }
}

impl StateStore {
    /// Opens the current generation and removes all others.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let generation = match fs::read_to_string(dir.join(POINTER)) {
            Ok(text) => text.trim().parse().map_err(io::Error::other)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 1,
            Err(e) => return Err(e),
        };
        let db = open_db(&path(dir, generation))?;
        let readers = Arc::new(AtomicUsize::new(0));
        // A crash may have come between a state and the removal of what it lists no more.
        let mut store =
            Self { dir: dir.to_owned(), generation, db, compacted: Revision::default(), sweeps: true, readers };
        store.compacted = store.read_meta::<Counters>(COUNTERS_KEY)?.unwrap_or_default().compacted;
        store.remove_other_generations()?;
        Ok(store)
    }

    pub(crate) fn load(&self) -> io::Result<State> {
        let counters: Counters = self.read_meta(COUNTERS_KEY)?.unwrap_or_default();
        let resources: Vec<Resource> = self.read_all(RESOURCES)?;
        let history: Vec<HistoryEntry> = self.read_all(HISTORY)?;
        let Counters { revision, compacted, key_ring, release } = counters;
        let state = State::from_parts(revision, resources, history, compacted, key_ring);
        let cluster = self.read_meta(CLUSTER_KEY)?.unwrap_or_default();
        let rows: Vec<LedgerRow> = self.read_all(LEDGER)?;
        let outbox: Vec<Unrecorded> = self.read_all(OUTBOX)?;
        let packages: Packages = self.read_meta(PACKAGES_KEY)?.unwrap_or_default();
        let state = state.with(cluster, Ledger::from_rows(rows)).with_release(release).with_outbox(outbox);
        Ok(state.with_packages(packages))
    }

    /// Counts who reads parts of packages of older states.
    pub(crate) fn readers(&self) -> &Arc<AtomicUsize> {
        &self.readers
    }

    /// A part of a package.
    pub(crate) fn part(&self, key: &PartKey) -> io::Result<Option<Vec<u8>>> {
        self.db.get_cf(&family(&self.db, PARTS)?, part_name(key)).map_err(io::Error::other)
    }

    /// The packages of which parts are here.
    fn packages_here(&self) -> io::Result<Vec<PackageKey>> {
        let parts = family(&self.db, PARTS)?;
        let mut at = self.db.raw_iterator_cf(&parts);
        at.seek_to_first();
        let mut found = Vec::new();
        while let Some(name) = at.key() {
            let package = package_in(name)?;
            at.seek(package_name(&package, PART_MARK + 1));
            found.push(package);
        }
        at.status().map_err(io::Error::other)?;
        Ok(found)
    }

    /// Removes the parts of packages that the stored state does not list, unless somebody reads an older one's.
    fn sweep(&mut self, listed: &Packages) -> io::Result<()> {
        if !self.sweeps || self.readers.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let parts = family(&self.db, PARTS)?;
        for package in self.packages_here()?.iter().filter(|package| !listed.has(package)) {
            let (from, to) = (package_name(package, PART_MARK), package_name(package, PART_MARK + 1));
            self.db.delete_range_cf(&parts, from, to).map_err(io::Error::other)?;
        }
        self.sweeps = false;
        Ok(())
    }

    pub(crate) fn applied(&self) -> io::Result<Option<AppliedState>> {
        let bytes = self.db.get_cf(&family(&self.db, META)?, APPLIED_KEY).map_err(io::Error::other)?;
        Ok(bytes.map(AppliedState::from_bytes))
    }

    /// Writes what differs from what is stored, atomically with `applied`. `state` is the whole state.
    pub(crate) fn write(&mut self, dirty: &Dirty, state: &State, applied: &AppliedState) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        let (resources, history) = (family(&self.db, RESOURCES)?, family(&self.db, HISTORY)?);
        for key in &dirty.keys {
            match state.resources().get(key) {
                Some(resource) => batch.put_cf(&resources, key.to_string(), encode(&**resource)?),
                None => batch.delete_cf(&resources, key.to_string()),
            }
        }
        let is_new = |revision: Revision| dirty.since.is_some_and(|since| revision >= since);
        for entry in state.history().iter().rev().take_while(|e| is_new(e.revision)) {
            batch.put_cf(&history, entry.revision.0.to_be_bytes(), encode(&**entry)?);
        }
        if state.compacted() > self.compacted {
            let from = self.compacted.0.to_be_bytes();
            let to = (state.compacted().0 + 1).to_be_bytes();
            batch.delete_range_cf(&history, from.as_slice(), to.as_slice());
        }
        let outbox = family(&self.db, OUTBOX)?;
        if let Some(Revision(through)) = dirty.carried {
            let (from, to) = (0_u64.to_be_bytes(), through.saturating_add(1).to_be_bytes());
            batch.delete_range_cf(&outbox, from.as_slice(), to.as_slice());
        }
        for unrecorded in state.outbox().iter().rev().take_while(|u| is_new(u.revision)) {
            batch.put_cf(&outbox, unrecorded.revision.0.to_be_bytes(), encode(&**unrecorded)?);
        }
        let meta = family(&self.db, META)?;
        batch.put_cf(&meta, COUNTERS_KEY, encode(&counters(state))?);
        if dirty.cluster {
            batch.put_cf(&meta, CLUSTER_KEY, encode(&**state.cluster())?);
        }
        let ledger = family(&self.db, LEDGER)?;
        for key in &dirty.ledger {
            match state.ledger().row(key) {
                Some(row) => batch.put_cf(&ledger, key.to_string(), encode(&row)?),
                None => batch.delete_cf(&ledger, key.to_string()),
            }
        }
        if dirty.packages {
            batch.put_cf(&meta, PACKAGES_KEY, encode(&**state.packages())?);
        }
        let parts = family(&self.db, PARTS)?;
        for (key, content) in &dirty.parts {
            batch.put_cf(&parts, part_name(key), content);
        }
        batch.put_cf(&meta, APPLIED_KEY, applied.as_bytes());
        self.db.write(batch).map_err(io::Error::other)?;
        self.compacted = state.compacted();
        self.sweeps |= dirty.sweeps;
        drop((resources, history, outbox, meta, ledger, parts));
        self.sweep(state.packages())
    }

    /// The next generation, empty: for the parts of packages of the state that replaces this one.
    pub(crate) fn next(&self) -> io::Result<Next> {
        let generation = self.generation + 1;
        let target = path(&self.dir, generation);
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        Ok(Next { db: open_db(&target)?, generation })
    }

    /// Replaces everything by `state`, whose packages are in `next` already.
    pub(crate) fn replace(&mut self, next: Next, state: &State, applied: &AppliedState) -> io::Result<()> {
        let Next { db, generation } = next;
        let mut batch = WriteBatch::default();
        {
            let (resources, history) = (family(&db, RESOURCES)?, family(&db, HISTORY)?);
            for (key, resource) in state.resources() {
                batch.put_cf(&resources, key.to_string(), encode(&**resource)?);
            }
            for entry in state.history() {
                batch.put_cf(&history, entry.revision.0.to_be_bytes(), encode(&**entry)?);
            }
            let outbox = family(&db, OUTBOX)?;
            for unrecorded in state.outbox() {
                batch.put_cf(&outbox, unrecorded.revision.0.to_be_bytes(), encode(&**unrecorded)?);
            }
            let meta = family(&db, META)?;
            batch.put_cf(&meta, COUNTERS_KEY, encode(&counters(state))?);
            batch.put_cf(&meta, CLUSTER_KEY, encode(&**state.cluster())?);
            let ledger = family(&db, LEDGER)?;
            for (key, row) in state.ledger().rows() {
                batch.put_cf(&ledger, key.to_string(), encode(&row)?);
            }
            batch.put_cf(&meta, PACKAGES_KEY, encode(&**state.packages())?);
            batch.put_cf(&meta, APPLIED_KEY, applied.as_bytes());
        }
        db.write(batch).map_err(io::Error::other)?;
        db.flush_wal(true).map_err(io::Error::other)?;
        flip(&self.dir, generation)?;
        self.db = db;
        self.generation = generation;
        self.compacted = state.compacted();
        self.remove_other_generations()
    }

    fn remove_other_generations(&self) -> io::Result<()> {
        let current = path(&self.dir, self.generation);
        for entry in fs::read_dir(&self.dir)? {
            let other = entry?.path();
            let name = other.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let generation = name.strip_prefix("state-").is_some_and(|n| n.parse::<u64>().is_ok());
            if generation && other != current {
                fs::remove_dir_all(other)?;
            }
        }
        Ok(())
    }

    fn read_meta<T: DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let bytes = self.db.get_cf(&family(&self.db, META)?, key).map_err(io::Error::other)?;
        bytes.map(|b| serde_json::from_slice(&b).map_err(io::Error::other)).transpose()
    }

    fn read_all<T: DeserializeOwned>(&self, name: &str) -> io::Result<Vec<T>> {
        self.db
            .iterator_cf(&family(&self.db, name)?, IteratorMode::Start)
            .map(|item| {
                let (_, value) = item.map_err(io::Error::other)?;
                serde_json::from_slice(&value).map_err(io::Error::other)
            })
            .collect()
    }
}

fn counters(state: &State) -> Counters {
    let release = state.release().map(|r| (**r).clone());
    Counters { revision: state.revision(), compacted: state.compacted(), key_ring: state.key_ring().clone(), release }
}

fn package_name(package: &PackageKey, mark: u8) -> Vec<u8> {
    let mut name = package.to_string().into_bytes();
    name.push(mark);
    name
}

fn part_name(key: &PartKey) -> Vec<u8> {
    let mut name = package_name(&key.package, PART_MARK);
    name.extend_from_slice(&key.index.to_be_bytes());
    name
}

/// The package whose part has this name.
fn package_in(name: &[u8]) -> io::Result<PackageKey> {
    let unread = || io::Error::other("the name of a package's part cannot be read");
    let text = name.split(|byte| *byte == PART_MARK).next().and_then(|text| std::str::from_utf8(text).ok());
    let (tenant, digest) = text.and_then(|text| text.split_once('/')).ok_or_else(unread)?;
    let tenant = Name::new(tenant).map_err(io::Error::other)?;
    Ok(PackageKey { tenant, digest: digest.parse().map_err(io::Error::other)? })
}

fn path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("state-{generation}"))
}

fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

fn family<'a>(db: &'a DB, name: &str) -> io::Result<Arc<rocksdb::BoundColumnFamily<'a>>> {
    db.cf_handle(name).ok_or_else(|| io::Error::other(format!("column family {name} is missing")))
}

fn open_db(path: &Path) -> io::Result<DB> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // Nothing here is synced as it is written, and any prefix is right: each write says where in the Raft
    // log it belongs, and what is missing is applied again.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    let mut names: BTreeSet<String> = [RESOURCES, HISTORY, LEDGER, OUTBOX, META, PARTS].map(str::to_owned).into();
    // RocksDB opens all families or nothing. What a later build has added is opened and left alone: whether a node may go
    // back to this build, the cluster's version says.
    if path.join(CURRENT_FILE).exists() {
        names.extend(DB::list_cf(&options, path).map_err(io::Error::other)?);
    }
    let families = names.into_iter().map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
    DB::open_cf_descriptors(&options, path, families).map_err(io::Error::other)
}

/// Makes `generation` the current one, durably.
fn flip(dir: &Path, generation: u64) -> io::Result<()> {
    let temporary = dir.join(format!("{POINTER}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(generation.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(POINTER))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_a_later_build_added_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        drop(open_db(&path).unwrap());
        let options = Options::default();
        let later = DB::open_cf(&options, &path, DB::list_cf(&options, &path).unwrap()).unwrap();
        later.create_cf("of-a-later-build", &options).unwrap();
        drop(later);
        let db = open_db(&path).unwrap();
        assert!(family(&db, PARTS).is_ok() && family(&db, "of-a-later-build").is_ok());
    }
}
