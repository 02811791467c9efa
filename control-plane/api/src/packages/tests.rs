//! The bytes of packages: with the state that lists them through a restart and a snapshot, and gone when nobody needs
//! them.

use std::path::Path;

use provost_control_raft::{AppliedState, Entry, Machine};
use provost_control_state::{
    Draft, Event, PACKAGE_PART_BYTES, PackageCommand, PackageFacts, PackageKey, PartKey, StoredCommand, Transaction,
};
use provost_types::{FileDigest, Metadata, Name, PublisherKey, Spec, TenantSpec};

use crate::{
    machine::ControlMachine,
    stored_state::{read_state, write_state},
};

/// Two parts.
const BYTES: usize = PACKAGE_PART_BYTES + 3;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(n: u8) -> PackageKey {
    PackageKey { tenant: name("acme"), digest: FileDigest::from_bytes([n; 32]) }
}

fn part(n: u8, index: u32) -> PartKey {
    PartKey { package: key(n), index }
}

fn entry(index: u64, command: &StoredCommand) -> Entry {
    let applied = AppliedState::from_bytes(index.to_be_bytes().to_vec());
    Entry { index, applied, payload: Some(command.encode().unwrap().into()) }
}

fn tenant() -> StoredCommand {
    let metadata = Metadata { name: name("acme"), tenant: None, labels: Default::default() };
    StoredCommand::V1(Transaction {
        event: Event::Apply,
        time_ns: 0,
        author: "test".into(),
        message: String::new(),
        expect_revision: None,
        expect: Vec::new(),
        puts: vec![Draft { metadata, spec: Spec::Tenant(TenantSpec::default()) }],
        deletes: Vec::new(),
        sealing_key: None,
        authorship: None,
    })
}

fn content(n: u8, index: u32) -> Vec<u8> {
    let size = if index == 0 { PACKAGE_PART_BYTES } else { BYTES - PACKAGE_PART_BYTES };
    vec![n; size]
}

/// The commands that bring a package.
fn bring(n: u8) -> [StoredCommand; 3] {
    let facts = PackageFacts {
        name: name("text"),
        version: "1.0.0".into(),
        publisher: name("maker"),
        key: PublisherKey::from_bytes([1; 32]),
        bytes: BYTES as u64,
    };
    let begin = PackageCommand::Begin { key: key(n), facts, time_ns: 1, by: "ana".into(), authorship: None };
    let part = |index| PackageCommand::Part { key: key(n), index, content: content(n, index) };
    [begin, part(0), part(1)].map(|command| StoredCommand::Package1 { command })
}

fn remove(n: u8) -> StoredCommand {
    StoredCommand::Package1 { command: PackageCommand::Remove { key: key(n) } }
}

fn apply(machine: &mut ControlMachine, from: u64, commands: &[StoredCommand]) {
    let entries = (from..).zip(commands).map(|(index, command)| entry(index, command)).collect();
    machine.apply(entries).unwrap();
}

fn with_package(dir: &Path) -> (ControlMachine, std::sync::Arc<crate::machine::Published>) {
    let (mut machine, published) = ControlMachine::open(dir).unwrap();
    apply(&mut machine, 1, &[tenant()]);
    apply(&mut machine, 2, &bring(7));
    (machine, published)
}

#[test]
fn the_bytes_are_there_at_once_after_a_restart_and_in_a_snapshot() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (machine, published) = with_package(first.path());
    // Whether they are written yet or not.
    assert_eq!(published.parts.reader().read(&part(7, 1)).unwrap(), content(7, 1));
    let before = published.state.load_full();
    assert!(before.packages().get(&key(7)).is_some());
    drop(machine);
    assert!(published.parts.reader().read(&part(7, 1)).is_err(), "the store is closed");
    let (mut machine, published) = ControlMachine::open(first.path()).unwrap();
    assert_eq!(*published.state.load_full(), *before);
    assert_eq!(published.parts.reader().read(&part(7, 0)).unwrap(), content(7, 0));

    let write = machine.snapshot().unwrap();
    // What the snapshot lists stays as long as it is written, whatever is applied meanwhile.
    apply(&mut machine, 9, &[remove(7)]);
    apply(&mut machine, 10, &bring(8));
    // Time for the writer to remove it, if it would.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    let (mut target, installed) = ControlMachine::open(second.path()).unwrap();
    target.install(AppliedState::from_bytes(vec![7]), &mut bytes.as_slice()).unwrap();
    assert_eq!(*installed.state.load_full(), *before);
    assert_eq!(installed.parts.reader().read(&part(7, 1)).unwrap(), content(7, 1));
    drop(target);
    let (_target, installed) = ControlMachine::open(second.path()).unwrap();
    assert_eq!(installed.parts.reader().read(&part(7, 0)).unwrap(), content(7, 0));
    // Nobody reads the older state any more: after the next start its parts are gone.
    drop(machine);
    let (mut machine, published) = ControlMachine::open(first.path()).unwrap();
    assert!(published.state.load().packages().get(&key(7)).is_none());
    apply(&mut machine, 20, &bring(9));
    drop(machine);
    let (_machine, published) = ControlMachine::open(first.path()).unwrap();
    let reader = published.parts.reader();
    assert!(reader.read(&part(7, 0)).is_err() && reader.read(&part(7, 1)).is_err());
    for n in [8, 9] {
        assert_eq!(reader.read(&part(n, 1)).unwrap(), content(n, 1));
    }
}

#[test]
fn a_snapshot_without_all_its_parts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_machine, published) = with_package(dir.path());
    let state = published.state.load_full();
    let mut bytes = Vec::new();
    write_state(&mut bytes, &state, &mut |key| published.parts.reader().read(key)).unwrap();
    let mut kept = Vec::new();
    let read = read_state(bytes.as_slice(), &mut |key, content| {
        kept.push((key.clone(), content));
        Ok(())
    });
    assert_eq!(read.unwrap(), *state);
    assert_eq!(kept, [(part(7, 0), content(7, 0)), (part(7, 1), content(7, 1))]);
    // The last part is the last document.
    let cut = bytes.iter().rposition(|byte| *byte == b'{').unwrap();
    let error = read_state(&bytes[..cut], &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn the_two_crates_mean_the_same_by_a_package() {
    assert_eq!(provost_control_state::MAX_STORED_PACKAGE_BYTES, provost_package::MAX_PACKAGE_BYTES);
}
