//! A new checkpoint key: what verifies, what a thief of the old one can do, and crashes in between.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use common::{Lab, START_NS, copy_dir, event, open_machine, tenant, verify_both};
use parking_lot::Mutex;
use provost_audit_core::{Checkpoint, LogId, NoteSigner, VerifierKey};
use provost_audit_store::{
    AuditLog, AuditLogConfig, CheckpointKey, Command, Head, Reply, Rotated, SharedMachine, next_key_file, open,
};
use provost_audit_verify::{Exit, Report, VerifyOptions, verify};
use provost_control_raft::{AppliedState, Entry, Machine};
use provost_types::{AuditSink, Phase};
use tempfile::tempdir;

fn config(dir: &Path) -> AuditLogConfig {
    let mut config = AuditLogConfig::new(dir, "node-1");
    config.deadline = Duration::from_secs(120);
    // Only when asked.
    config.checkpoint_interval = Duration::from_secs(3_600);
    config
}

async fn calls(log: &AuditLog, name: &LogId, from: u128, count: u128) {
    for id in from..from + count {
        for phase in [Phase::Intent, Phase::Outcome] {
            log.record(event(name, phase, id, START_NS + id as u64)).await.unwrap();
        }
    }
}

fn judge(dir: &Path, key: Option<&str>, against: Option<&Path>) -> Report {
    let options = VerifyOptions {
        trusted_key: key.map(str::to_owned),
        against: against.map(Path::to_owned),
        ..VerifyOptions::default()
    };
    verify(dir, &options).unwrap()
}

struct Scene {
    _dir: tempfile::TempDir,
    audit: PathBuf,
    stolen: CheckpointKey,
    keys: [String; 3],
    anchors: [PathBuf; 3],
}

/// Three keys one after the other; acme from the start, beta since the second key, and a copy of the
/// first key in other hands.
async fn scene() -> Scene {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (acme, beta) = (tenant("acme"), tenant("beta"));
    let key_file = config(dir.path()).key_file;
    let log = open(config(dir.path())).await.unwrap();
    let vkey = || fs::read_to_string(at("audit/audit.pub")).unwrap().trim().to_owned();
    let kept = |name: &str| {
        fs::copy(at("audit/checkpoint"), at(name)).unwrap();
        at(name)
    };
    calls(&log, &acme, 0, 10).await;
    log.checkpoint_now().await.unwrap();
    let (first, first_anchor) = (vkey(), kept("anchor-1"));
    fs::copy(&key_file, at("stolen")).unwrap();
    assert!(!log.rotate_if_asked().await.unwrap(), "nobody asked");

    CheckpointKey::prepare_next(&key_file).unwrap();
    // The log looks for it by itself too; either way it is done now.
    log.rotate_if_asked().await.unwrap();
    assert!(!next_key_file(&key_file).exists());
    calls(&log, &acme, 100, 10).await;
    calls(&log, &beta, 200, 5).await;
    log.checkpoint_now().await.unwrap();
    let (second, second_anchor) = (vkey(), kept("anchor-2"));
    log.close().await.unwrap();
    drop(log);

    // Again over a restart, and with a log (beta) that does not grow in between.
    let next = CheckpointKey::prepare_next(&key_file).unwrap();
    let log = open(config(dir.path())).await.unwrap();
    // The log looks for it by itself too; either way it is done now.
    log.rotate_if_asked().await.unwrap();
    assert!(!next_key_file(&key_file).exists());
    calls(&log, &acme, 300, 10).await;
    log.checkpoint_now().await.unwrap();
    let (third, third_anchor) = (vkey(), kept("anchor-3"));
    assert_eq!(VerifierKey::parse(&third).unwrap().public_key, next.public_key());
    log.close().await.unwrap();
    let stolen = CheckpointKey::open(&at("stolen")).unwrap();
    Scene {
        audit: at("audit"),
        stolen,
        keys: [first, second, third],
        anchors: [first_anchor, second_anchor, third_anchor],
        _dir: dir,
    }
}

fn rewrite(path: &Path, change: impl Fn(Vec<String>) -> Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    let notes = provost_audit_core::split_notes(&text).into_iter().map(str::to_owned).collect();
    let changed: String = change(notes).iter().map(|note| format!("{note}\n")).collect();
    fs::write(path, changed).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_of_keys_is_followed_and_an_old_key_signs_nothing_new() {
    let scene = scene().await;
    assert_eq!(verify_both(&scene.audit, None).exit, Exit::Unanchored);
    // Two readers that follow the keys, each in its own way. The first anchor is older than beta's log.
    for (anchor, exit) in scene.anchors.iter().zip([Exit::Unanchored, Exit::Proven, Exit::Proven]) {
        assert_eq!(verify_both(&scene.audit, Some(anchor)).exit, exit);
    }
    for key in &scene.keys {
        let report = judge(&scene.audit, Some(key), None);
        assert_eq!(report.exit, Exit::Unanchored, "any key of the chain is enough to begin with: {report}");
    }
    for anchor in &scene.anchors {
        let report = judge(&scene.audit, Some(&scene.keys[0]), Some(anchor));
        assert!(report.logs[0].anchored.is_some() && report.logs[1].anchored.is_some(), "{report}");
        assert_ne!(report.exit, Exit::Tampered, "{report}");
    }
    // One tenant's log: the cluster's is read with it, because its records lead from key to key.
    let options = VerifyOptions {
        log: Some(tenant("acme")),
        trusted_key: Some(scene.keys[0].clone()),
        against: Some(scene.anchors[2].clone()),
        ..VerifyOptions::default()
    };
    let one = verify(&scene.audit, &options).unwrap();
    assert_eq!((one.exit, one.logs.len()), (Exit::Proven, 2), "{one}");
    let single = judge(&scene.audit.join("tenants/acme"), None, None);
    assert_eq!(single.exit, Exit::Unanchored, "{single}");
    assert!(single.to_string().contains("earlier keys are passed over"), "{single}");

    let attack = |name: &str, change: &dyn Fn(&Path)| {
        let copy = scene.audit.parent().unwrap().join(name);
        copy_dir(&scene.audit, &copy);
        change(&copy);
        assert_eq!(verify_both(&copy, None).exit, Exit::Tampered, "without the key of the auditor");
        judge(&copy, Some(&scene.keys[0]), None)
    };
    let acme = "tenants/acme";
    let newest = |dir: &Path, log: &str| {
        Checkpoint::parse_unchecked(&fs::read_to_string(dir.join(log).join("checkpoint")).unwrap()).unwrap()
    };

    let report = attack("by-a-thief", &|dir| {
        let forged = newest(dir, acme).sign(&scene.stolen);
        fs::write(dir.join(acme).join("checkpoint"), forged).unwrap();
    });
    assert_eq!(report.exit, Exit::Tampered, "{report}");
    assert!(report.to_string().contains("a stolen old key"), "{report}");
    assert!(report.logs[1].failure.as_ref().unwrap().file.ends_with("tenants/acme/checkpoint"), "{report}");
    common::matrix::row("revoked key", "AUTHENTICITY failed", "1", "tenants/acme/checkpoint");

    let report = attack("no-switch", &|dir| {
        let mark = "\u{2014} ";
        rewrite(&dir.join(acme).join("checkpoints"), |notes| {
            notes.into_iter().filter(|note| note.matches(mark).count() == 1).collect()
        });
    });
    assert_eq!(report.exit, Exit::Tampered, "{report}");
    assert!(report.to_string().contains("no checkpoint is signed by both"), "{report}");

    // Another key in the list, which no record names; and none at all.
    let report = attack("another-key", &|dir| {
        let list = dir.join("cluster/keys");
        let other = CheckpointKey::open(&dir.join("other.key")).unwrap().verifier_key("provost/_cluster").to_text();
        let text = fs::read_to_string(&list).unwrap().replace(&scene.keys[1], &other);
        fs::write(&list, text).unwrap();
    });
    assert_eq!(report.exit, Exit::Tampered, "{report}");
    let report = attack("no-list", &|dir| fs::remove_file(dir.join("cluster/keys")).unwrap());
    assert_eq!(report.exit, Exit::Tampered, "the trusted key signed nothing of late: {report}");

    // A key of nobody's, and one signature of two cut off a switch.
    let report = attack("stranger", &|dir| {
        let stranger = CheckpointKey::open(&dir.join("stranger.key")).unwrap();
        let forged = newest(dir, acme).sign(&stranger);
        fs::write(dir.join(acme).join("checkpoint"), forged).unwrap();
    });
    assert_eq!(report.exit, Exit::Tampered, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_file_is_moved_is_made_good() {
    let dir = tempdir().unwrap();
    let key_file = config(dir.path()).key_file;
    let acme = tenant("acme");
    let log = open(config(dir.path())).await.unwrap();
    calls(&log, &acme, 0, 3).await;
    let old = fs::read(&key_file).unwrap();
    CheckpointKey::prepare_next(&key_file).unwrap();
    // The log looks for it by itself too; either way it is done now.
    log.rotate_if_asked().await.unwrap();
    assert!(!next_key_file(&key_file).exists());
    log.close().await.unwrap();
    drop(log);
    // As if the process had ended after the group noted the key.
    fs::rename(&key_file, next_key_file(&key_file)).unwrap();
    fs::write(&key_file, &old).unwrap();
    fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let stale = fs::read_to_string(dir.path().join("audit/audit.pub")).unwrap();
    let log = open(config(dir.path())).await.unwrap();
    assert!(!next_key_file(&key_file).exists());
    assert_ne!(fs::read(&key_file).unwrap(), old);
    calls(&log, &acme, 10, 3).await;
    log.close().await.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("audit/audit.pub")).unwrap(), stale);
    let report = judge(&dir.path().join("audit"), None, None);
    assert_eq!(report.exit, Exit::Unanchored, "{report}");

    // The old key alone is refused: it signs nothing any more.
    fs::write(&key_file, &old).unwrap();
    let refused = open(config(dir.path())).await.err().expect("another key signs now");
    assert_eq!(refused.code(), "PV-AUDIT-KEY", "{refused}");
}

/// Replicas that apply the change of keys together with what follows it, at once and after a crash: the
/// checkpoint that both keys signed is published, though later ones replace it.
fn behind_and_after_a_crash(entries: &[Bytes], key: &CheckpointKey, history: &str) {
    let switches = |text: &str| -> Vec<String> {
        let notes = provost_audit_core::split_notes(text).into_iter().map(str::to_owned);
        notes.filter(|note| note.matches("\u{2014} ").count() == 2).collect()
    };
    assert_eq!(switches(history).len(), 1, "{history}");
    let switch = entries
        .iter()
        .position(|entry| matches!(Command::decode(entry), Ok(Command::Rotated(rotated)) if rotated.notes.len() == 2));
    let switch = switch.unwrap() + 1;
    let batch = |from: usize, to: usize| -> Vec<Entry> {
        let entry = |n: usize| Entry {
            index: n as u64,
            applied: AppliedState::from_bytes(vec![n as u8]),
            payload: Some(entries[n].clone()),
        };
        (from..to).map(entry).collect()
    };
    let opened = |dir: &Path| SharedMachine(Arc::new(Mutex::new(open_machine(dir, key))));
    let ends_well = |dir: &Path, machine: SharedMachine| {
        drop(machine);
        let found = fs::read_to_string(dir.join("audit/tenants/acme/checkpoints")).unwrap();
        assert_eq!(switches(&found), switches(history), "{found}");
        assert!(found.ends_with(history.rsplit_once("\n\n\u{2014}").unwrap().1), "{found}");
    };
    let behind = tempdir().unwrap();
    let mut machine = opened(behind.path());
    machine.apply(batch(0, entries.len())).unwrap();
    ends_well(behind.path(), machine);

    let crashed = tempdir().unwrap();
    let mut machine = opened(crashed.path());
    machine.apply(batch(0, switch - 1)).unwrap();
    drop(machine);
    let acme = crashed.path().join("audit/tenants/acme");
    let before = ["checkpoint", "checkpoints"].map(|name| (acme.join(name), fs::read(acme.join(name)).unwrap()));
    let mut machine = opened(crashed.path());
    machine.apply(batch(switch - 1, switch)).unwrap();
    drop(machine);
    // As if the process had ended when the state was durable and nothing was published.
    for (path, bytes) in &before {
        fs::write(path, bytes).unwrap();
    }
    let mut machine = opened(crashed.path());
    machine.apply(batch(switch, entries.len())).unwrap();
    ends_well(crashed.path(), machine);
}

/// A machine that never saw the first key, as that of a replica that joined later.
#[test]
fn a_key_takes_over_in_one_entry_on_every_replica() {
    let (here, there) = (tempdir().unwrap(), tempdir().unwrap());
    let mut lab = Lab::open(here.path());
    let acme = tenant("acme");
    lab.calls(&LogId::CLUSTER, 2);
    lab.calls(&acme, 3);
    lab.checkpoint();
    lab.calls(&acme, 1);
    let next = CheckpointKey::open(&here.path().join("keys/next")).unwrap();
    let sealed = |lab: &mut Lab| match lab.apply(Bytes::from(Command::SealAll.encode())) {
        Reply::Sealed(heads) => heads,
        other => panic!("{other:?}"),
    };
    let note = |head: &Head, keys: &[&CheckpointKey]| {
        let origin = head.log.origin("provost");
        let (size, root, chain) = (head.size, head.root, head.chain);
        let text = Checkpoint { origin: origin.clone(), size, root, chain, time_ns: START_NS }.to_text();
        let lines: String = keys.iter().map(|key| VerifierKey::signature_line(&origin, &text, *key)).collect();
        format!("{text}\n{lines}")
    };
    let rotated = |follows: &CheckpointKey, notes: Vec<String>| {
        let (follows, public_key) = (follows.public_key(), next.public_key());
        Bytes::from(Command::Rotated(Rotated { record: 1, follows, public_key, notes }).encode())
    };
    let old = CheckpointKey::open(&here.path().join("keys/audit-checkpoint.key")).unwrap();

    // A log that is left out, and one that only the new key signed: nothing changes.
    let heads = sealed(&mut lab);
    assert_eq!(heads.len(), 2, "also the one that did not grow");
    for notes in
        [vec![note(&heads[0], &[&old, &next])], vec![note(&heads[0], &[&old, &next]), note(&heads[1], &[&next])]]
    {
        let refused = lab.apply(rotated(&old, notes));
        assert!(matches!(&refused, Reply::Invalid(why) if why.contains("both keys")), "{refused:?}");
    }
    let both: Vec<String> = heads.iter().map(|head| note(head, &[&old, &next])).collect();
    assert_eq!(lab.apply(rotated(&old, both.clone())), Reply::Taken(2));
    assert_eq!(lab.apply(rotated(&old, both)), Reply::Taken(0), "it is done already");

    // A leader that was replaced meanwhile signs with the old key: passed over.
    lab.calls(&acme, 1);
    let heads = sealed(&mut lab);
    let late = heads.iter().map(|head| note(head, &[&old])).collect();
    assert_eq!(lab.apply(Bytes::from(Command::Signed(late).encode())), Reply::Taken(0));
    let good = heads.iter().map(|head| note(head, &[&next])).collect();
    assert_eq!(lab.apply(Bytes::from(Command::Signed(good).encode())), Reply::Taken(2));

    // Another replica, opened with the new key, comes to the same files.
    let mut other = open_machine(there.path(), &next);
    for (index, entry) in lab.entries.iter().enumerate() {
        other.apply(index as u64, entry).unwrap();
    }
    drop((lab.machine, other));
    let read = |dir: &Path, file: &str| fs::read_to_string(dir.join("audit").join(file)).unwrap();
    for file in ["cluster/keys", "audit.pub", "tenants/acme/audit.pub", "tenants/acme/checkpoints", "checkpoint"] {
        assert_eq!(read(here.path(), file), read(there.path(), file), "{file}");
    }
    behind_and_after_a_crash(&lab.entries, &next, &read(here.path(), "tenants/acme/checkpoints"));
    let first = read(there.path(), "cluster/keys").lines().next().unwrap().to_owned();
    assert_eq!(first, format!("- {}", old.verifier_key("provost/_cluster").to_text()));
}
