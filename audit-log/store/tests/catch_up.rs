//! A replica that takes a snapshot and the records that it describes from another one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use common::{Lab, open_machine, tenant, verify_both};
use parking_lot::Mutex;
use provost_audit_core::LogId;
use provost_audit_store::{AuditMachine, CheckpointKey, LeafSource, SharedMachine, TakeLeaf};
use provost_audit_verify::{Exit, LogLayout, LogReader};
use provost_control_raft::{AppliedState, Machine};
use tempfile::tempdir;

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
                    None => take(leaf)?,
                    Some(spoil) => spoil(index, leaf).map_or(Ok(()), |leaf| take(&leaf))?,
                }
            }
        }
        Ok(())
    }

    fn checkpoints(&self, log: &LogId) -> io::Result<Vec<u8>> {
        fs::read(self.audit.join(log.folder()).join("checkpoints"))
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
