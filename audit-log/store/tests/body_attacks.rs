//! What can be done to sealed bodies on disk, and what both verifiers say to it. Neither has a key.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, path::Path};

use bytes::Bytes;
use common::{Lab, START_NS, copy_dir, event, matrix, tenant, verify_both};
use provost_audit_core::Hash;
use provost_audit_store::Reply;
use provost_audit_verify::LogLayout;
use provost_types::{Body, KeptBody, KeyId, Phase, SealedBytes};
use tempfile::tempdir;

const HEADER: usize = 48;
const PREFIX: usize = 12;
/// Each body is as long as its number, and 20 more.
fn body(n: u64) -> Bytes {
    Bytes::from(vec![n as u8; 20 + n as usize])
}

/// Where the frame of the n-th body begins.
fn frame(n: u64) -> usize {
    HEADER + (0..n).map(|n| PREFIX + body(n).len()).sum::<usize>()
}

/// Records 1, 3, 5, … have bodies.
fn write(dir: &Path, name: &str, bodies: u64) {
    let mut lab = Lab::open(dir);
    let log = tenant(name);
    for n in 0..bodies {
        let time = START_NS + n;
        let plain = event(&log, Phase::Denied, u128::from(2 * n), time);
        let mut sealed = event(&log, Phase::Denied, u128::from(2 * n + 1), time);
        let bytes = body(n);
        let kept = KeptBody::Sealed(SealedBytes { sha256: Hash::of(&bytes).0, bytes });
        sealed.body = Some(Body { commit: [1; 32], key: KeyId([2; 16]), len: 1, redaction: None, kept });
        let entry = lab.writer.entry(&[plain, sealed]);
        assert!(matches!(lab.apply(entry), Reply::Appended(_)));
    }
    lab.checkpoint();
    lab.machine.persist().unwrap();
}

#[test]
fn changed_bodies_are_found_and_missing_ones_are_missed() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    write(dir.path(), "acme", 4);
    write(other.path(), "rival", 4);
    let layout = LogLayout::new(dir.path().join("audit/tenants/acme"));
    let whole = fs::read(layout.bodies(0)).unwrap();
    assert_eq!(whole.len(), frame(4));
    let report = verify_both(&dir.path().join("audit"), None);
    assert!(report.exit_code() == 2 && report.to_string().contains("4 sealed bodies"), "{report}");

    let anchor = dir.path().join("anchor");
    fs::copy(dir.path().join("audit/checkpoint"), &anchor).unwrap();
    let rival = fs::read(LogLayout::new(other.path().join("audit/tenants/rival")).bodies(0)).unwrap();
    let flip = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        bytes
    };
    let part = |from: usize, to: usize| whole[from..to].to_vec();
    // What was done, the file afterwards, the exit code, the record that is named.
    let cases: Vec<(&str, Vec<u8>, u8, Option<u64>)> = vec![
        ("untouched", whole.clone(), 0, None),
        ("mark of the header", flip(6), 1, Some(0)),
        ("first index of the header", flip(8), 1, Some(0)),
        ("origin of the header", flip(20), 1, Some(0)),
        ("a body", flip(frame(2) + PREFIX), 1, Some(5)),
        ("the last byte", flip(whole.len() - 1), 1, Some(7)),
        ("an index, smaller", flip_to(&whole, frame(1), 2), 1, Some(2)),
        ("an index, larger", flip_to(&whole, frame(1), 4), 1, Some(4)),
        ("a length, smaller", flip_to(&whole, frame(1) + 8, 3), 1, Some(3)),
        ("a length beyond bounds", flip(frame(1) + 11), 1, Some(1)),
        ("a body dropped", [part(0, frame(1)), part(frame(2), frame(4))].concat(), 4, None),
        ("a body twice", [part(0, frame(2)), part(frame(1), frame(4))].concat(), 1, Some(4)),
        (
            "two bodies swapped",
            [part(0, frame(1)), part(frame(2), frame(3)), part(frame(1), frame(2)), part(frame(3), frame(4))].concat(),
            1,
            Some(6),
        ),
        ("another tenant's bodies", rival, 1, Some(0)),
        ("cut between bodies", part(0, frame(3)), 4, None),
        ("cut inside of one", part(0, frame(3) + PREFIX + 5), 4, None),
        ("cut inside of a prefix", part(0, frame(3) + 5), 4, None),
        ("emptied", Vec::new(), 4, None),
    ];
    for (what, bytes, exit, index) in cases {
        let case = dir.path().join("case");
        copy_dir(&dir.path().join("audit"), &case);
        fs::write(LogLayout::new(case.join("tenants/acme")).bodies(0), bytes).unwrap();
        let report = verify_both(&case, Some(&anchor));
        assert_eq!(report.exit_code(), exit, "{what}: {report}");
        let failure = report.logs.iter().find_map(|log| log.failure.as_ref());
        assert_eq!(failure.map(|f| f.index), index, "{what}: {report}");
        if let Some(failure) = failure {
            assert!(failure.file.to_string_lossy().ends_with(".body"), "{what}: {report}");
        }
        let place = failure.map_or_else(|| "-".to_owned(), |f| format!("record {} at {}", f.index, f.offset));
        match what {
            "a body" => matrix::row("body blob replaced", "INTEGRITY failed", "1", &place),
            "a body dropped" => {
                matrix::row("body removed without an erasure record", "RETENTION incomplete", "4", &place);
            }
            _ => {}
        }
        fs::remove_dir_all(&case).unwrap();
    }
    fs::remove_file(layout.bodies(0)).unwrap();
    assert_eq!(verify_both(&dir.path().join("audit"), Some(&anchor)).exit_code(), 4, "no file at all");
}

fn flip_to(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = value;
    bytes
}

/// A writer whose record and body do not belong together is refused as a whole.
#[test]
fn a_record_takes_its_own_body_only() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let log = tenant("acme");
    for (named, sent) in [(b"right".as_slice(), b"wrong".as_slice()), (b"none is sent", b"")] {
        let mut event = event(&log, Phase::Denied, 1, START_NS);
        let bytes = Bytes::copy_from_slice(sent);
        let kept = KeptBody::Sealed(SealedBytes { sha256: Hash::of(named).0, bytes });
        event.body = Some(Body { commit: [1; 32], key: KeyId([2; 16]), len: 1, redaction: None, kept });
        let mut writer = common::Writer::new("node-1");
        let entry = writer.entry(&[event]);
        assert!(matches!(lab.apply(entry), Reply::Invalid(why) if why.contains("body.sealed")));
    }
}
