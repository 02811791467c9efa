//! Lives that go on: behind a torn history, past a second sending, under an auditor's eyes.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use provost_audit_core::NoteSigner;
use provost_audit_store::{AuditMachine, CheckpointKey, Reply};
use provost_audit_verify::{Exit, VerifyOptions, verify};
use provost_types::Phase;
use tempfile::tempdir;

use crate::{
    common::{Lab, START_NS, Writer, copy_dir, event, matrix, open_machine, tenant},
    faults::{apply, lives},
};

#[test]
fn a_torn_history() {
    let lives = lives();
    let audit = lives.dir.path().join("audit");
    let history = "tenants/acme/checkpoints";
    let whole = fs::read(audit.join(history)).unwrap();
    let case = lives.dir.path().join("case");
    for cut in (0..whole.len()).step_by(7).chain(whole.len() - 30..whole.len()) {
        copy_dir(&audit, &case);
        fs::write(case.join(history), &whole[..cut]).unwrap();
        // A life goes on from there: a new checkpoint is appended to what the crash left.
        let machine = AuditMachine::open(&case, "provost", lives.key.public_key()).unwrap();
        let (machine, result) = apply(machine, &lives.entries);
        result.unwrap();
        let mut lab = Lab {
            machine,
            key: CheckpointKey::open(&lives.dir.path().join("keys/audit-checkpoint.key")).unwrap(),
            writer: Writer::new("node-2"),
            entries: lives.entries.clone(),
            calls: 9_000,
        };
        lab.calls(&tenant("acme"), 1);
        lab.checkpoint();
        drop(lab);
        let report = verify(&case, &VerifyOptions::default()).unwrap();
        assert_eq!(report.exit, Exit::Unanchored, "cut at {cut}\n{report}");
        fs::remove_dir_all(&case).unwrap();
    }
    matrix::row("torn history of checkpoints, then a restart", "the cut note is removed", "2", history);
}

#[test]
fn repeated_and_late_batches() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    let batch =
        lab.writer.entry(&[event(&acme, Phase::Intent, 1, START_NS), event(&acme, Phase::Outcome, 1, START_NS)]);
    let first = lab.apply(batch.clone());
    assert_eq!(lab.apply(batch.clone()), first, "the new leader's copy is answered, not appended");
    let size = lab.machine.heads()[0].size;
    assert_eq!(size, 2);
    matrix::row("batch repeated after a change of leader", "answered with the same places", "2", "record 0");

    // A writer of the same name starts again; the old one is still sending.
    let mut zombie = Writer { name: lab.writer.name.clone(), epoch: 1, batch: 1, chains: lab.writer.chains.clone() };
    lab.writer.epoch = 2;
    lab.writer.batch = 0;
    lab.writer.chains.values_mut().for_each(|chain| chain.0 = 0);
    lab.calls(&acme, 1);
    let late = zombie.entry(&[event(&acme, Phase::Intent, 7, START_NS)]);
    assert_eq!(lab.apply(late), Reply::Fenced { epoch: 2 });
    let report = verify(&dir.path().join("audit"), &VerifyOptions::default()).unwrap();
    assert_eq!((report.exit, report.logs[0].records), (Exit::Unanchored, 4), "{report}");
    matrix::row("zombie writer", "fenced; nothing appended", "2", "-");
}

/// A copy is not needed: the directory of a running node can be verified at any moment.
#[test]
fn verified_while_it_is_written() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    lab.calls(&tenant("acme"), 10);
    lab.checkpoint();
    let audit = dir.path().join("audit");
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (stop, audit) = (stop.clone(), audit.clone());
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let report = verify(&audit, &VerifyOptions::default()).unwrap();
                assert_eq!(report.exit, Exit::Unanchored, "{report}");
                seen.push(report.logs[0].records);
            }
            seen
        })
    };
    for _ in 0..60 {
        lab.calls(&tenant("acme"), 70);
        lab.checkpoint();
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.store(true, Ordering::Relaxed);
    let seen = watcher.join().expect("no verification failed");
    assert!(seen.windows(2).all(|two| two[0] <= two[1]), "{seen:?}");
    assert!(seen.first() < seen.last(), "it grew meanwhile: {seen:?}");
    drop(lab);
    drop(open_machine(dir.path(), &CheckpointKey::open(&dir.path().join("keys/audit-checkpoint.key")).unwrap()));
    let text = format!("{} verifications", seen.len());
    matrix::row("verify during append", "holds within itself", "2", &text);
}
