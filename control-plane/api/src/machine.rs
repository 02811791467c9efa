//! The control group's replicated state machine: the pure state, persisted and published.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use arc_swap::ArcSwap;
use provost_control_raft::{AppliedState, Entry, Machine, SnapshotWriter};
use provost_control_state::{ChangeKind, Problem, State, StoredCommand};
use provost_types::{ResourceKey, Revision, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::store::{StateStore, StoredState};

/// What the machine answers to a transaction.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Applied { revision: Revision, changes: Vec<(ResourceKey, ChangeKind)> },
    Rejected { problems: Vec<Problem> },
}

/// What the node reads: replaced as a whole, never changed in place.
pub(crate) struct Published {
    pub(crate) state: ArcSwap<State>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Published {
    fn set(&self, state: &State) {
        self.state.store(Arc::new(state.clone()));
        self.snapshots.send_replace(Arc::new(state.snapshot()));
    }
}

/// The machine.
pub(crate) struct ControlMachine {
    store: StateStore,
    state: State,
    published: Arc<Published>,
}

impl ControlMachine {
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Arc<Published>)> {
        let store = StateStore::open(dir)?;
        let state = store.load()?;
        let published = Arc::new(Published {
            state: ArcSwap::from_pointee(state.clone()),
            snapshots: watch::Sender::new(Arc::new(state.snapshot())),
        });
        Ok((Self { store, state, published: published.clone() }, published))
    }
}

impl Machine for ControlMachine {
    fn last_applied(&self) -> io::Result<Option<AppliedState>> {
        self.store.applied()
    }

    fn apply(&mut self, batch: Vec<Entry>) -> io::Result<Vec<Vec<u8>>> {
        let compacted_before = self.state.compacted();
        let mut replies = Vec::with_capacity(batch.len());
        let mut changed = Vec::new();
        let mut dirty = false;
        let mut last = None;
        for entry in batch {
            let reply = match entry.payload {
                None => Vec::new(),
                Some(bytes) => {
                    // Unreadable: written by a later release. Going on without it would diverge.
                    let command = StoredCommand::decode(&bytes).map_err(io::Error::other)?;
                    let transaction = command.into_transaction();
                    let reply = match self.state.apply(Revision(entry.index), &transaction) {
                        Ok(applied) => {
                            dirty |= applied.entry.is_some() || transaction.sealing_key.is_some();
                            changed.extend(applied.entry);
                            Reply::Applied { revision: applied.revision, changes: applied.changes }
                        }
                        Err(rejected) => Reply::Rejected { problems: rejected.problems },
                    };
                    serde_json::to_vec(&reply).map_err(io::Error::other)?
                }
            };
            replies.push(reply);
            last = Some(entry.applied);
        }
        if let Some(applied) = last {
            self.store.write(&changed, &self.state, compacted_before, &applied)?;
        }
        if dirty {
            self.published.set(&self.state);
        }
        Ok(replies)
    }

    fn snapshot(&self) -> io::Result<SnapshotWriter> {
        let state = self.state.clone();
        Ok(Box::new(move |out| serde_json::to_writer(out, &StoredState::of(&state)).map_err(io::Error::other)))
    }

    fn install(&mut self, applied: AppliedState, data: &mut dyn Read) -> io::Result<()> {
        let stored: StoredState = serde_json::from_reader(data).map_err(io::Error::other)?;
        let state = stored.into_state();
        self.store.replace(&state, &applied)?;
        self.state = state;
        self.published.set(&self.state);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use provost_control_state::{Draft, Event, SealingKey, Transaction};
    use provost_types::{Kind, Metadata, Name, Spec, TenantSpec};

    use super::*;

    fn entry(index: u64, tenant: &str) -> Entry {
        let metadata = Metadata { name: Name::new(tenant).unwrap(), tenant: None, labels: Default::default() };
        let transaction = Transaction {
            event: Event::Apply,
            time_ns: index,
            author: "test".into(),
            message: String::new(),
            expect_revision: None,
            expect: Vec::new(),
            puts: vec![Draft { metadata, spec: Spec::Tenant(TenantSpec::default()) }],
            deletes: Vec::new(),
            sealing_key: Some(SealingKey { term: index, wrapped: "AA==".into() }),
        };
        let payload = StoredCommand::V1(transaction).encode().unwrap().into();
        let applied = AppliedState::from_bytes(index.to_be_bytes().to_vec());
        Entry { index, applied, payload: Some(payload) }
    }

    #[test]
    fn what_is_applied_is_read_back_with_its_place_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, published) = ControlMachine::open(dir.path()).unwrap();
        assert_eq!(machine.last_applied().unwrap(), None);
        machine.apply(vec![entry(3, "a"), entry(4, "b")]).unwrap();
        let before = published.state.load_full();
        assert_eq!((before.revision(), before.history().len()), (Revision(4), 2));
        drop(machine);
        let (machine, published) = ControlMachine::open(dir.path()).unwrap();
        assert_eq!(*published.state.load_full(), *before);
        assert_eq!(machine.last_applied().unwrap().unwrap().as_bytes(), 4_u64.to_be_bytes());
    }

    #[test]
    fn a_snapshot_replaces_everything_and_lasts() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut source, original) = ControlMachine::open(from.path()).unwrap();
        source.apply(vec![entry(1, "a"), entry(2, "b")]).unwrap();
        let mut bytes = Vec::new();
        let write = source.snapshot().unwrap();
        // The snapshot is of the moment it was taken, not of the moment it is written.
        source.apply(vec![entry(3, "later")]).unwrap();
        write(&mut bytes).unwrap();

        let (mut target, published) = ControlMachine::open(to.path()).unwrap();
        target.apply(vec![entry(1, "old")]).unwrap();
        target.install(AppliedState::from_bytes(vec![7]), &mut bytes.as_slice()).unwrap();
        let installed = published.state.load_full();
        let names: Vec<_> = installed.resources().keys().map(|k| k.to_string()).collect();
        assert_eq!(names, ["Tenant/a", "Tenant/b"]);
        assert_eq!(installed.key_ring().len(), 2);
        assert_eq!(published.snapshots.borrow().of_kind(Kind::Tenant).count(), 2);
        assert_eq!(original.state.load().revision(), Revision(3));
        drop(target);
        let (target, published) = ControlMachine::open(to.path()).unwrap();
        assert_eq!(*published.state.load_full(), *installed);
        assert_eq!(target.last_applied().unwrap().unwrap().as_bytes(), [7]);
        assert!(!to.path().join("state-1").exists() && to.path().join("state-2").exists());
    }

    #[test]
    fn a_generation_that_was_never_made_current_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, _) = ControlMachine::open(dir.path()).unwrap();
        machine.apply(vec![entry(1, "a")]).unwrap();
        drop(machine);
        fs::create_dir(dir.path().join("state-2")).unwrap();
        let (_, published) = ControlMachine::open(dir.path()).unwrap();
        assert_eq!(published.state.load().revision(), Revision(1));
        assert!(!dir.path().join("state-2").exists());
    }
}
