//! A tenant's log against what the cluster's log notes of it, and notes that should not be there.

use std::{fs, path::Path};

use bytes::Bytes;
use provost_audit_core::{Hash, LogId};
use provost_audit_store::Reply;
use provost_types::{Body, KeptBody, KeyId, Phase, SealedBytes, Subject, What};
use tempfile::tempdir;

use crate::{
    case::{found, try_all, unseen},
    common::{Lab, START_NS, event, tenant},
    scene::{Scene, acme, head_of, leaves, replace_log, set_checkpoints},
};

const ACME: &str = "tenants/acme";
const ORIGIN: &str = "provost/acme";
/// Acme's records at each note. The first has a sealed body.
const SIZES: [u64; 3] = [101, 201, 301];

/// Puts a note into the cluster's log.
fn note(lab: &mut Lab, origin: &str, detail: &str) {
    lab.calls += 1;
    let mut noted = event(&LogId::CLUSTER, Phase::Event, lab.calls, START_NS);
    let (event, objects, detail) = ("checkpoint".to_owned(), vec![origin.to_owned()], detail.to_owned());
    noted.what = What { subject: Some(Subject { event, objects, detail }), ..What::default() };
    let entry = lab.writer.entry(&[noted]);
    assert!(matches!(lab.apply(entry), Reply::Appended(_)));
}

/// The head of acme's log as it is.
fn head(lab: &Lab) -> (u64, Hash) {
    let acme = tenant("acme");
    lab.machine.heads().into_iter().find(|head| head.log == acme).map(|head| (head.size, head.root)).unwrap()
}

/// 301 records of acme, signed and noted at each of [`SIZES`]; then what `more` does, which is given the
/// notes; then the cluster's log is signed. The cluster's checkpoint alone is the anchor.
fn noted(more: impl Fn(&mut Lab, &[String])) -> Scene {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    let mut sealed = event(&acme, Phase::Denied, 900_000, START_NS);
    let bytes = Bytes::from_static(b"a sealed body");
    let kept = KeptBody::Sealed(SealedBytes { sha256: Hash::of(&bytes).0, bytes });
    sealed.body = Some(Body { commit: [1; 32], key: KeyId([2; 16]), len: 1, redaction: None, kept });
    let entry = lab.writer.entry(&[sealed]);
    assert!(matches!(lab.apply(entry), Reply::Appended(_)));
    let mut notes = Vec::new();
    for size in SIZES {
        lab.calls(&acme, 50);
        lab.checkpoint();
        let (there, root) = head(&lab);
        assert_eq!(there, size);
        notes.push(format!("{size} {root}"));
        note(&mut lab, ORIGIN, notes.last().unwrap());
    }
    more(&mut lab, &notes);
    lab.checkpoint();
    let Lab { machine, key, .. } = lab;
    drop(machine);
    let anchor = dir.path().join("kept-checkpoint");
    fs::copy(dir.path().join("audit/cluster/checkpoint"), &anchor).unwrap();
    Scene { dir, anchor, block_two: 0, segment_end: 0, frames: Vec::new(), key }
}

/// Acme's log as it was at `size`, with its checkpoint of then.
fn roll_back(dir: &Path, s: &Scene, size: usize, with_bodies: bool) {
    let early = leaves(dir)[..size].to_vec();
    let bodies = fs::read(acme(dir).bodies(0)).unwrap();
    replace_log(dir, &early);
    set_checkpoints(dir, &[head_of(&early, 1).sign(&s.key)]);
    if with_bodies {
        fs::write(acme(dir).bodies(0), bodies).unwrap();
    }
}

fn at(index: u64) -> (u64, String, u64) {
    (index, ACME.to_owned(), 0)
}

#[test]
fn behind_the_newest_note() {
    let scene = noted(|_, _| {});
    let s = &scene;
    try_all(
        s,
        &[
            found("log rolled back behind a note", "INTEGRITY", at(201), |d| roll_back(d, s, 201, true)),
            found("log rolled back behind a note, and its bodies removed", "INTEGRITY", at(201), |d| {
                roll_back(d, s, 201, false);
            }),
        ],
    );
}

/// Whoever can add a record to the cluster's log cannot take back what it noted before.
#[test]
fn notes_that_were_added_later() {
    let smaller = noted(|lab, notes| note(lab, ORIGIN, &notes[0]));
    let s = &smaller;
    try_all(
        s,
        &[
            // As of a leader that was replaced: nothing is wrong with that.
            unseen("a smaller note behind a larger one: allowed", |_| {}),
            unseen("a smaller note behind a larger one, anchored: allowed", |_| {}).anchored(),
            found("log cut back to a smaller note that was added", "INTEGRITY", at(101), |d| {
                roll_back(d, s, 101, true);
            })
            .anchored(),
        ],
    );
    let forged = noted(|lab, notes| {
        note(lab, ORIGIN, &format!("250 {}", "9e".repeat(32)));
        note(lab, ORIGIN, &notes[2]);
    });
    try_all(&forged, &[found("a note that does not hold, behind one that does", "INTEGRITY", at(0), |_| {})]);
    let odd = noted(|lab, notes| {
        let root = notes[0].split_once(' ').unwrap().1;
        for size in ["18446744073709551616", "+7", "", "7 "] {
            note(lab, ORIGIN, &format!("{size} {root}"));
        }
        note(lab, ORIGIN, &notes[0].to_uppercase());
        for origin in ["provost/_cluster", "provost/No Name", "acme", "else/acme"] {
            note(lab, origin, &format!("7 {root}"));
        }
    });
    try_all(&odd, &[unseen("notes of no form of ours: passed over", |_| {})]);
}
