//! The store of a new group of one whose log begins with a given state: how a backup is restored.
//!
//! All that is written is the node's identity and a snapshot, in the form in which a leader would
//! have sent it. openraft installs it into a machine that has applied nothing, and purges the log
//! up to it. The log id has term 0: the first election, in term 1, is after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write},
    path::Path,
};

use openraft::{BasicNode, type_config::alias::LeaderIdOf, vote::RaftLeaderId};

use crate::{
    GroupConfig, GroupError, db,
    raft_types::{LogId, Membership, SnapshotMeta, Types},
    snapshot_file::SnapshotDir,
};

/// Makes the store of a group whose only member is `config.node_id`, with the machine's state as
/// `write_state` writes it (the form of [`crate::Machine::snapshot`]) at log index `index`; the
/// next entry comes after it. `dir` must not exist: after an error it is of no use.
///
/// The machine's own folder must be empty: its state comes from the snapshot.
pub fn seed(
    dir: &Path,
    config: &GroupConfig,
    index: u64,
    write_state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), GroupError> {
    std::fs::create_dir(dir)?;
    drop(db::open(&dir.join("raft"), config)?);
    let leader = LeaderIdOf::<Types>::new(0, config.node_id).to_committed();
    let last_log_id = Some(LogId::new(leader, index));
    let voters = vec![BTreeSet::from([config.node_id])];
    let nodes = BTreeMap::from([(config.node_id, BasicNode::new(config.address.clone()))]);
    let members = openraft::Membership::new(voters, nodes).map_err(|e| GroupError::Membership(e.to_string()))?;
    let meta = SnapshotMeta { last_log_id, last_membership: Membership::new(last_log_id, members) };
    SnapshotDir::open(dir.join("snapshots"))?.write(&meta, write_state)?;
    Ok(File::open(dir)?.sync_all()?)
}
