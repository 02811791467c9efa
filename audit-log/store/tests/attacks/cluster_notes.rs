//! A tenant's log against what the cluster's log notes of it, and notes that should not be there.

use std::fs;

use bytes::Bytes;
use provost_audit_core::{Hash, LogId};
use provost_audit_store::Reply;
use provost_types::{Body, KeptBody, KeyId, Phase, SealedBytes, Subject, What};
use tempfile::tempdir;

use crate::{
    case::{found, try_all},
    common::{Lab, START_NS, event, tenant},
    scene::{Scene, acme, head_of, leaves, replace_log, set_checkpoints},
};

const ACME: &str = "tenants/acme";
const ORIGIN: &str = "provost/acme";
/// Acme's records at each note. The first has a sealed body.
const SIZES: [u64; 3] = [101, 201, 301];

/// Puts a note of this log into the cluster's.
fn note(lab: &mut Lab, origin: &str, size: u64, root: Hash) {
    lab.calls += 1;
    let mut noted = event(&LogId::CLUSTER, Phase::Event, lab.calls, START_NS);
    let (objects, detail) = (vec![origin.to_owned()], format!("{size} {root}"));
    noted.what = What {
        subject: Some(Subject { event: "checkpoint".to_owned(), objects, detail }),
        ..What::default()
    };
    let entry = lab.writer.entry(&[noted]);
    assert!(matches!(lab.apply(entry), Reply::Appended(_)));
}

/// The head of acme's log as it is.
fn head(lab: &Lab) -> (u64, Hash) {
    let acme = tenant("acme");
    lab.machine.heads().into_iter().find(|head| head.log == acme).map(|head| (head.size, head.root)).unwrap()
}

/// 301 records of acme, signed and noted at each of [`SIZES`]; then what `more` does; then the cluster's log
/// is signed. Whatever is signed by then is the anchor.
fn noted(more: impl Fn(&mut Lab)) -> Scene {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    let mut sealed = event(&acme, Phase::Denied, 900_000, START_NS);
    let bytes = Bytes::from_static(b"a sealed body");
    let kept = KeptBody::Sealed(SealedBytes { sha256: Hash::of(&bytes).0, bytes });
    sealed.body = Some(Body { commit: [1; 32], key: KeyId([2; 16]), len: 1, redaction: None, kept });
    let entry = lab.writer.entry(&[sealed]);
    assert!(matches!(lab.apply(entry), Reply::Appended(_)));
    for size in SIZES {
        lab.calls(&acme, 50);
        lab.checkpoint();
        let (there, root) = head(&lab);
        assert_eq!(there, size);
        note(&mut lab, ORIGIN, size, root);
    }
    more(&mut lab);
    lab.checkpoint();
    let Lab { machine, key, .. } = lab;
    drop(machine);
    let anchor = dir.path().join("kept-checkpoint");
    fs::copy(dir.path().join("audit/cluster/checkpoint"), &anchor).unwrap();
    Scene { dir, anchor, block_two: 0, segment_end: 0, frames: Vec::new(), key }
}

/// Acme's log as it was at `size`, with its checkpoint of then; its sealed body goes with the rest.
fn roll_back(dir: &std::path::Path, s: &Scene, size: usize) {
    let early = leaves(dir)[..size].to_vec();
    replace_log(dir, &early);
    set_checkpoints(dir, &[head_of(&early, 1).sign(&s.key)]);
    assert!(!acme(dir).bodies(0).exists());
}

#[test]
fn behind_the_newest_note() {
    let scene = noted(|_| {});
    let s = &scene;
    let behind = |d: &std::path::Path| roll_back(d, s, 201);
    try_all(
        s,
        &[found(
            "log rolled back behind a note, and its bodies removed",
            "INTEGRITY",
            (201, ACME.to_owned(), 0),
            behind,
        )],
    );
}
