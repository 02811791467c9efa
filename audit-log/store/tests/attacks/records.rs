//! Records dropped, moved, doubled, added or edited, with every stored hash made anew.

use std::fs;

use provost_audit_core::{Place, encode_record, leaf_hash};
use provost_types::{Phase, Subject};
use tempfile::tempdir;

use crate::{
    case::{Case, found, try_all, unseen},
    common::{Lab, START_NS, event, matrix, place_of, tenant, verify_both},
    scene::{Scene, TAIL, acme, rewrite_tail, scene},
};

const HISTORY: &str = "tenants/acme/checkpoints";

/// A change before the checkpoint of 680 shows in its root: the records since the one of 300 are
/// not those that were signed. The place is the checkpoint's note.
fn signed<'a>(s: &Scene, name: &'a str, attack: impl Fn(&mut Vec<Vec<u8>>) + 'a) -> Case<'a> {
    let history = fs::read_to_string(s.audit().join(HISTORY)).unwrap();
    let second =
        history.find("\n\n").and_then(|at| history[at + 2..].find("\n\n").map(|end| at + 2 + end + 2)).unwrap();
    found(name, "INTEGRITY", (300, HISTORY.to_owned(), second as u64), move |d| rewrite_tail(d, &attack))
}

fn edit(leaf: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(leaf.to_vec()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    text.replace(from, to).into_bytes()
}

#[test]
fn signed_records() {
    let scene = scene();
    let s = &scene;
    try_all(
        s,
        &[
            signed(s, "record dropped, hashes redone", |l| drop(l.remove(600))),
            signed(s, "records reordered, hashes redone", |l| l.swap(600, 601)),
            signed(s, "record doubled, hashes redone", |l| {
                let copy = l[600].clone();
                l.insert(600, copy);
            }),
            signed(s, "record inserted, hashes redone", |l| {
                let place = Place { writer_id: "node-2", epoch: 1, seq: 1, prev: provost_audit_core::Hash::ZERO };
                let forged = encode_record(&event(&tenant("acme"), Phase::Denied, 9_999, START_NS), &place).unwrap();
                l.insert(600, forged);
            }),
            signed(s, "forged erase record", |l| {
                let place = Place { writer_id: "node-2", epoch: 1, seq: 1, prev: provost_audit_core::Hash::ZERO };
                let mut erased = event(&tenant("acme"), Phase::Event, 9_998, START_NS);
                let objects = vec![format!("key:{}", "ab".repeat(16))];
                let subject = Subject { event: "audit.erase".to_owned(), objects, detail: "nobody asked".to_owned() };
                erased.what.subject = Some(subject);
                l.insert(600, encode_record(&erased, &place).unwrap());
            }),
            signed(s, "record edited, hash recomputed", |l| l[600] = edit(&l[600], "sql.query", "sql.other")),
            signed(s, "back-dated: a stored record's time", |l| {
                l[600] = edit(&l[600], "\"time_ns\":\"176", "\"time_ns\":\"175");
            }),
            found("duplicate JSON key", "INTEGRITY", s.tail(600), |d| {
                rewrite_tail(d, |l| l[600] = edit(&l[600], "\"v\":1", "\"v\":1,\"v\":1"));
            }),
            found("record that is no record: two hashes, as an inner node's", "INTEGRITY", s.tail(600), |d| {
                rewrite_tail(d, |l| l[600] = [leaf_hash(&l[598]).0, leaf_hash(&l[599]).0].concat());
            }),
            found("truncated at a record's end", "INTEGRITY", (600, TAIL.to_owned(), s.frames[600]), |d| {
                rewrite_tail(d, |l| l.truncate(600));
            }),
            found("truncated within a record", "INTEGRITY", s.tail(600), |d| {
                let path = acme(d).tail(0);
                fs::write(&path, &fs::read(&path).unwrap()[..s.frames[600] as usize + 100]).unwrap();
            }),
        ],
    );
}

/// Beyond the last checkpoint nothing is signed; writers' chains still show what the middle lacks.
#[test]
fn unsigned_records() {
    let scene = scene();
    let s = &scene;
    try_all(
        s,
        &[
            // 690 takes the place of 689: its predecessor is missing.
            found("unsigned record dropped", "COMPLETENESS", (690, TAIL.to_owned(), s.frames[690]), |d| {
                rewrite_tail(d, |l| drop(l.remove(690)));
            }),
            unseen("unsigned end cut off: not visible", |d| rewrite_tail(d, |l| l.truncate(680))),
            unseen("unsigned end cut off, with an anchor of before: not visible", |d| {
                rewrite_tail(d, |l| l.truncate(680));
            })
            .anchored(),
        ],
    );
}

#[test]
fn calls_without_end_or_beginning() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme_log = tenant("acme");
    let audit = dir.path().join("audit");
    let check = |case: &str, verdict: &str, code: u8, index: Option<u64>| {
        let report = verify_both(&audit, None);
        assert_eq!(report.exit_code(), code, "{case}: {report}");
        let place = place_of(&report, &audit);
        assert_eq!(place.as_ref().map(|p| p.0), index, "{case}: {report}");
        assert!(verdict == "holds within itself" || verdict.starts_with(crate::case::verdict(&report)), "{report}");
        let text = place.map_or("-".to_owned(), |(i, file, at)| format!("record {i}, {file} at {at}"));
        matrix::row(case, verdict, &code.to_string(), &text);
        report
    };
    lab.calls(&acme_log, 3);
    let intent = event(&acme_log, Phase::Intent, 77, START_NS);
    let entry = lab.writer.entry(std::slice::from_ref(&intent));
    lab.apply(entry);
    let report = check("copied while a call runs", "holds within itself", 2, None);
    assert_eq!(report.logs[0].open_intents, 1, "{report}");

    // The writer starts again and does not end the call: that is a gap.
    lab.writer.epoch = 2;
    lab.writer.batch = 0;
    lab.writer.chains.values_mut().for_each(|chain| chain.0 = 0);
    lab.calls(&acme_log, 1);
    check("intent without outcome after a restart", "COMPLETENESS failed", 1, Some(6));

    let outcome = event(&acme_log, Phase::Outcome, 77, START_NS);
    let entry = lab.writer.entry(std::slice::from_ref(&outcome));
    lab.apply(entry);
    check("orphan ended after the restart", "holds within itself", 2, None);
    let entry = lab.writer.entry(&[outcome]);
    lab.apply(entry);
    check("a second outcome", "COMPLETENESS failed", 1, Some(10));
}

#[test]
fn a_writer_that_back_dates() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme_log = tenant("acme");
    lab.calls(&acme_log, 10);
    lab.checkpoint();
    let late = event(&acme_log, Phase::Denied, 5_000, START_NS - 3_600_000_000_000);
    let entry = lab.writer.entry(&[late]);
    lab.apply(entry);
    // The checkpoint is on disk when the machine has been closed.
    drop(lab.machine);
    let audit = dir.path().join("audit");
    let report = verify_both(&audit, None);
    assert_eq!((report.exit_code(), report.logs[0].back_dated), (2, 1), "{report}");
    let suspect = &report.logs[0].suspicions[0];
    assert_eq!(suspect.index, 20, "{report}");
    assert!(report.logs[0].notes.iter().any(|n| n.contains("back-dated")), "{report}");
    let place = format!("record 20, {TAIL} at {}", suspect.offset);
    matrix::row("back-dated by its writer", "holds, and the record is named", "2", &place);
}
