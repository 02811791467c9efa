//! A thief of the storage who never had the key writes himself a successor of it.

use std::{fs, path::Path};

use provost_audit_core::{
    Hash, LogId, NoteSigner, Place, SignedNote, TAIL_HEADER_LEN, VerifierKey, encode_record, leaf_hash,
    push_tail_frame, split_notes,
};
use provost_audit_store::CheckpointKey;
use provost_audit_verify::{Exit, LogLayout, LogReader, VerifyOptions, verify};
use provost_types::{Phase, Subject, What};
use tempfile::tempdir;

use crate::{
    case::{found, try_all, verdict},
    common::{Lab, START_NS, event, matrix, place_of, tenant},
    scene::{Scene, head_of, leaves, replace_log, set_checkpoints},
};

const CLUSTER: &str = "provost/_cluster";
const HISTORY: &str = "cluster/checkpoints";

/// Two checkpoints of each log; the newest are what the auditor kept.
fn scene() -> Scene {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    for _ in 0..2 {
        lab.calls(&LogId::CLUSTER, 2);
        lab.calls(&tenant("acme"), 20);
        lab.checkpoint();
    }
    let Lab { machine, key, .. } = lab;
    drop(machine);
    let anchor = dir.path().join("kept-checkpoint");
    fs::copy(dir.path().join("audit/checkpoint"), &anchor).unwrap();
    Scene { dir, anchor, block_two: 0, segment_end: 0, frames: Vec::new(), key }
}

/// The newest of these genuine notes, and a line of the other key below it.
fn with_line(notes: &Path, origin: &str, key: &CheckpointKey) -> String {
    let text = fs::read_to_string(notes).unwrap();
    let newest = split_notes(&text).last().unwrap().to_string();
    let line = VerifierKey::signature_line(origin, SignedNote::parse(&newest).unwrap().text, key);
    newest + &line
}

/// A record of nobody's in the chain of a writer of its own.
fn stranger(log: &LogId, phase: Phase, what: Option<What>) -> Vec<u8> {
    let mut made = event(log, phase, 77_777, START_NS);
    made.what = what.unwrap_or(made.what);
    encode_record(&made, &Place { writer_id: "node-9", epoch: 1, seq: 1, prev: Hash::ZERO }).unwrap()
}

/// Record 1 of the cluster's log names `key`, the list and a line below genuine notes say that it took over,
/// and acme's log goes on under it.
fn forge(dir: &Path, old: &CheckpointKey, key: &CheckpointKey) {
    let vkey = |key: &CheckpointKey| VerifierKey { name: CLUSTER.to_owned(), public_key: key.public_key() }.to_text();
    let (old, new) = (vkey(old), vkey(key));
    let layout = LogLayout::new(dir.join("cluster"));
    let mut out = fs::read(layout.tail(0)).unwrap()[..TAIL_HEADER_LEN].to_vec();
    let subject =
        Subject { event: "audit.key".to_owned(), objects: vec![new.clone()], detail: format!("follows {old}") };
    let names_it = stranger(&LogId::CLUSTER, Phase::Event, Some(What { subject: Some(subject), ..What::default() }));
    let mut reader = LogReader::new(layout.clone());
    while let Some(chunk) = reader.next().unwrap() {
        for (index, leaf) in chunk.iter() {
            let leaf = if index == 1 { &names_it } else { leaf };
            push_tail_frame(&mut out, leaf, &leaf_hash(leaf));
        }
    }
    fs::write(layout.tail(0), out).unwrap();
    fs::write(dir.join("cluster/keys"), format!("- {old}\n1 {new}\n")).unwrap();
    let switch = with_line(&dir.join(HISTORY), CLUSTER, key);
    fs::write(dir.join(HISTORY), format!("{switch}\n")).unwrap();

    let switch = with_line(&dir.join("tenants/acme/checkpoints"), "provost/acme", key);
    let mut all = leaves(dir);
    all.push(stranger(&tenant("acme"), Phase::Denied, None));
    replace_log(dir, &all);
    set_checkpoints(dir, &[switch, head_of(&all, START_NS).sign(key)]);
}

#[test]
fn a_successor_that_no_record_named() {
    let scene = scene();
    let s = &scene;
    let thief = CheckpointKey::open(&s.dir.path().join("thief.key")).unwrap();
    // The kept checkpoint of the cluster's log, which is the first in its file.
    let place = || (0, "anchor".to_owned(), 0);
    let name = "keys that lead through a changed cluster's log";
    try_all(s, &[found(name, "INTEGRITY", place(), |d| forge(d, &s.key, &thief)).anchored()]);

    // The auditor of one tenant asks for its log alone, by the key that was kept.
    let audit = s.audit();
    let trusted = VerifierKey { name: CLUSTER.to_owned(), public_key: s.key.public_key() }.to_text();
    let options = VerifyOptions {
        log: Some(tenant("acme")),
        trusted_key: Some(trusted),
        against: Some(s.anchor.clone()),
        ..VerifyOptions::default()
    };
    let honest = verify(&audit, &options).unwrap();
    assert_eq!((honest.exit, honest.logs.len()), (Exit::Proven, 1), "one key: nothing else is asked\n{honest}");
    forge(&audit, &s.key, &thief);
    let report = verify(&audit, &options).unwrap();
    assert_eq!((report.exit, place_of(&report, &audit)), (Exit::Tampered, Some(place())), "{report}");
    assert_eq!(verdict(&report), "INTEGRITY", "{report}");
    let name = "keys that lead through a changed cluster's log, one tenant verified";
    matrix::row(name, "INTEGRITY failed", "1", "record 0, anchor at 0");
}
