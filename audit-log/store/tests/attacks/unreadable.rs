//! Files that are to stop a verifier: pipes that nobody writes to, devices without an end, and checkpoint files of
//! nothing. It must end, say what it did not read, and never call that proven.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use provost_audit_verify::{Exit, VerifyOptions, verify};

use crate::{
    case::{found, missing, try_all, unseen},
    scene::{SEGMENT, TAIL, scene},
};

const HISTORY: &str = "tenants/acme/checkpoints";
/// Far beyond what both verifiers take on a loaded machine; reading such files whole took longer, and gigabytes.
const SOON: Duration = Duration::from_secs(60);

/// Puts a pipe in the place of a file.
fn pipe(dir: &Path, file: &str) {
    let path = dir.join(file);
    let _ = fs::remove_file(&path);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success(), "{file}");
}

/// Puts a link to a device without an end in the place of a file.
fn endless(dir: &Path, file: &str) {
    let path = dir.join(file);
    let _ = fs::remove_file(&path);
    symlink("/dev/zero", &path).unwrap();
}

fn at(index: u64, file: &str) -> (u64, String, u64) {
    (index, file.to_owned(), 0)
}

#[test]
fn pipes_and_devices() {
    let scene = scene();
    let s = &scene;
    let (key, latest) = ("tenants/acme/audit.pub", "tenants/acme/checkpoint");
    let (leaf, body) =
        ("tenants/acme/segments/00000000000000000000.leaf", "tenants/acme/segments/00000000000000000000.body");
    try_all(
        s,
        &[
            missing("pipe in place of the key", "INTEGRITY", at(0, key), |d| pipe(d, key)),
            missing("pipe in place of the list of keys", "INTEGRITY", at(0, "cluster/keys"), |d| {
                pipe(d, "cluster/keys")
            }),
            missing("pipe in place of a checkpoint", "INTEGRITY", at(0, latest), |d| pipe(d, latest)).anchored(),
            missing("pipe in place of the history of checkpoints", "INTEGRITY", at(0, HISTORY), |d| pipe(d, HISTORY)),
            missing("pipe in place of the checkpoint at the top", "INTEGRITY", at(0, "checkpoint"), |d| {
                pipe(d, "checkpoint");
            }),
            missing("pipe in place of a segment", "INTEGRITY", at(0, SEGMENT), |d| pipe(d, SEGMENT)).anchored(),
            missing("pipe in place of the bodies", "INTEGRITY", at(0, body), |d| pipe(d, body)),
            missing("pipe in place of the tail", "INTEGRITY", at(512, TAIL), |d| pipe(d, TAIL)),
            unseen("pipe in place of stored leaf hashes: as if they were missing", |d| pipe(d, leaf)),
            missing("link to a device in place of the key", "INTEGRITY", at(0, key), |d| endless(d, key)),
            missing("link to a device in place of a checkpoint", "INTEGRITY", at(0, latest), |d| endless(d, latest)),
            missing("link to a device in place of the tail", "INTEGRITY", at(512, TAIL), |d| endless(d, TAIL)),
            found("key longer than one may be", "AUTHENTICITY", at(0, key), |d| {
                fs::write(d.join(key), vec![b'a'; 1_000_000]).unwrap();
            }),
        ],
    );
}

#[test]
fn checkpoint_files_of_nothing() {
    let scene = scene();
    let s = &scene;
    let begun = Instant::now();
    try_all(
        s,
        &[
            found("history of 50 MB of line ends", "AUTHENTICITY", (680, HISTORY.to_owned(), 0), |d| {
                fs::write(d.join(HISTORY), vec![b'\n'; 50_000_000]).unwrap();
            }),
            // Notes of other logs are passed over there, so it is the number of pieces that is refused.
            found("checkpoint at the top of line ends", "AUTHENTICITY", (4, "checkpoint".to_owned(), 4_000), |d| {
                fs::write(d.join("checkpoint"), vec![b'\n'; 1_000_000]).unwrap();
            }),
            found("history of one note without end", "AUTHENTICITY", (680, HISTORY.to_owned(), 0), |d| {
                fs::write(d.join(HISTORY), vec![b'x'; 50_000_000]).unwrap();
            }),
        ],
    );
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn folders_that_are_no_tenants() {
    let scene = scene();
    let s = &scene;
    let foreign = "tenants/ACME";
    try_all(
        s,
        &[
            missing("folder among the tenants that is no tenant's", "INTEGRITY", at(0, foreign), |d| {
                fs::create_dir(d.join(foreign)).unwrap();
            })
            .anchored(),
            missing("log under a name that is no tenant's", "INTEGRITY", at(0, foreign), |d| {
                crate::common::copy_dir(&d.join("tenants/acme"), &d.join(foreign));
            }),
            unseen("file among the tenants", |d| fs::write(d.join("tenants/.listing"), b"x").unwrap()),
        ],
    );
    // Whoever asks for one log is told of that one.
    fs::create_dir(s.audit().join(foreign)).unwrap();
    let log = Some(crate::common::tenant("acme"));
    let report = verify(&s.audit(), &VerifyOptions { log, ..VerifyOptions::default() }).unwrap();
    assert_eq!((report.exit, report.logs.len()), (Exit::Unanchored, 1), "{report}");
    let report = verify(&s.audit(), &VerifyOptions::default()).unwrap();
    assert!(
        report.to_string().contains("`ACME` is no name of a tenant: nothing in this folder was verified"),
        "{report}"
    );
}
