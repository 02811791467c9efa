//! Opens the Raft RocksDB and checks whose it is.

use std::{io, path::Path, sync::Arc};

use rocksdb::{
    BoundColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, IteratorMode, LogLevel, Options, WriteOptions,
};
use serde::{Deserialize, Serialize};

use crate::{GroupConfig, GroupError, codec};

/// Entries by big-endian index.
pub(crate) const LOG: &str = "log";
/// Vote, purge marker, committed log id, identity.
pub(crate) const META: &str = "meta";
const IDENTITY_KEY: &[u8] = b"identity";
/// RocksDB's pointer to its manifest: the file that every database has.
const CURRENT_FILE: &str = "CURRENT";
/// The write-ahead log is cut at this size by flushing the column family that holds it back.
const MAX_TOTAL_WAL_BYTES: u64 = 256 << 20;
/// RocksDB's own text logs that are kept.
const KEEP_INFO_LOGS: usize = 2;

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Identity {
    cluster: String,
    group: String,
    node_id: u64,
}

impl Identity {
    fn text(&self) -> String {
        format!("cluster {} / group {} / node {}", self.cluster, self.group, self.node_id)
    }
}

pub(crate) fn open(path: &Path, config: &GroupConfig) -> Result<Arc<DB>, GroupError> {
    // Before anything is created: a refused start must leave what it found, so that the next one
    // is refused too.
    if config.expect_existing && !path.join(CURRENT_FILE).exists() {
        return Err(wiped(path, config));
    }
    std::fs::create_dir_all(path)?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail is what a crash leaves of writes that were never acknowledged. Point-in-time
    // recovery would also drop acknowledged entries behind a torn record of another kind.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_total_wal_size(MAX_TOTAL_WAL_BYTES);
    options.set_keep_log_file_num(KEEP_INFO_LOGS);
    options.set_log_level(LogLevel::Warn);
    let families = [LOG, META].map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
    let db = DB::open_cf_descriptors(&options, path, families).map_err(io::Error::other)?;
    let db = Arc::new(db);
    check_identity(&db, path, config)?;
    Ok(db)
}

fn wiped(path: &Path, config: &GroupConfig) -> GroupError {
    GroupError::Wiped { path: path.display().to_string(), node_id: config.node_id }
}

/// First start: the identity is written and synced before anything else. A crash before that
/// leaves an empty store, which is taken again.
fn check_identity(db: &DB, path: &Path, config: &GroupConfig) -> Result<(), GroupError> {
    let expected = Identity { cluster: config.cluster.clone(), group: config.name.clone(), node_id: config.node_id };
    let meta = family(db, META)?;
    match db.get_cf(&meta, IDENTITY_KEY).map_err(io::Error::other)? {
        Some(bytes) => {
            let found: Identity = codec::decode(&bytes)?;
            if found == expected {
                return Ok(());
            }
            Err(GroupError::Identity {
                path: path.display().to_string(),
                found: found.text(),
                expected: expected.text(),
            })
        }
        None if config.expect_existing => Err(wiped(path, config)),
        None if db.iterator_cf(&family(db, LOG)?, IteratorMode::Start).next().is_some() => Err(GroupError::Identity {
            path: path.display().to_string(),
            found: "an unknown node (the store has a log but no identity)".to_owned(),
            expected: expected.text(),
        }),
        None => {
            let mut sync = WriteOptions::default();
            sync.set_sync(true);
            db.put_cf_opt(&meta, IDENTITY_KEY, codec::encode(&expected)?, &sync).map_err(io::Error::other)?;
            Ok(())
        }
    }
}

pub(crate) fn family<'a>(db: &'a DB, name: &str) -> io::Result<Arc<BoundColumnFamily<'a>>> {
    db.cf_handle(name).ok_or_else(|| io::Error::other(format!("column family {name} is missing")))
}
