//! The control group's replicated state machine: the pure state, persisted and published.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use arc_swap::ArcSwap;
use provost_control_raft::{AppliedState, Entry, Machine, SnapshotWriter};
use provost_control_state::{
    Applied, ClusterReply, LedgerReply, PackageCommand, PackageReply, PartKey, Problem, Rejected, ReleaseReply, State,
    StoredCommand, Transaction,
};
use provost_types::{Revision, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    store::{Dirty, StateStore},
    stored_state,
    write_behind::{PackageParts, WriteBehind},
};

/// What the machine answers to a transaction.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Applied { revision: Revision },
    Rejected { problems: Vec<Problem> },
    Cluster { reply: ClusterReply },
    Ledger { reply: LedgerReply },
    Release { reply: ReleaseReply },
    Carried,
    Package { reply: PackageReply },
}

/// What the node reads: replaced as a whole, never changed in place.
pub(crate) struct Published {
    pub(crate) state: ArcSwap<State>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    /// The bytes of plugin packages, which no state has.
    pub(crate) parts: PackageParts,
}

impl Published {
    fn set(&self, state: &State) {
        self.state.store(Arc::new(state.clone()));
        self.snapshots.send_replace(Arc::new(state.snapshot()));
    }
}

/// The machine.
pub(crate) struct ControlMachine {
    store: WriteBehind,
    state: State,
    published: Arc<Published>,
}

impl ControlMachine {
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Arc<Published>)> {
        let store = StateStore::open(dir)?;
        let state = store.load()?;
        let store = WriteBehind::start(store)?;
        let published = Arc::new(Published {
            state: ArcSwap::from_pointee(state.clone()),
            snapshots: watch::Sender::new(Arc::new(state.snapshot())),
            parts: store.parts(),
        });
        Ok((Self { store, state, published: published.clone() }, published))
    }
}

/// Entries that are applied where they are: none waits for a disk.
const MAX_QUICK_ENTRIES: usize = 256;
/// Bytes of their commands.
const MAX_QUICK_BYTES: usize = 256 << 10;

/// What a batch of entries changed.
#[derive(Default)]
struct Changes {
    /// Of what is stored.
    dirty: Dirty,
    /// Whether what nodes and readers see has changed: not by the ledger alone.
    published: bool,
}

impl ControlMachine {
    fn apply_one(&mut self, revision: Revision, command: StoredCommand, done: &mut Changes) -> Reply {
        match command {
            StoredCommand::V1(transaction) => match self.apply_transaction(revision, &transaction, done) {
                Ok(applied) => {
                    done.published |= transaction.sealing_key.is_some();
                    if let Some(entry) = &applied.entry {
                        done.published = true;
                        done.dirty.since.get_or_insert(entry.revision);
                        done.dirty.keys.extend(entry.changes.iter().map(|c| c.key.clone()));
                    }
                    Reply::Applied { revision: applied.revision }
                }
                Err(rejected) => Reply::Rejected { problems: rejected.problems },
            },
            StoredCommand::Cluster1 { command } => match self.state.apply_cluster(revision, command) {
                Ok(reply) => {
                    done.published = true;
                    done.dirty.cluster = true;
                    Reply::Cluster { reply }
                }
                Err(rejected) => Reply::Rejected { problems: rejected.problems },
            },
            StoredCommand::Ledger1 { command } => {
                let reply = self.state.apply_ledger(revision, command);
                done.dirty.ledger.extend(self.state.ledger().touched().cloned());
                Reply::Ledger { reply }
            }
            StoredCommand::Release1 { command } => {
                let reply = self.state.apply_release(command);
                done.published |= reply == ReleaseReply::Done;
                Reply::Release { reply }
            }
            StoredCommand::Carried1 { through } => {
                self.state.apply_carried(through);
                done.dirty.carried = done.dirty.carried.max(Some(through));
                Reply::Carried
            }
            StoredCommand::Package1 { command } => self.apply_package(revision, command, done),
        }
    }

    fn apply_transaction(
        &mut self,
        revision: Revision,
        transaction: &Transaction,
        done: &mut Changes,
    ) -> Result<Applied, Rejected> {
        let before = self.state.packages().clone();
        let applied = self.state.apply(revision, transaction)?;
        // The packages of a tenant that is deleted go with it.
        let gone = !Arc::ptr_eq(&before, self.state.packages());
        done.dirty.packages |= gone;
        done.dirty.sweeps |= gone;
        Ok(applied)
    }

    fn apply_package(&mut self, revision: Revision, command: PackageCommand, done: &mut Changes) -> Reply {
        let removes = !matches!(command, PackageCommand::Part { .. });
        let part = match &command {
            PackageCommand::Part { key, index, content } if self.state.packages().wants(key) == Some(*index) => {
                Some((PartKey { package: key.clone(), index: *index }, content.clone()))
            }
            _ => None,
        };
        let waiting = self.state.outbox().len();
        match self.state.apply_package(revision, command) {
            Ok(reply) => {
                if self.state.outbox().len() > waiting {
                    // What it dropped is to be recorded.
                    done.dirty.since.get_or_insert(revision);
                }
                done.dirty.packages = true;
                done.dirty.sweeps |= removes;
                done.dirty.parts.extend(part);
                Reply::Package { reply }
            }
            Err(rejected) => Reply::Rejected { problems: rejected.problems },
        }
    }
}

impl Machine for ControlMachine {
    fn last_applied(&self) -> io::Result<Option<AppliedState>> {
        self.store.applied()
    }

    fn apply(&mut self, batch: Vec<Entry>) -> io::Result<Vec<Vec<u8>>> {
        let mut replies = Vec::with_capacity(batch.len());
        let mut done = Changes::default();
        let mut last = None;
        for entry in batch {
            let reply = match entry.payload {
                None => Vec::new(),
                Some(bytes) => {
                    // Unreadable: written by a later release. Going on without it would diverge.
                    let command = StoredCommand::decode(&bytes).map_err(io::Error::other)?;
                    let reply = self.apply_one(Revision(entry.index), command, &mut done);
                    serde_json::to_vec(&reply).map_err(io::Error::other)?
                }
            };
            replies.push(reply);
            last = Some(entry.applied);
        }
        let Changes { dirty, published } = done;
        let is_read = !dirty.ledger.is_empty() || dirty.carried.is_some() || dirty.packages;
        if let Some(applied) = last {
            self.store.put(self.state.clone(), dirty, applied)?;
        }
        if published {
            self.published.set(&self.state);
        } else if is_read {
            // Readers see it, and nobody who waits for a revision is woken.
            self.published.state.store(Arc::new(self.state.clone()));
        }
        Ok(replies)
    }

    fn is_quick(&self, batch: &[Entry]) -> bool {
        let bytes: usize = batch.iter().filter_map(|entry| entry.payload.as_ref()).map(|payload| payload.len()).sum();
        batch.len() <= MAX_QUICK_ENTRIES && bytes <= MAX_QUICK_BYTES
    }

    fn snapshot(&self) -> io::Result<SnapshotWriter> {
        let (parts, state) = (self.published.parts.reader(), self.state.clone());
        Ok(Box::new(move |out| stored_state::write_state(out, &state, &mut |part| parts.read(part))))
    }

    fn install(&mut self, applied: AppliedState, data: &mut dyn Read) -> io::Result<()> {
        let next = self.store.next()?;
        let state = stored_state::read_state(data, &mut |part, content| next.put_part(part, &content));
        let state = state.map_err(io::Error::other)?;
        self.store.replace(next, &state, &applied)?;
        self.state = state;
        self.published.set(&self.state);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use provost_control_state::{
        ClockReading, Draft, Event, LeaseReport, LeaseWant, LedgerCommand, SealingKey, Transaction,
    };
    use provost_types::{Kind, Metadata, Name, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Spec, TenantSpec};

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
            sealing_key: Some(SealingKey { term: index, wrapped: "AA==".into(), keeps: 0 }),
            authorship: None,
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
        assert_eq!(installed.key_ring().len(), 1);
        assert_eq!(published.snapshots.borrow().of_kind(Kind::Tenant).count(), 2);
        assert_eq!(original.state.load().revision(), Revision(3));
        drop(target);
        let (target, published) = ControlMachine::open(to.path()).unwrap();
        assert_eq!(*published.state.load_full(), *installed);
        assert_eq!(target.last_applied().unwrap().unwrap().as_bytes(), [7]);
        assert!(!to.path().join("state-1").exists() && to.path().join("state-2").exists());
    }

    fn quota_entry(index: u64) -> Entry {
        let mut entry = entry(index, "acme");
        let Some(StoredCommand::V1(mut transaction)) = entry.payload.map(|p| StoredCommand::decode(&p).unwrap()) else {
            panic!("not a transaction");
        };
        let metadata = Metadata {
            name: Name::new("daily").unwrap(),
            tenant: Some(Name::new("acme").unwrap()),
            labels: Default::default(),
        };
        let spec = Spec::Quota(QuotaSpec {
            limit: 100,
            unit: QuotaUnit::Calls,
            per: QuotaPer::Principal,
            window: Some(QuotaWindow::Day),
            principals: Default::default(),
            tools: Default::default(),
        });
        transaction.puts.push(Draft { metadata, spec });
        entry.payload = Some(StoredCommand::V1(transaction).encode().unwrap().into());
        entry
    }

    fn exchange_entry(index: u64, seq: u64, subject: &str, reports: Vec<LeaseReport>) -> Entry {
        let command = LedgerCommand::Exchange {
            node: "dp-1".into(),
            epoch: 1,
            seq,
            now_ns: 1_795_219_200_000_000_000,
            clock: ClockReading { source: 1, up_ns: seq },
            reports,
            wants: vec![LeaseWant { account: format!("acme/daily#{subject}"), units: 5 }],
        };
        let payload = StoredCommand::Ledger1 { command }.encode().unwrap().into();
        Entry { index, applied: AppliedState::from_bytes(index.to_be_bytes().to_vec()), payload: Some(payload) }
    }

    #[test]
    fn the_ledger_is_stored_by_rows_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, published) = ControlMachine::open(dir.path()).unwrap();
        let mut snapshots = published.snapshots.subscribe();
        machine.apply(vec![quota_entry(1)]).unwrap();
        snapshots.mark_unchanged();
        let batch = vec![exchange_entry(2, 1, "ana", vec![]), exchange_entry(3, 2, "bob", vec![])];
        let replies = machine.apply(batch).unwrap();
        let Reply::Ledger { reply: LedgerReply::Exchanged { grants } } = serde_json::from_slice(&replies[0]).unwrap()
        else {
            panic!("no grant");
        };
        assert!(grants[0].units >= 5 && grants[0].limit == 100);
        assert!(!snapshots.has_changed().unwrap(), "nodes are not woken by exchanges");
        // One lease ends and one changes: a row that is gone, rows that are new, rows as before.
        let report = LeaseReport { lease: grants[0].lease, settled: 2, returned: 3, closed: true };
        machine.apply(vec![exchange_entry(4, 3, "bob", vec![report])]).unwrap();
        let before = published.state.load_full();
        assert_eq!((before.ledger().accounts().count(), before.ledger().leases().count()), (2, 1));
        drop(machine);
        let (machine, published) = ControlMachine::open(dir.path()).unwrap();
        assert_eq!(*published.state.load_full(), *before);
        // And through a snapshot.
        let mut bytes = Vec::new();
        machine.snapshot().unwrap()(&mut bytes).unwrap();
        let other = tempfile::tempdir().unwrap();
        let (mut target, installed) = ControlMachine::open(other.path()).unwrap();
        target.install(AppliedState::from_bytes(vec![7]), &mut bytes.as_slice()).unwrap();
        assert_eq!(*installed.state.load_full(), *before);
        drop(target);
        let (_, reopened) = ControlMachine::open(other.path()).unwrap();
        assert_eq!(*reopened.state.load_full(), *before);
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
