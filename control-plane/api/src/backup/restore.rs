//! Restoring: a new cluster whose log begins with the state of a backup.
//!
//! The new group of one gets the state as a Raft snapshot, at a log index after everything in it:
//! revisions go on, none is used twice. What belonged to the old cluster's nodes does not go over:
//! members, join tokens, administrators' tokens, the CA and the leases of quota units, which count
//! as used, because nobody can say any more that they were not.
//!
//! All of it is made in a folder beside the final one and renamed: a crash leaves a folder that no
//! node opens.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use provost_control_raft::GroupConfig;
use provost_control_state::{Ledger, LedgerRowKey, PartKey, State};
use provost_types::Name;
use serde::{Deserialize, Serialize};

use super::{
    format::{BackupError, BackupHeader},
    read::{BackupReader, BackupSummary},
};
use crate::{
    LocalFileKey,
    node::GROUP,
    secrets::opens_newest_key,
    stored_state::{read_state, write_state},
};

/// Where to restore, and as what.
#[derive(Clone, Debug)]
pub struct RestoreTarget {
    /// An empty or missing folder: the data folder of the new cluster's first node.
    pub data_dir: PathBuf,
    /// The new cluster's name; not the old one's.
    pub cluster: String,
    /// Where peers will reach the node; empty for a cluster of one.
    pub address: String,
    /// The key file by which secrets are to open afterwards; `None`: it is seen to later.
    pub secrets_key: Option<PathBuf>,
}

/// A restored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What was in the backup.
    pub summary: BackupSummary,
    /// Who must open it.
    pub node: RestoredNode,
}

/// Who must open a restored state; stored with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredNode {
    /// The new cluster's name.
    pub cluster: String,
    /// The first node's id: ids of the old cluster are not given again.
    pub node_id: u64,
}

impl RestoredNode {
    /// What a restore left in a data folder; `None`: nothing was restored there.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(data_dir.join(GROUP).join(NOTE)) {
            Ok(json) => serde_json::from_slice(&json).map(Some).map_err(io::Error::other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let mut file = File::create(dir.join(NOTE))?;
        serde_json::to_writer(&mut file, self)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()
    }
}

/// The file that names the node; it lies beside the state.
const NOTE: &str = "restored.json";

/// Verifies a whole backup, then makes a group of one from it. On an error nothing is left in the
/// data folder that a node would open.
pub fn restore_backup(source: impl Read, target: &RestoreTarget) -> Result<Restored, BackupError> {
    check_folder(&target.data_dir)?;
    // In memory: packages have a bound, and this machine serves nobody yet.
    let mut packages: BTreeMap<PartKey, Vec<u8>> = BTreeMap::new();
    let (summary, state) = read(source, &mut |part, content| {
        packages.insert(part.clone(), content);
        Ok(())
    })?;
    check_name(&target.cluster, &summary.header)?;
    if let Some(key) = &target.secrets_key {
        // A wrong one would be noticed when the first secret is needed, and the right one be gone by then.
        let key = LocalFileKey::open_present(key).map_err(BackupError::Key)?;
        opens_newest_key(&key, &state).map_err(BackupError::Key)?;
    }
    let state = for_restore(&state);
    let node = RestoredNode { cluster: target.cluster.clone(), node_id: state.cluster().last_node_id() + 1 };
    let mut config = GroupConfig::new(node.node_id, target.cluster.clone(), GROUP);
    config.address = target.address.clone();

    // For this user alone: it holds the whole state.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&target.data_dir)?;
    let making = target.data_dir.join(format!("{GROUP}.restoring"));
    let index = summary.header.index + 1;
    let made = provost_control_raft::seed(&making, &config, index, |out| {
        let missing = || io::Error::other("a part of a package is missing");
        write_state(out, &state, &mut |part| packages.remove(part).ok_or_else(missing))
    })
    .map_err(BackupError::from)
    .and_then(|()| Ok(node.write(&making)?));
    if made.is_err() {
        // So that the next try finds the folder as this one did.
        let _ = fs::remove_dir_all(&making);
    }
    made?;
    fs::rename(&making, target.data_dir.join(GROUP))?;
    File::open(&target.data_dir)?.sync_all()?;
    Ok(Restored { summary, node })
}

/// The state without what belonged to the old cluster's nodes. Leased units of windows stay out
/// until their window ends: no node of the new cluster holds the leases, so none can give them back.
fn for_restore(state: &State) -> State {
    let kept = state.ledger().rows().filter(|(key, _)| !matches!(key, LedgerRowKey::Node(_)));
    let ledger = Ledger::from_rows(kept.map(|(_, row)| row));
    state.clone().with(state.cluster().for_restore(), ledger)
}

fn check_folder(dir: &Path) -> Result<(), BackupError> {
    let is_empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return Err(e.into()),
    };
    if is_empty { Ok(()) } else { Err(BackupError::Target(format!("{} is not empty", dir.display()))) }
}

fn check_name(cluster: &str, header: &BackupHeader) -> Result<(), BackupError> {
    Name::new(cluster).map_err(|e| BackupError::Target(format!("the new cluster's name: {e}")))?;
    if cluster == header.cluster {
        let text = format!("the backup is of cluster {cluster}, and a restored cluster needs a name of its own");
        return Err(BackupError::Target(text));
    }
    Ok(())
}

/// Reads and checks everything; `keep` gets the parts of packages.
pub(super) fn read(
    source: impl Read,
    keep: &mut dyn FnMut(&PartKey, Vec<u8>) -> io::Result<()>,
) -> Result<(BackupSummary, State), BackupError> {
    let (header, mut reader) = BackupReader::open(source)?;
    let unreadable = |e: serde_json::Error| {
        BackupError::Format(format!("its state, written by version {}, cannot be read: {e}", header.version))
    };
    let state = match read_state(BufReader::new(&mut reader), keep) {
        Ok(state) => state,
        Err(error) if error.is_io() => return Err(cause_of(error.into())),
        Err(error) => {
            // Damage first: what is not what was written need not be readable.
            reader.finish()?;
            return Err(unreadable(error));
        }
    };
    let (bytes, hash) = reader.finish()?;
    let summary = BackupSummary {
        resources: state.resources().len() as u64,
        history: state.history().len() as u64,
        bytes,
        hash: hash.to_hex().to_string(),
        header,
    };
    Ok((summary, state))
}

fn cause_of(error: io::Error) -> BackupError {
    match error.downcast::<BackupError>() {
        Ok(damage) => damage,
        Err(error) => error.into(),
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
