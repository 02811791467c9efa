//! The attack matrix: one row for each tamper and fault, written by the test that tried it.
//!
//! A row is a small file below the target folder, so that tests of any crate, run in any order and
//! as any number of processes, can add theirs: include this file by `#[path]` and call [`row`].
//! `cargo xtask attack-matrix` prints them and fails when a case of
//! `audit-log/store/tests/attacks/cases.txt` has none.

use std::{fs, path::Path};

/// Records that `case` ended in this verdict, exit code and place.
pub fn row(case: &str, verdict: &str, exit: &str, place: &str) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attack-matrix");
    fs::create_dir_all(&dir).unwrap();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = case.chars().map(plain).collect();
    fs::write(dir.join(name), format!("{case}\t{verdict}\t{exit}\t{place}\n")).unwrap();
}
