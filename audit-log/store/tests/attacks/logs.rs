//! Whole logs deleted, replaced, rolled back, or shown in two versions: what only an anchor shows.

use std::fs;

use provost_audit_verify::{Exit, VerifyOptions, verify};

use crate::{
    case::{found, try_all, unseen},
    common::{copy_dir, matrix, open_machine},
    scene::{Scene, TAIL, head_of, leaves, replace_log, scene, set_checkpoints},
};

const ANCHOR: &str = "anchor";

#[test]
fn whole_logs() {
    let scene = scene();
    let others = crate::scene::scene();
    let s = &scene;
    let acme_note = anchor_offset(s);
    let replaced = |d: &std::path::Path| {
        fs::remove_dir_all(d).unwrap();
        copy_dir(&others.audit(), d);
    };
    let roll_back = |d: &std::path::Path| {
        // All of it: records, history, the latest checkpoint, as a backup of before would be.
        let all = leaves(d);
        let early = all[..250].to_vec();
        replace_log(d, &early);
        set_checkpoints(d, &[head_of(&early, 1).sign(&s.key)]);
    };
    try_all(
        s,
        &[
            unseen("tenant log deleted: not visible", |d| fs::remove_dir_all(d.join("tenants/beta")).unwrap()),
            found("tenant log deleted", "LOG MISSING", (0, "tenants/beta".to_owned(), 0), |d| {
                fs::remove_dir_all(d.join("tenants/beta")).unwrap();
            })
            .anchored(),
            unseen("whole directory replaced: not visible", replaced),
            // The anchor's note was not signed by the key that lies beside the replacement.
            found("whole directory replaced", "AUTHENTICITY", (4, ANCHOR.to_owned(), 0), replaced).anchored(),
            unseen("storage and checkpoints rolled back: not visible", roll_back),
            found("storage and checkpoints rolled back", "INTEGRITY", (250, TAIL.to_owned(), s.frames[250]), roll_back)
                .anchored(),
            found("storage rolled back, checkpoints kept", "INTEGRITY", (250, TAIL.to_owned(), s.frames[250]), |d| {
                replace_log(d, &leaves(d)[..250]);
            }),
            unseen("suffix rewritten with the stolen log key: not visible", |d| forge_suffix(d, s, 600)),
            // Forged behind the anchor: it covers 300 records, and those still hold.
            unseen("suffix behind the anchor rewritten with the stolen log key: not visible", |d| {
                forge_suffix(d, s, 600);
            })
            .anchored(),
            found("suffix rewritten with the stolen log key", "INTEGRITY", (0, ANCHOR.to_owned(), acme_note), |d| {
                forge_suffix(d, s, 200);
            })
            .anchored(),
            found(
                "split view: another history of the same size",
                "INTEGRITY",
                (0, ANCHOR.to_owned(), acme_note),
                |d| {
                    forge_suffix_of_size(d, s, 200, 300);
                },
            )
            .anchored(),
        ],
    );
}

/// Where acme's note stands in the anchor.
fn anchor_offset(s: &Scene) -> u64 {
    let text = fs::read_to_string(&s.anchor).unwrap();
    let mut at = 0;
    for note in provost_audit_core::split_notes(&text) {
        if note.starts_with("provost/acme\n") {
            return at;
        }
        at += note.len() as u64 + 1;
    }
    panic!("the anchor does not know acme");
}

/// Rewrites everything from record `from` on, so well that only the past can tell: writers' chains
/// are continued, and the stolen key signs.
fn forge_suffix(dir: &std::path::Path, s: &Scene, from: usize) {
    forge_suffix_of_size(dir, s, from, 680);
}

fn forge_suffix_of_size(dir: &std::path::Path, s: &Scene, from: usize, size: usize) {
    let mut all = leaves(dir)[..size].to_vec();
    for n in from..size {
        let mut record: serde_json::Value = serde_json::from_slice(&all[n]).unwrap();
        record["principal"] = "eve".into();
        record["writer_prev"] = provost_audit_core::leaf_hash(&all[n - 1]).to_string().into();
        all[n] = serde_json::to_vec(&record).unwrap();
    }
    replace_log(dir, &all);
    set_checkpoints(dir, &[head_of(&all, 1_763_000_000_000_000_000).sign(&s.key)]);
}

#[test]
fn a_stale_head() {
    let scene = scene();
    let options = VerifyOptions { max_age_ns: Some(1), now_ns: Some(u64::MAX), ..VerifyOptions::default() };
    let report = verify(&scene.audit(), &options).unwrap();
    assert_eq!(report.exit, Exit::Stale, "{report}");
    matrix::row("stale head", "AUTHENTICITY stale", "3", "-");
}

/// The files of a node are put back to an old backup: the start refuses, and so does an auditor.
#[test]
fn restored_from_an_old_backup() {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = crate::common::Lab::open(dir.path());
    lab.calls(&crate::common::tenant("acme"), 20);
    lab.checkpoint();
    let crate::common::Lab { machine, key, writer, entries, calls } = lab;
    drop(machine);
    let (audit, backup, kept) = (dir.path().join("audit"), dir.path().join("backup"), dir.path().join("kept"));
    copy_dir(&audit, &backup);
    let machine = open_machine(dir.path(), &key);
    let mut lab = crate::common::Lab { machine, key, writer, entries, calls };
    lab.calls(&crate::common::tenant("acme"), 20);
    lab.checkpoint();
    let crate::common::Lab { machine, key, .. } = lab;
    drop(machine);
    fs::copy(audit.join("checkpoint"), &kept).unwrap();
    // Only the state: the files are ahead of it, and the checkpoint beside them says so.
    fs::copy(backup.join("state"), audit.join("state")).unwrap();
    let refused = provost_audit_store::AuditMachine::open(&audit, "provost", [0; 32]).err().unwrap();
    assert_eq!(refused.code(), "PV-AUDIT-ROLLED-BACK");
    matrix::row("restored from an old backup: the state alone", "the start refuses", refused.code(), "state");
    // All files: nothing beside them knows better. The kept checkpoint does.
    fs::remove_dir_all(&audit).unwrap();
    copy_dir(&backup, &audit);
    drop(open_machine(dir.path(), &key));
    let report = crate::common::verify_both(&audit, Some(&kept));
    let place = crate::common::place_of(&report, &audit).unwrap();
    assert_eq!((report.exit, place.0, place.1.as_str()), (Exit::Tampered, 40, TAIL), "{report}");
    let text = format!("record 40, {TAIL} at {}", place.2);
    matrix::row("restored from an old backup: everything", "INTEGRITY failed", "1", &text);
}
