//! A replica that takes a snapshot and the records that it describes from another one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use common::{Lab, START_NS, event, open_machine, tenant, verify_both};
use parking_lot::Mutex;
use provost_audit_core::{Hash, LogId, NoteSigner};
use provost_audit_store::{AuditMachine, CheckpointKey, Command, LeafSource, Reply, SharedMachine, TakeLeaf};
use provost_audit_verify::{Exit, LogLayout, LogReader};
use provost_control_raft::{AppliedState, Machine};
use provost_types::{Body, KeptBody, KeyId, Phase, SealedBytes};
use tempfile::tempdir;
use zeroize::Zeroizing;

/// What becomes of a record on its way; `None`: it is left out.
type Spoil = fn(u64, &[u8]) -> Option<Vec<u8>>;

/// The records of a directory; `spoil` changes one, and may leave some out.
struct DirLeaves {
    audit: PathBuf,
    spoil: Option<Spoil>,
}

impl LeafSource for DirLeaves {
    fn leaves(&self, log: &LogId, from: u64, to: u64, take: TakeLeaf<'_>) -> io::Result<()> {
        let mut reader = LogReader::new(LogLayout::new(self.audit.join(log.folder())));
        while let Some(chunk) = reader.next().unwrap() {
            for (index, leaf) in chunk.iter().filter(|(index, _)| (from..to).contains(index)) {
                match self.spoil {
                    None => take(leaf, None)?,
                    Some(spoil) => spoil(index, leaf).map_or(Ok(()), |leaf| take(&leaf, None))?,
                }
            }
        }
        Ok(())
    }

    fn checkpoints(&self, log: &LogId) -> io::Result<Vec<u8>> {
        fs::read(self.audit.join(log.folder()).join("checkpoints"))
    }

    fn keys(&self, _: Option<u64>) -> io::Result<Zeroizing<Vec<u8>>> {
        Err(io::Error::other("nothing was sealed"))
    }

    fn pruned(&self, log: &LogId, to: u64) -> io::Result<Vec<u8>> {
        let layout = LogLayout::new(self.audit.join(log.folder()));
        let firsts = layout.list_pruned()?.into_iter().filter(|first| *first < to);
        let parts: io::Result<Vec<Vec<u8>>> = firsts.map(|first| fs::read(layout.pruned(first))).collect();
        Ok(parts?.concat())
    }
}

fn shared(machine: AuditMachine) -> SharedMachine {
    SharedMachine(Arc::new(Mutex::new(machine)))
}

fn manifest(machine: &SharedMachine) -> Vec<u8> {
    let mut manifest = Vec::new();
    machine.snapshot().unwrap()(&mut manifest).unwrap();
    manifest
}

fn applied() -> AppliedState {
    AppliedState::from_bytes(vec![7])
}

/// Every file that an auditor copies.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_none_or(|name| name != "state" && name != "audit.pub") {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Two logs with checkpoints, one of them longer than a tail goes on for.
fn leader(dir: &Path) -> Lab {
    let mut lab = Lab::open(dir);
    lab.calls(&LogId::CLUSTER, 40);
    lab.calls(&tenant("acme"), 700);
    lab.checkpoint();
    lab.calls(&tenant("acme"), 1_900);
    lab.checkpoint();
    lab.calls(&tenant("acme"), 30);
    lab
}

#[test]
fn a_new_replica_ends_with_the_same_files() {
    let (of_leader, of_new) = (tempdir().unwrap(), tempdir().unwrap());
    let Lab { machine, key, .. } = leader(of_leader.path());
    let heads = machine.heads();
    let leads = shared(machine);
    let bytes = manifest(&leads);
    drop(leads);

    let source = DirLeaves { audit: of_leader.path().join("audit"), spoil: None };
    let mut replica = shared(open_machine(of_new.path(), &key).with_source(Arc::new(source)));
    replica.install(applied(), &mut bytes.as_slice()).unwrap();
    assert_eq!(replica.last_applied().unwrap(), Some(applied()));
    assert_eq!(replica.0.lock().heads(), heads);
    // Again: nothing is fetched twice.
    replica.install(applied(), &mut bytes.as_slice()).unwrap();
    assert_eq!(replica.0.lock().heads(), heads);
    manifest(&replica);
    drop(replica);

    assert_eq!(files(&of_new.path().join("audit")), files(&of_leader.path().join("audit")));
    let report = verify_both(&of_new.path().join("audit"), None);
    assert_eq!(report.exit, Exit::Unanchored, "{report}");
    assert_eq!(open_machine(of_new.path(), &key).heads(), heads, "a restart finds it durable");
}

/// Gives the history as it was before the key changed, `stale` times; then as it is.
struct LateHistory {
    dir: DirLeaves,
    before: Vec<u8>,
    stale: AtomicU32,
}

impl LeafSource for LateHistory {
    fn leaves(&self, log: &LogId, from: u64, to: u64, take: TakeLeaf<'_>) -> io::Result<()> {
        self.dir.leaves(log, from, to, take)
    }

    fn checkpoints(&self, log: &LogId) -> io::Result<Vec<u8>> {
        let late = *log == tenant("acme") && self.stale.load(Ordering::SeqCst) > 0;
        if late {
            self.stale.fetch_sub(1, Ordering::SeqCst);
        }
        if late { Ok(self.before.clone()) } else { self.dir.checkpoints(log) }
    }

    fn keys(&self, at_least: Option<u64>) -> io::Result<Zeroizing<Vec<u8>>> {
        self.dir.keys(at_least)
    }

    fn pruned(&self, log: &LogId, to: u64) -> io::Result<Vec<u8>> {
        self.dir.pruned(log, to)
    }
}

/// The checkpoint that both keys signed is waited for: without it this replica's copy would look forged.
#[test]
fn a_history_without_the_change_of_keys_is_not_taken() {
    let (of_leader, of_new) = (tempdir().unwrap(), tempdir().unwrap());
    let mut lab = leader(of_leader.path());
    let old = lab.key.public_key();
    let audit = of_leader.path().join("audit");
    let before = fs::read(audit.join("tenants/acme/checkpoints")).unwrap();
    lab.rotate(CheckpointKey::open(&of_leader.path().join("keys/next")).unwrap());
    lab.calls(&tenant("acme"), 10);
    lab.checkpoint();
    let Lab { machine, key, .. } = lab;
    let leads = shared(machine);
    let bytes = manifest(&leads);
    drop(leads);

    let dir = DirLeaves { audit: audit.clone(), spoil: None };
    let source = Arc::new(LateHistory { dir, before, stale: AtomicU32::new(2) });
    let mut replica = shared(open_machine(of_new.path(), &key).with_source(source.clone()));
    replica.install(applied(), &mut bytes.as_slice()).unwrap();
    manifest(&replica);
    drop(replica);
    assert_eq!(source.stale.load(Ordering::SeqCst), 0);
    assert_ne!(old, key.public_key());
    assert_eq!(files(&of_new.path().join("audit")), files(&audit));
}

#[test]
fn records_other_than_agreed_on_are_not_used() {
    let of_leader = tempdir().unwrap();
    let Lab { machine, key, .. } = leader(of_leader.path());
    let bytes = manifest(&shared(machine));
    let spoils: [(&str, Spoil); 3] = [
        ("one is changed", |index, leaf| {
            let text = String::from_utf8(leaf.to_vec()).unwrap();
            Some(if index == 1_000 { text.replace("\"ok\"", "\"no\"").replace("allow", "deny") } else { text }.into())
        }),
        ("one is left out", |index, leaf| (index != 300).then(|| leaf.to_vec())),
        ("the end is left out", |index, leaf| (index < 5_000).then(|| leaf.to_vec())),
    ];
    for (what, spoil) in spoils {
        let dir = tempdir().unwrap();
        let source = DirLeaves { audit: of_leader.path().join("audit"), spoil: Some(spoil) };
        let mut replica = shared(open_machine(dir.path(), &key).with_source(Arc::new(source)));
        let refused = replica.install(applied(), &mut bytes.as_slice()).unwrap_err();
        assert!(refused.to_string().contains("PV-AUDIT-BEHIND"), "{what}: {refused}");
        assert!(replica.apply(Vec::new()).is_err() || replica.snapshot().is_err(), "{what}: it goes on");
        drop(replica);
        // The next start is as if nothing had come.
        assert_eq!(open_machine(dir.path(), &key).heads(), Vec::new(), "{what}");
    }
    let none = CheckpointKey::open(&of_leader.path().join("keys/audit-checkpoint.key")).unwrap();
    let dir = tempdir().unwrap();
    let refused = shared(open_machine(dir.path(), &none)).install(applied(), &mut bytes.as_slice()).unwrap_err();
    assert!(refused.to_string().contains("knows no other"), "{refused}");
}

/// One record and what is said to be its body.
struct OneBody {
    leaf: Vec<u8>,
    body: Option<&'static [u8]>,
}

impl LeafSource for OneBody {
    fn leaves(&self, _: &LogId, _: u64, _: u64, take: TakeLeaf<'_>) -> io::Result<()> {
        take(&self.leaf, self.body)
    }

    fn checkpoints(&self, _: &LogId) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn keys(&self, _: Option<u64>) -> io::Result<Zeroizing<Vec<u8>>> {
        Err(io::Error::other("nothing was sealed"))
    }

    fn pruned(&self, _: &LogId, _: u64) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

#[test]
fn bodies_come_with_their_records_or_nothing_does() {
    const BODY: &[u8] = b"a sealed body, and its tag";
    let of_leader = tempdir().unwrap();
    let mut lab = Lab::open(of_leader.path());
    let mut event = event(&tenant("acme"), Phase::Denied, 1, START_NS);
    let kept = KeptBody::Sealed(SealedBytes { sha256: Hash::of(BODY).0, bytes: Bytes::from_static(BODY) });
    event.body = Some(Body { commit: [1; 32], key: KeyId([2; 16]), len: 1, redaction: None, kept });
    let entry = lab.writer.entry(&[event]);
    let Command::Append(append) = Command::decode(&entry).unwrap() else { panic!("not a batch") };
    let leaf = append.records[0].leaf.to_vec();
    assert!(matches!(lab.apply(entry), Reply::Appended(_)));
    lab.checkpoint();
    let Lab { machine, key, .. } = lab;
    let bytes = manifest(&shared(machine));
    let stored = |dir: &Path| fs::read(LogLayout::new(dir.join("audit/tenants/acme")).bodies(0)).ok();
    let cases: [(&str, Option<&'static [u8]>, bool); 4] = [
        ("its own", Some(BODY), true),
        ("none", None, false),
        ("another one", Some(b"another"), false),
        ("an empty one", Some(b""), false),
    ];
    for (what, body, taken) in cases {
        let dir = tempdir().unwrap();
        let source = OneBody { leaf: leaf.clone(), body };
        let mut replica = shared(open_machine(dir.path(), &key).with_source(Arc::new(source)));
        let installed = replica.install(applied(), &mut bytes.as_slice());
        assert_eq!(installed.is_ok(), taken, "{what}: {installed:?}");
        if taken {
            assert_eq!(stored(dir.path()), stored(of_leader.path()));
        } else {
            assert!(installed.unwrap_err().to_string().contains("PV-AUDIT-BEHIND"), "{what}");
        }
    }
}
