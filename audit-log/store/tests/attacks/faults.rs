//! Faults of the store: at every file operation, kept and not; and what each leaves is repaired.
//!
//! The Raft log is the source: whatever a fault leaves, a start on it and the entries again must end
//! in the same logs, and no checkpoint on disk may ever cover more than what is there.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use provost_audit_core::{LogId, NoteSigner};
use provost_audit_store::{AuditMachine, CheckpointKey};
use provost_audit_verify::{Exit, VerifyOptions, verify};
use tempfile::tempdir;

use crate::{
    common::{Lab, matrix, tenant},
    disk::{Recorder, Step, Trouble, power_cut},
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The entries of a short life: two logs, a full block, three checkpoints, a rotation of nothing.
fn entries(dir: &Path) -> (CheckpointKey, Vec<Bytes>) {
    let mut lab = Lab::open(dir);
    lab.calls(&LogId::CLUSTER, 1);
    lab.calls(&tenant("acme"), 100);
    lab.checkpoint();
    lab.calls(&tenant("acme"), 60);
    lab.checkpoint();
    lab.calls(&tenant("beta"), 3);
    lab.checkpoint();
    lab.calls(&tenant("acme"), 2);
    let Lab { machine, key, entries, .. } = lab;
    drop(machine);
    (key, entries)
}

/// Applies what the machine lacks; the first error ends it.
pub fn apply(mut machine: AuditMachine, entries: &[Bytes]) -> (AuditMachine, std::io::Result<()>) {
    let from = machine.last_applied().map_or(0, |n| n as usize + 1);
    let mut result = Ok(());
    for (n, entry) in entries.iter().enumerate().skip(from) {
        if let Err(e) = machine.apply(n as u64, entry) {
            result = Err(e);
            break;
        }
    }
    (machine, result)
}

/// A life on a watched disk, as far as it goes.
fn live(recorder: &Arc<Recorder>, audit: &Path, key: &CheckpointKey, entries: &[Bytes]) -> std::io::Result<()> {
    let opened = AuditMachine::open_watched(recorder.clone(), audit, "provost", key.public_key());
    let (mut machine, result) = apply(opened.map_err(std::io::Error::other)?, entries);
    result?;
    machine.persist()?;
    // Waits for the thread that makes files durable.
    drop(machine);
    Ok(())
}

/// In memory where there is such a place: what a power cut leaves is modelled, not caused.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempdir()).unwrap()
}

/// A start on what is in `audit`, and the entries again: the same heads as without the fault, and
/// a directory that verifies.
fn recovers(what: &str, audit: &Path, key: &CheckpointKey, entries: &[Bytes], heads: &[provost_audit_store::Head]) {
    let opened = AuditMachine::open(audit, "provost", key.public_key());
    let machine = opened.unwrap_or_else(|e| panic!("{what}: the start refuses: {e}"));
    let (machine, result) = apply(machine, entries);
    result.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(machine.heads(), heads, "{what}");
    drop(machine);
    let report = verify(audit, &VerifyOptions::default()).unwrap();
    assert_eq!(report.exit, Exit::Unanchored, "{what}\n{report}");
}

pub struct Lives {
    pub dir: tempfile::TempDir,
    pub key: CheckpointKey,
    pub entries: Vec<Bytes>,
    heads: Vec<provost_audit_store::Head>,
    steps: Vec<Step>,
}

pub fn lives() -> Lives {
    let dir = place();
    let (key, entries) = entries(dir.path());
    let heads = open_and_heads(&dir.path().join("audit"), &key, &entries);
    let watched = dir.path().join("watched");
    let recorder = Arc::new(Recorder::new(&watched));
    live(&recorder, &watched, &key, &entries).unwrap();
    let steps = recorder.steps();
    let published = |s: &&Step| matches!(s, Step::Rename(_, to) if to == Path::new("checkpoint"));
    assert_eq!(steps.iter().filter(published).count(), 3, "the life was not noted down to its end");
    Lives { steps, dir, key, entries, heads }
}

fn open_and_heads(audit: &Path, key: &CheckpointKey, entries: &[Bytes]) -> Vec<provost_audit_store::Head> {
    let machine = AuditMachine::open(audit, "provost", key.public_key()).unwrap();
    apply(machine, entries).0.heads()
}

/// Before the first state is in place there is nothing that a start could go by but an empty folder.
fn first_state(steps: &[Step]) -> usize {
    steps.iter().position(|s| matches!(s, Step::SyncDir(dir) if dir.as_os_str().is_empty())).unwrap() + 1
}

#[test]
fn power_cuts() {
    let lives = lives();
    let case = lives.dir.path().join("case");
    for (kept, name) in [
        (true, "crash at every file operation, written data kept"),
        (false, "crash at every file operation, only synced data kept"),
    ] {
        for n in first_state(&lives.steps)..=lives.steps.len() {
            power_cut(&lives.steps[..n], kept, &case);
            let what = format!("{name}: after {n} of {}, {:?}", lives.steps.len(), brief(&lives.steps[n - 1]));
            // Whatever is signed on disk must be there already: a copy taken now is not behind.
            let copied = verify(&case, &VerifyOptions::default());
            if let Ok(report) = copied {
                let torn = report.logs.iter().all(|l| l.failure.as_ref().is_none_or(|f| f.index >= l.signed));
                assert!(torn, "{what}: a copy lacks what is signed\n{report}");
            }
            recovers(&what, &case, &lives.key, &lives.entries, &lives.heads);
        }
        let text = format!("{} operations", lives.steps.len());
        matrix::row(name, "the start repairs; verify holds", "2", &text);
    }
}

fn brief(step: &Step) -> String {
    match step {
        Step::Write(path, at, bytes) => format!("write of {} bytes to {} at {at}", bytes.len(), path.display()),
        other => format!("{other:?}"),
    }
}

#[test]
fn torn_last_block() {
    let lives = lives();
    let case = lives.dir.path().join("case");
    let block =
        |s: &Step| matches!(s, Step::Write(path, at, _) if path.extension().is_some_and(|e| e == "seg") && *at > 0);
    let at = lives.steps.iter().rposition(block).unwrap();
    let Step::Write(path, offset, bytes) = &lives.steps[at] else { panic!("a write") };
    // Each byte of the header and of the end; between them the bytes are all alike.
    let (begin, end) = (0..120, bytes.len() - 120..=bytes.len());
    let places: Vec<usize> = begin.chain((120..bytes.len() - 120).step_by(197)).chain(end).collect();
    for len in places.iter().copied() {
        let mut steps = lives.steps[..at].to_vec();
        steps.push(Step::Write(path.clone(), *offset, bytes[..len].to_vec()));
        power_cut(&steps, true, &case);
        recovers(&format!("torn after {len} bytes"), &case, &lives.key, &lives.entries, &lives.heads);
    }
    let text = format!("{} from byte {offset} on, {} places", path.display(), places.len());
    matrix::row("torn write at every byte of the last block", "the start repairs; verify holds", "2", &text);
}

#[test]
fn failing_operations() {
    let lives = lives();
    let audit = lives.dir.path().join("failing");
    for (number, name) in [(ENOSPC, "disk full at every file operation"), (EIO, "I/O error at every file operation")] {
        for at in first_state(&lives.steps)..lives.steps.len() {
            let _ = fs::remove_dir_all(&audit);
            let recorder = Arc::new(Recorder::with_trouble(&audit, at, Trouble::Fail(number)));
            // The threads may reach the operation in another order; some operation fails all the same.
            let result = live(&recorder, &audit, &lives.key, &lives.entries);
            assert!(result.is_err() || recorder.failed() > 0, "{name}: operation {at} did not fail");
            assert!(recorder.failed() <= 2, "{name}: operation {at} was tried again ({})", recorder.failed());
            recovers(&format!("{name}, operation {at}"), &audit, &lives.key, &lives.entries, &lives.heads);
        }
        let text = format!("{} operations", lives.steps.len());
        matrix::row(name, "writing ends; the start repairs", "2", &text);
    }
}

/// After a failed fsync nobody knows what is on disk: a second one that succeeds would prove nothing.
#[test]
fn a_failed_fsync() {
    let lives = lives();
    let audit = lives.dir.path().join("fsync");
    let begin = first_state(&lives.steps);
    for at in begin..lives.steps.len() {
        let _ = fs::remove_dir_all(&audit);
        let recorder = Arc::new(Recorder::with_trouble(&audit, at, Trouble::FailSyncOnce));
        let _ = live(&recorder, &audit, &lives.key, &lives.entries);
        if recorder.failed() == 0 {
            continue;
        }
        let later = recorder.steps_after_failure();
        let later = later.iter().filter(|s| matches!(s, Step::Sync(_) | Step::SyncDir(_) | Step::Rename(..)));
        assert_eq!(later.count(), 0, "something was made durable after a failed fsync at {at}");
        recovers(&format!("fsync failed at {at}"), &audit, &lives.key, &lives.entries, &lives.heads);
    }
    matrix::row("fsync failure: never retried", "writing ends; the start repairs", "2", "every fsync");
}

#[test]
fn a_hung_disk() {
    let dir = place();
    let (key, entries) = entries(dir.path());
    let audit = dir.path().join("hung");
    let recorder = Arc::new(Recorder::with_trouble(&audit, 5, Trouble::HangSync));
    let opened = AuditMachine::open_watched(recorder.clone(), &audit, "provost", key.public_key()).unwrap();
    let (machine, result) = apply(opened, &entries);
    // The Raft log is durable by itself: records are applied and answered while the files' disk hangs.
    result.unwrap();
    assert_eq!(machine.heads().len(), 3);
    assert!(!audit.join("checkpoint").exists(), "a checkpoint was published before its records were durable");
    recorder.release();
    drop(machine);
    assert!(audit.join("checkpoint").exists());
    assert_eq!(verify(&audit, &VerifyOptions::default()).unwrap().exit, Exit::Unanchored);
    let text = "checkpoints wait; every record answered";
    matrix::row("hung disk: appends go on, nothing is published", text, "2", "-");
}
