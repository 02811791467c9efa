//! Each attack on a copied directory: verdict, exit code and place, by two verifiers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{Lab, copy_dir, tenant, verify_both};
use provost_audit_core::{BLOCK_HEADER_LEN, LogId, SEGMENT_HEADER_LEN, TAIL_HEADER_LEN, encode_block};
use provost_audit_verify::{Chunk, Exit, LogLayout, LogReader, State, VerifyOptions, verify};
use tempfile::{TempDir, tempdir};

/// 700 records of acme (two blocks and an open one), 20 of beta, 4 of the cluster; checkpoints at
/// 300 and 680 of acme, 20 records beyond the last. The kept anchor is the first.
struct Scene {
    dir: TempDir,
    anchor: PathBuf,
}

fn scene() -> Scene {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    lab.calls(&LogId::CLUSTER, 2);
    lab.calls(&tenant("beta"), 10);
    lab.calls(&tenant("acme"), 150);
    lab.checkpoint();
    drop(lab.machine);
    let anchor = dir.path().join("kept-checkpoint");
    fs::copy(dir.path().join("audit/checkpoint"), &anchor).unwrap();
    lab.machine = common::open_machine(dir.path(), &lab.key);
    lab.calls(&tenant("acme"), 190);
    lab.checkpoint();
    lab.calls(&tenant("acme"), 10);
    Scene { dir, anchor }
}

impl Scene {
    fn audit(&self) -> PathBuf {
        self.dir.path().join("audit")
    }
}

fn acme(dir: &Path) -> LogLayout {
    LogLayout::new(dir.join("tenants/acme"))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn replace(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from).expect("the bytes are there");
    bytes.splice(at..at + from.len(), to.iter().copied());
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_honest_log() {
    let scene = scene();
    let report = verify_both(&scene.audit(), None);
    assert_eq!(report.exit, Exit::Unanchored, "{report}");
    let log = &report.logs[1];
    assert_eq!((log.origin.as_str(), log.records, log.signed), ("provost/acme", 700, 680));
    assert_eq!(log.beyond, 20);
    assert!(log.notes.iter().any(|n| n.contains("20 records beyond")), "{report}");

    let report = verify_both(&scene.audit(), Some(&scene.anchor));
    assert_eq!(report.exit, Exit::Proven, "{report}");
    assert_eq!(report.logs[1].anchored, Some(300));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["exit"], "proven");
    assert_eq!(json["logs"][1]["integrity"]["state"], "proven");

    let ask = |options: VerifyOptions| verify(&scene.audit(), &options).unwrap();
    let old = ask(VerifyOptions { max_age_ns: Some(1), now_ns: Some(u64::MAX), ..VerifyOptions::default() });
    assert_eq!(old.exit, Exit::Stale);
    let other_key = "provost/acme+00000000+AQ".to_owned();
    let wrong = VerifyOptions { trusted_key: Some(other_key), ..VerifyOptions::default() };
    assert!(verify(&scene.audit(), &wrong).is_err(), "a usage error");
    for index in [0, 255, 256, 299, 679] {
        let report = ask(VerifyOptions { log: Some(tenant("acme")), proof: Some(index), ..VerifyOptions::default() });
        assert!(report.logs[0].proof.as_ref().unwrap().holds, "{index}: {report}");
    }
    let beyond = ask(VerifyOptions { log: Some(tenant("acme")), proof: Some(690), ..VerifyOptions::default() });
    assert_eq!(beyond.exit, Exit::Incomplete, "an unsigned record has no proof");
    let single = verify(&scene.audit().join("tenants/acme"), &VerifyOptions::default()).unwrap();
    assert_eq!((single.exit, single.logs[0].records), (Exit::Unanchored, 700));
    assert!(verify(scene.dir.path(), &VerifyOptions::default()).is_err(), "no log there");
}

/// Rewrites acme's tail: `edit` changes its records, hashes are made anew.
fn rewrite_tail(dir: &Path, edit: &dyn Fn(&mut Vec<Vec<u8>>)) {
    let path = acme(dir).tail(0);
    let bytes = fs::read(&path).unwrap();
    let mut at = TAIL_HEADER_LEN;
    let mut leaves = Vec::new();
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        leaves.push(bytes[at + 36..at + 36 + len].to_vec());
        at += 36 + len;
    }
    edit(&mut leaves);
    let mut out = bytes[..TAIL_HEADER_LEN].to_vec();
    for leaf in &leaves {
        provost_audit_core::push_tail_frame(&mut out, leaf, &provost_audit_core::leaf_hash(leaf));
    }
    fs::write(path, out).unwrap();
}

/// Rewrites acme's first block with other bodies and, as a careful forger would, its hashes.
fn rewrite_block(dir: &Path, edit: &dyn Fn(&[u8]) -> Vec<u8>) {
    let layout = acme(dir);
    let mut reader = LogReader::new(layout.clone());
    let chunk: &Chunk = reader.next().unwrap().unwrap();
    let header = chunk.header.clone().unwrap();
    let (mut raw, mut hashes, mut chain) = (Vec::new(), Vec::new(), header.chain_in);
    for (_, leaf) in chunk.iter() {
        let leaf = edit(leaf);
        let hash = provost_audit_core::leaf_hash(&leaf);
        chain = provost_audit_core::chain_next(&chain, &hash);
        raw.extend_from_slice(&(leaf.len() as u32).to_le_bytes());
        raw.extend_from_slice(&leaf);
        hashes.extend_from_slice(&hash.0);
    }
    let times = (header.min_time_ns, header.max_time_ns);
    let block = encode_block(0, &raw, times, (header.chain_in, chain)).unwrap();
    let old_len = BLOCK_HEADER_LEN + header.stored_len as usize;
    let mut segment = fs::read(layout.segment(0)).unwrap();
    segment.splice(SEGMENT_HEADER_LEN..SEGMENT_HEADER_LEN + old_len, block);
    fs::write(layout.segment(0), segment).unwrap();
    let mut leaf_file = fs::read(layout.leaf_hashes(0)).unwrap();
    leaf_file[..hashes.len()].copy_from_slice(&hashes);
    fs::write(layout.leaf_hashes(0), leaf_file).unwrap();
}

/// What a case must end in: exit code, and the index where known.
type Case<'a> = (&'a str, bool, Exit, Option<u64>, Box<dyn Fn(&Path) + 'a>);

#[test]
fn every_attack_is_found_and_placed() {
    let scene = scene();
    let other = scene_of_others();
    let block_two = {
        let mut reader = LogReader::new(acme(&scene.audit()));
        reader.next().unwrap();
        reader.next().unwrap().unwrap().offset(0) as usize
    };
    let header = SEGMENT_HEADER_LEN;
    let bad = Exit::Tampered;
    let seg = |dir: &Path| acme(dir).segment(0);
    let tail = |dir: &Path| acme(dir).tail(0);
    let log = |dir: &Path, name: &str| acme(dir).dir.join(name);
    let cases: Vec<Case<'_>> = vec![
        ("segment header: mark", false, bad, Some(0), Box::new(|d| flip(&seg(d), 0))),
        ("segment header: index", false, bad, Some(0), Box::new(|d| flip(&seg(d), 8))),
        ("segment header: origin", false, bad, Some(0), Box::new(|d| flip(&seg(d), 20))),
        ("segment header: chain", false, bad, Some(0), Box::new(|d| flip(&seg(d), 60))),
        ("block header: mark", false, bad, Some(0), Box::new(move |d| flip(&seg(d), header))),
        ("block header: count", false, bad, Some(0), Box::new(move |d| flip(&seg(d), header + 4))),
        ("block header: index", false, bad, Some(0), Box::new(move |d| flip(&seg(d), header + 9))),
        ("block header: length", false, bad, Some(0), Box::new(move |d| flip(&seg(d), header + 16))),
        ("block header: time", false, bad, Some(0), Box::new(move |d| flip(&seg(d), header + 24))),
        ("block header: chain_in", false, bad, Some(256), Box::new(move |d| flip(&seg(d), block_two + 44))),
        ("block header: chain_out", false, bad, Some(256), Box::new(move |d| flip(&seg(d), block_two + 80))),
        ("block body", false, bad, Some(256), Box::new(move |d| flip(&seg(d), block_two + 500))),
        ("stored leaf hash", false, bad, Some(300), Box::new(|d| flip(&acme(d).leaf_hashes(0), 300 * 32 + 3))),
        ("tail header: mark", false, bad, Some(512), Box::new(|d| flip(&tail(d), 0))),
        ("tail header: index", false, bad, Some(512), Box::new(|d| flip(&tail(d), 9))),
        ("tail header: chain", false, bad, Some(0), Box::new(|d| flip(&tail(d), 20))),
        (
            "tail: a record's field",
            false,
            bad,
            Some(512),
            Box::new(|d| {
                let bytes = fs::read(tail(d)).unwrap();
                let frame = frame_offset(&bytes, 512);
                flip(&tail(d), frame + 36 + 12);
            }),
        ),
        (
            "tail: stored hash",
            false,
            bad,
            Some(600),
            Box::new(|d| {
                let bytes = fs::read(tail(d)).unwrap();
                flip(&tail(d), frame_offset(&bytes, 600) + 8);
            }),
        ),
        ("record dropped, hashes redone", false, bad, None, Box::new(|d| rewrite_tail(d, &|l| drop(l.remove(600))))),
        ("records swapped, hashes redone", false, bad, None, Box::new(|d| rewrite_tail(d, &|l| l.swap(600, 601)))),
        (
            "record doubled, hashes redone",
            false,
            bad,
            None,
            Box::new(|d| {
                rewrite_tail(d, &|l| {
                    let copy = l[600].clone();
                    l.insert(600, copy);
                })
            }),
        ),
        (
            "record edited, hashes redone",
            false,
            bad,
            None,
            Box::new(|d| {
                rewrite_tail(d, &|l| {
                    let text = String::from_utf8(l[600].clone()).unwrap();
                    l[600] = text.replace("sql.query", "sql.other").into_bytes();
                })
            }),
        ),
        ("unsigned record dropped", false, bad, None, Box::new(|d| rewrite_tail(d, &|l| drop(l.remove(690))))),
        (
            "block rewritten with its hashes",
            false,
            bad,
            Some(256),
            Box::new(|d| {
                rewrite_block(d, &|leaf| {
                    String::from_utf8(leaf.to_vec()).unwrap().replace("\"ana\"", "\"eve\"").into_bytes()
                });
            }),
        ),
        (
            "block removed",
            false,
            bad,
            Some(0),
            Box::new(move |d| {
                let mut bytes = fs::read(seg(d)).unwrap();
                bytes.drain(header..block_two);
                fs::write(seg(d), bytes).unwrap();
            }),
        ),
        ("signed end cut off", false, bad, Some(600), Box::new(|d| rewrite_tail(d, &|l| l.truncate(600)))),
        (
            "unsigned end cut off: not visible",
            false,
            Exit::Unanchored,
            None,
            Box::new(|d| rewrite_tail(d, &|l| l.truncate(680))),
        ),
        (
            "segment deleted, its records still in the tail: nothing is lost",
            false,
            Exit::Unanchored,
            None,
            Box::new(|d| fs::remove_file(seg(d)).unwrap()),
        ),
        (
            "segment and tail deleted",
            false,
            bad,
            Some(0),
            Box::new(|d| {
                fs::remove_file(seg(d)).unwrap();
                fs::remove_file(tail(d)).unwrap();
            }),
        ),
        ("tail deleted", false, bad, Some(512), Box::new(|d| fs::remove_file(tail(d)).unwrap())),
        (
            "end and checkpoints rolled back behind the anchor",
            true,
            bad,
            Some(250),
            Box::new(|d| {
                rewrite_tail(d, &|l| l.truncate(250));
                fs::remove_dir_all(acme(d).segments()).unwrap();
                for name in ["checkpoint", "checkpoints"] {
                    fs::remove_file(log(d, name)).unwrap();
                }
                let top = fs::read_to_string(d.join("checkpoint")).unwrap();
                let kept: Vec<&str> = provost_audit_core::split_notes(&top)
                    .into_iter()
                    .filter(|n| !n.starts_with("provost/acme"))
                    .collect();
                fs::write(d.join("checkpoint"), kept.iter().map(|n| format!("{n}\n")).collect::<String>()).unwrap();
            }),
        ),
        ("checkpoint: size", false, bad, None, Box::new(|d| replace(&log(d, "checkpoint"), b"\n680\n", b"\n681\n"))),
        ("checkpoint: time", false, bad, None, Box::new(|d| replace(&log(d, "checkpoint"), b"time 1", b"time 2"))),
        (
            "checkpoint: signature stripped",
            false,
            bad,
            None,
            Box::new(|d| {
                let text = fs::read_to_string(log(d, "checkpoint")).unwrap();
                let body = text.split("\n\n").next().unwrap().to_owned();
                fs::write(log(d, "checkpoint"), body + "\n\n").unwrap();
            }),
        ),
        (
            "checkpoint of another log",
            false,
            bad,
            None,
            Box::new(|d| {
                fs::copy(d.join("tenants/beta/checkpoint"), log(d, "checkpoint")).unwrap();
            }),
        ),
        (
            "history: forged entry",
            false,
            bad,
            None,
            Box::new(|d| replace(&log(d, "checkpoints"), b"\n300\n", b"\n302\n")),
        ),
        (
            "log of another tenant spliced in",
            false,
            bad,
            Some(0),
            Box::new(|d| {
                fs::copy(LogLayout::new(d.join("tenants/beta")).tail(0), tail(d)).unwrap();
                fs::remove_dir_all(acme(d).segments()).unwrap();
            }),
        ),
        (
            "tenant log deleted: not visible",
            false,
            Exit::Unanchored,
            None,
            Box::new(|d| fs::remove_dir_all(d.join("tenants/beta")).unwrap()),
        ),
        ("tenant log deleted", true, bad, None, Box::new(|d| fs::remove_dir_all(d.join("tenants/beta")).unwrap())),
        ("key file gone", false, Exit::Incomplete, None, Box::new(|d| fs::remove_file(log(d, "audit.pub")).unwrap())),
        (
            "whole directory replaced: not visible",
            false,
            Exit::Unanchored,
            None,
            Box::new(|d| {
                fs::remove_dir_all(d).unwrap();
                copy_dir(&other.audit(), d);
            }),
        ),
        (
            "whole directory replaced",
            true,
            bad,
            None,
            Box::new(|d| {
                fs::remove_dir_all(d).unwrap();
                copy_dir(&other.audit(), d);
            }),
        ),
    ];
    for (name, anchored, exit, index, attack) in &cases {
        let case = scene.dir.path().join("case");
        copy_dir(&scene.audit(), &case);
        attack(&case);
        let report = verify_both(&case, anchored.then_some(&scene.anchor));
        assert_eq!(report.exit, *exit, "{name}:\n{report}");
        if let Some(index) = index {
            let failure = report.logs.iter().find_map(|l| l.failure.as_ref());
            assert_eq!(failure.map(|f| f.index), Some(*index), "{name}:\n{report}");
        }
        fs::remove_dir_all(&case).unwrap();
    }
}

/// A log that holds within itself, written by another key.
fn scene_of_others() -> Scene {
    scene()
}

fn frame_offset(tail: &[u8], index: usize) -> usize {
    let mut at = TAIL_HEADER_LEN;
    for _ in 0..index {
        at += 36 + u32::from_le_bytes(tail[at..at + 4].try_into().unwrap()) as usize;
    }
    at
}

#[test]
fn missing_outcomes_and_late_ones() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    lab.calls(&acme, 3);
    let intent = common::event(&acme, provost_types::Phase::Intent, 77, common::START_NS);
    let entry = lab.writer.entry(std::slice::from_ref(&intent));
    lab.apply(entry);
    let report = verify_both(&dir.path().join("audit"), None);
    assert_eq!((report.exit, report.logs[0].open_intents), (Exit::Unanchored, 1), "{report}");

    // The writer starts again and does not end the call: that is a gap.
    lab.writer.epoch = 2;
    lab.writer.batch = 0;
    lab.writer.chains.values_mut().for_each(|chain| chain.0 = 0);
    lab.calls(&acme, 1);
    let report = verify_both(&dir.path().join("audit"), None);
    assert_eq!(report.exit, Exit::Tampered, "{report}");
    assert_eq!(report.logs[0].completeness.state, State::Failed);
    assert_eq!(report.logs[0].violations[0].index, 6);
    assert_eq!(report.logs[0].integrity.state, State::Consistent);

    let outcome = common::event(&acme, provost_types::Phase::Outcome, 77, common::START_NS);
    let entry = lab.writer.entry(std::slice::from_ref(&outcome));
    lab.apply(entry);
    assert_eq!(verify_both(&dir.path().join("audit"), None).exit, Exit::Unanchored);
    let entry = lab.writer.entry(&[outcome]);
    lab.apply(entry);
    let report = verify_both(&dir.path().join("audit"), None);
    assert_eq!(report.exit, Exit::Tampered, "a second outcome\n{report}");
}

/// More than a segment: footers, roots of whole segments, `since`, proofs across them.
#[test]
fn more_than_one_segment() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    lab.calls(&acme, 32_900);
    lab.checkpoint();
    drop(lab.machine);
    let audit = dir.path().join("audit");
    let machine = common::open_machine(dir.path(), &lab.key);
    assert_eq!(machine.heads()[0].size, 65_800, "opens again behind a full segment");
    drop(machine);
    let options = |since_ns| VerifyOptions { since_ns, ..VerifyOptions::default() };
    let whole = verify(&audit, &options(None)).unwrap();
    assert_eq!((whole.exit, whole.logs[0].records), (Exit::Unanchored, 65_800), "{whole}");
    let late = common::START_NS + 32_890 * 1_000_000;
    let part = verify(&audit, &options(Some(late))).unwrap();
    assert_eq!(part.exit, Exit::Unanchored, "{part}");
    assert_eq!((part.logs[0].root, part.logs[0].chain), (whole.logs[0].root, whole.logs[0].chain));
    for index in [0, 65_535, 65_536, 65_799] {
        let shown = provost_audit_store::show(&audit, &acme, index).unwrap();
        let note = shown.checkpoint.expect("covered");
        let checkpoint = provost_audit_core::Checkpoint::parse_unchecked(&note).unwrap();
        provost_audit_core::verify_inclusion(
            &shown.found.leaf_hash,
            index,
            checkpoint.size,
            &shown.proof,
            &checkpoint.root,
        )
        .unwrap();
    }
    flip(&LogLayout::new(audit.join("tenants/acme")).segment(0), SEGMENT_HEADER_LEN + 3_000_000);
    let report = verify(&audit, &options(Some(late))).unwrap();
    assert_eq!(report.exit, Exit::Unanchored, "older bodies are not read with since\n{report}");
}
