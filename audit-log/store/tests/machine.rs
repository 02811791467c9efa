//! The machine against crashes, torn writes, repeats and edited storage.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, fs::OpenOptions, path::Path, sync::Arc};

use bytes::Bytes;
use common::{Lab, START_NS, Writer, copy_dir, event, open_machine, tenant};
use parking_lot::Mutex;
use proptest::prelude::*;
use provost_audit_core::LogId;
use provost_audit_store::{Append, AppendRecord, AuditMachine, CheckpointKey, Command, Reply, SharedMachine};
use provost_audit_verify::LogLayout;
use provost_control_raft::{AppliedState, Entry, Machine};
use provost_types::{KeptBody, Phase, SealedBytes};
use tempfile::tempdir;

/// Applies what the machine in `dir` lacks.
fn replay(dir: &Path, key: &CheckpointKey, entries: &[Bytes]) -> AuditMachine {
    let mut machine = open_machine(dir, key);
    let from = machine.last_applied().map_or(0, |i| i as usize + 1);
    for (n, entry) in entries.iter().enumerate().skip(from) {
        machine.apply(n as u64, entry).unwrap();
    }
    machine
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    /// Whatever was persisted when, a start after a crash ends in the same logs.
    #[test]
    fn replay_equals_no_crash(steps in proptest::collection::vec((0u8..5, 1u64..90), 1..25)) {
        let dir = tempdir().unwrap();
        let mut lab = Lab::open(dir.path());
        for (kind, n) in steps {
            match kind {
                0 => lab.calls(&LogId::CLUSTER, n),
                1 | 2 => lab.calls(&tenant("acme"), n),
                3 => lab.checkpoint(),
                _ => {
                    // The process dies here: memory is gone, unfsynced files stay as they are.
                    let Lab { machine, key, writer, entries, calls } = lab;
                    let before = machine.heads();
                    drop(machine);
                    let machine = replay(dir.path(), &key, &entries);
                    prop_assert_eq!(machine.heads(), before);
                    lab = Lab { machine, key, writer, entries, calls };
                }
            }
        }
        let heads = lab.machine.heads();
        let Lab { machine, key, entries, .. } = lab;
        drop(machine);
        prop_assert_eq!(replay(dir.path(), &key, &entries).heads(), heads);
    }
}

/// An entry as the group hands it in.
fn entry(payload: Option<Bytes>) -> Entry {
    Entry { index: 0, applied: AppliedState::from_bytes(Vec::new()), payload }
}

/// An entry with so many records of one log, which are not looked at before they are applied.
fn appends(log: &LogId, records: usize, body: Option<&Bytes>) -> Entry {
    let record = AppendRecord { log: log.clone(), leaf: Bytes::from_static(b"{}"), body: body.cloned() };
    let append = Append { writer: "node-1".to_owned(), epoch: 1, batch: 0, records: vec![record; records] };
    entry(Some(Command::Append(append).encode().into()))
}

/// What is applied where it is, and what goes to a thread that may wait.
#[test]
fn few_records_are_applied_at_once_and_what_closes_a_block_is_not() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    lab.calls(&acme, 100);
    let Lab { machine, .. } = lab;
    let shared = SharedMachine(Arc::new(Mutex::new(machine)));
    let records = |count: u128| {
        let events: Vec<_> = (0..count).map(|call| event(&acme, Phase::Denied, call, START_NS)).collect();
        entry(Some(Writer::new("node-1").entry(&events)))
    };
    let large = || AppendRecord { log: acme.clone(), leaf: Bytes::from(vec![b'x'; 60_000]), body: None };
    let large = Append { writer: "node-1".to_owned(), epoch: 1, batch: 0, records: vec![large(), large()] };
    let command = |command: Command| entry(Some(command.encode().into()));
    // Of 256 records in the block 200 are there.
    for (is_quick, batch, what) in [
        (true, vec![], "nothing"),
        (true, vec![entry(None), records(1)], "an entry of Raft's own"),
        (true, vec![records(30), records(25)], "as many as leave the block open"),
        (false, vec![records(30), records(26)], "the last record of the block"),
        (false, vec![command(Command::Append(large))], "many bytes"),
        (false, vec![records(1), command(Command::Seal)], "a seal makes files durable"),
        (false, vec![entry(Some(Bytes::from_static(b"?")))], "what cannot be read"),
    ] {
        assert_eq!(shared.is_quick(&batch), is_quick, "{what}");
    }
    let _held = shared.0.lock();
    assert!(!shared.is_quick(&[records(1)]), "somebody else looks at the machine");
}

#[test]
fn what_makes_a_file_is_not_applied_at_once() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    lab.calls(&acme, 1);
    let bytes = Bytes::from_static(b"a sealed body");
    let mut sealed = event(&acme, Phase::Denied, 9, START_NS);
    if let Some(body) = &mut sealed.body {
        body.kept = KeptBody::Sealed(SealedBytes { sha256: provost_sealed::sha256(&bytes), bytes: bytes.clone() });
    }
    let sealed = lab.writer.entry(&[sealed]);
    let Lab { machine, .. } = lab;
    let shared = SharedMachine(Arc::new(Mutex::new(machine)));
    assert!(shared.is_quick(&[appends(&acme, 1, None)]));
    assert!(!shared.is_quick(&[appends(&tenant("new"), 1, None)]), "a log begins with its files");
    assert!(!shared.is_quick(&[appends(&acme, 1, Some(&bytes))]), "the first body begins a file");
    let reply = shared.0.lock().apply(1, &sealed).unwrap();
    assert!(matches!(Reply::decode(&reply), Ok(Reply::Appended(_))));
    assert!(shared.is_quick(&[appends(&acme, 1, Some(&bytes))]), "the file is there");
}

/// However many logs there are: of each that is written to it is known whether a block of it closes.
#[test]
fn a_block_of_a_log_among_many_is_not_closed_at_once() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let others: Vec<LogId> = (0..80).map(|n| tenant(&format!("a{n:02}"))).collect();
    others.iter().for_each(|other| lab.calls(other, 1));
    let last = tenant("zeta");
    lab.calls(&last, 127);
    let Lab { machine, .. } = lab;
    let shared = SharedMachine(Arc::new(Mutex::new(machine)));
    // Of 256 records in its block 254 are there.
    assert!(shared.is_quick(&[appends(&last, 1, None)]));
    assert!(!shared.is_quick(&[appends(&last, 1, None), appends(&last, 1, None)]), "the last record of the block");
    assert!(shared.is_quick(&[appends(&others[0], 30, None)]), "the block of another log does not close");
    let each: Vec<Entry> = others.iter().map(|other| appends(other, 1, None)).collect();
    assert!(!shared.is_quick(&each), "a write for each log");
}

/// Persists, then appends without fsync, then loses the end of each file at every place.
#[test]
fn torn_writes_are_repaired() {
    let dir = tempdir().unwrap();
    let acme = tenant("acme");
    let mut lab = Lab::open(dir.path());
    lab.calls(&acme, 126);
    lab.checkpoint();
    lab.machine.persist().unwrap();
    let layout = LogLayout::new(dir.path().join("audit/tenants/acme"));
    let durable_tail = fs::metadata(layout.tail(0)).unwrap().len();
    // Closes the first block, begins the segment, and leaves two records open.
    lab.calls(&acme, 3);
    let Lab { machine, key, entries, .. } = lab;
    let heads = machine.heads();
    drop(machine);
    let tail_len = fs::metadata(layout.tail(0)).unwrap().len();
    let segment_len = fs::metadata(layout.segment(0)).unwrap().len();
    let copy = tempdir().unwrap();
    // Every byte of the last record, and places all over what was not fsynced.
    let last = tail_len - 600..=tail_len;
    let cases = (durable_tail..tail_len - 600)
        .step_by(37)
        .chain(last)
        .map(|len| (layout.tail(0), len))
        .chain((0..=segment_len).step_by(97).map(|len| (layout.segment(0), len)))
        .chain((0..=8192).step_by(509).map(|len| (layout.leaf_hashes(0), len)));
    for (n, (path, len)) in cases.enumerate() {
        let case = copy.path().join(n.to_string());
        copy_dir(dir.path(), &case);
        let torn = case.join(path.strip_prefix(dir.path()).unwrap());
        let file = OpenOptions::new().write(true).open(&torn).unwrap();
        file.set_len(len).unwrap();
        // Every second time the lost bytes come back as zeros, as after a power cut.
        if n % 2 == 0 {
            file.set_len(len + 40).unwrap();
        }
        let machine = replay(&case, &key, &entries);
        assert_eq!(machine.heads(), heads, "{} cut at {len}", path.display());
        drop(machine);
        fs::remove_dir_all(&case).unwrap();
    }
}

#[test]
fn edited_storage_is_refused() {
    let dir = tempdir().unwrap();
    let acme = tenant("acme");
    let mut lab = Lab::open(dir.path());
    lab.calls(&acme, 10);
    lab.checkpoint();
    let Lab { machine, key, writer, entries, calls } = lab;
    drop(machine);
    let early = dir.path().join("early-state");
    fs::copy(dir.path().join("audit/state"), &early).unwrap();
    let mut lab = Lab { machine: open_machine(dir.path(), &key), key, writer, entries, calls };
    lab.calls(&acme, 290);
    lab.checkpoint();
    let Lab { machine, key, .. } = lab;
    drop(machine);

    let case = dir.path().join("case");
    let check = |what: &str, code: &str, edit: &dyn Fn(&Path, &LogLayout)| {
        copy_dir(&dir.path().join("audit"), &case);
        edit(&case, &LogLayout::new(case.join("tenants/acme")));
        let opened = AuditMachine::open(&case, "provost", [0; 32]);
        let error = opened.err().unwrap_or_else(|| panic!("{what}: was opened"));
        assert_eq!(error.code(), code, "{what}: {error}");
        fs::remove_dir_all(&case).unwrap();
    };
    let cut = |path: &Path, by: u64| {
        let len = fs::metadata(path).unwrap().len();
        OpenOptions::new().write(true).open(path).unwrap().set_len(len - by).unwrap();
    };
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 0x10;
        fs::write(path, bytes).unwrap();
    };
    check("tail cut", "PV-AUDIT-DIFFERS", &|_, l| cut(&l.tail(0), 1));
    check("tail gone", "PV-AUDIT-DIFFERS", &|_, l| fs::remove_file(l.tail(0)).unwrap());
    check("segment cut", "PV-AUDIT-DIFFERS", &|_, l| cut(&l.segment(0), 1));
    check("hashes flipped", "PV-AUDIT-DIFFERS", &|_, l| flip(&l.leaf_hashes(0), 77));
    check("last record flipped", "PV-AUDIT-DIFFERS", &|_, l| {
        let len = fs::metadata(l.tail(0)).unwrap().len() as usize;
        flip(&l.tail(0), len - 5);
    });
    check("state flipped", "PV-AUDIT-STATE", &|d, _| flip(&d.join("state"), 60));
    check("state gone", "PV-AUDIT-STATE", &|d, _| fs::remove_file(d.join("state")).unwrap());
    check("state of before", "PV-AUDIT-ROLLED-BACK", &|d, _| {
        fs::copy(&early, d.join("state")).unwrap();
    });
    let other = AuditMachine::open(&dir.path().join("audit"), "elsewhere", key_bytes(&key));
    assert_eq!(other.err().map(|e| e.code()), Some("PV-AUDIT-STATE"));
}

fn key_bytes(key: &CheckpointKey) -> [u8; 32] {
    provost_audit_core::NoteSigner::public_key(key)
}

#[test]
fn batches_are_applied_once_in_order_and_fenced() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    let intent = |n| event(&acme, Phase::Intent, n, START_NS);
    let first = lab.writer.entry(&[intent(1), intent(2)]);
    let second = lab.writer.entry(&[intent(3)]);
    assert_eq!(lab.apply(second.clone()), Reply::OutOfOrder { next: 0 });
    assert_eq!(lab.apply(first.clone()), Reply::Appended(vec![(acme.clone(), 0)]));
    assert_eq!(lab.apply(second), Reply::Appended(vec![(acme.clone(), 2)]));
    let heads = lab.machine.heads();
    assert_eq!(lab.apply(first), Reply::Appended(vec![(acme.clone(), 0)]), "answered again");
    assert_eq!(lab.machine.heads(), heads, "and not appended again");

    let mut forged = common::Writer::new("node-1");
    forged.batch = 2;
    let entry = forged.entry(&[intent(9)]);
    assert!(matches!(lab.apply(entry), Reply::Invalid(_)), "a chain that does not continue");
    assert!(matches!(lab.apply(Bytes::from_static(b"\x01\x09")), Reply::Invalid(_)));
    assert_eq!(lab.machine.heads(), heads);

    let late = lab.writer.entry(&[intent(4)]);
    lab.writer.epoch = 2;
    lab.writer.batch = 0;
    for chain in lab.writer.chains.values_mut() {
        chain.0 = 0;
    }
    // The late batch took a place in the test's chain that it never gets in the log.
    lab.writer.chains.get_mut(&acme).unwrap().1 = {
        let mut writer = common::Writer::new("node-1");
        writer.entry(&[intent(1), intent(2)]);
        writer.entry(&[intent(3)]);
        writer.chains[&acme].1
    };
    let restarted = lab.writer.entry(&[intent(5)]);
    assert_eq!(lab.apply(restarted), Reply::Appended(vec![(acme, 3)]));
    assert_eq!(lab.apply(late), Reply::Fenced { epoch: 2 });
}
