//! The exported tiles, read by an implementation that is not ours (Go's `golang.org/x/mod/sumdb`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{Lab, tenant};
use provost_audit_core::{CosignerKey, LogId, SignedNote, TileName};
use provost_audit_store::CheckpointKey;
use provost_audit_verify::{LogLayout, LogTiles};
use tempfile::{TempDir, tempdir};

/// Where Debian's `golang-golang-x-mod-dev` puts the sources; another GOPATH may be named.
const GOPATH: &str = "/usr/share/gocode";

/// The reader, compiled; `None`, with a line that says so, where Go or the packages are missing. CI has
/// them: `scripts/setup.sh test` installs them.
fn reader(dir: &Path) -> Option<PathBuf> {
    let gopath = std::env::var("PROVOST_TEST_GOPATH").unwrap_or_else(|_| GOPATH.to_owned());
    let sources = Path::new(&gopath).join("src/golang.org/x/mod/sumdb/tlog");
    let has_go = Command::new("go").arg("version").output().is_ok_and(|o| o.status.success());
    if !has_go || !sources.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "Go or golang.org/x/mod is missing: run scripts/setup.sh test");
        // Written past the test harness, which shows nothing of a test that passes.
        let text = "SKIPPED: the foreign reader of audit tiles needs Go and golang.org/x/mod: \
                    run scripts/setup.sh test";
        let _ = writeln!(std::io::stderr(), "{text}");
        return None;
    }
    let binary = dir.join("tlog_check");
    let source = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/foreign/tlog_check.go");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&binary).arg(source).env("GO111MODULE", "off").env("GOPATH", gopath);
    let built = build.env("GOCACHE", dir.join("cache")).env("GOFLAGS", "").output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(binary)
}

fn run(reader: &Path, args: &[&Path]) -> (bool, String) {
    let Output { status, stdout, stderr } = Command::new(reader).args(args).output().unwrap();
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

fn export(dir: &TempDir, log: &LogId) -> PathBuf {
    let out = dir.path().join("tiles").join(log.folder());
    let layout = LogLayout::new(dir.path().join("audit").join(log.folder()));
    LogTiles::open(layout).unwrap().export(&out).unwrap();
    out
}

#[test]
fn go_reads_checkpoints_tiles_and_entries() {
    let dir = tempdir().unwrap();
    let Some(go) = reader(dir.path()) else { return };
    let mut lab = Lab::open(dir.path());
    // One segment and more: three levels of tiles, blocks, and a tail.
    let (acme, beta) = (tenant("acme"), tenant("beta"));
    lab.calls(&acme, 150);
    lab.calls(&beta, 128);
    lab.calls(&LogId::CLUSTER, 1);
    lab.checkpoint();
    drop(lab.machine);
    let older = dir.path().join("older");
    fs::copy(dir.path().join("audit/tenants/acme/checkpoint"), &older).unwrap();
    lab.machine = common::open_machine(dir.path(), &lab.key);
    lab.calls(&acme, 33_000);
    lab.checkpoint();
    // Beyond the signed size: must not show in any tile.
    lab.calls(&acme, 10);
    drop(lab.machine);

    let out = export(&dir, &acme);
    let (ok, said) = run(&go, &[&out, &older]);
    assert!(ok && said.contains("ok provost/acme 66300 entries"), "{said}");
    let (ok, said) = run(&go, &[&export(&dir, &beta)]);
    assert!(ok && said.contains("ok provost/beta 256 entries"), "{said}");
    let (ok, said) = run(&go, &[&export(&dir, &LogId::CLUSTER)]);
    assert!(ok && said.contains("ok provost/_cluster 2 entries"), "{said}");

    // What is served on demand is what was written.
    let tiles = LogTiles::open(LogLayout::new(dir.path().join("audit/tenants/acme"))).unwrap();
    for path in
        ["tile/0/000", "tile/0/258.p/252", "tile/1/000", "tile/1/001.p/2", "tile/2/000.p/1", "tile/entries/258.p/252"]
    {
        let served = tiles.tile(&TileName::parse(path).unwrap()).unwrap();
        assert!(served.is_some() && served == fs::read(out.join(path)).ok(), "{path}");
    }
    for path in ["tile/0/258.p/253", "tile/0/259", "tile/2/000.p/2", "tile/3/000.p/1", "tile/40/000"] {
        assert_eq!(tiles.tile(&TileName::parse(path).unwrap()).unwrap(), None, "{path}");
    }

    // The foreign reader sees a changed entry, a changed tile and a changed checkpoint.
    for path in ["tile/entries/003", "tile/0/100", "tile/1/000", "checkpoint"] {
        let file = out.join(path);
        let honest = fs::read(&file).unwrap();
        let mut changed = honest.clone();
        changed[40] ^= 1;
        fs::write(&file, changed).unwrap();
        let (ok, said) = run(&go, &[&out]);
        assert!(!ok && said.contains("FAIL"), "{path}: {said}");
        fs::write(&file, honest).unwrap();
    }
}

#[test]
fn go_reads_a_cosignature() {
    let dir = tempdir().unwrap();
    let Some(go) = reader(dir.path()) else { return };
    let mut lab = Lab::open(dir.path());
    lab.calls(&LogId::CLUSTER, 40);
    lab.checkpoint();
    drop(lab.machine);
    let out = export(&dir, &LogId::CLUSTER);
    let note = fs::read_to_string(out.join("checkpoint")).unwrap();
    let key = CheckpointKey::open(&dir.path().join("witness.key")).unwrap();
    let text = SignedNote::parse(&note).unwrap().text;
    let line = CosignerKey::cosign("witness.example/w1", text, 1_763_000_000, &key);
    fs::write(out.join("checkpoint.cosigned"), format!("{note}{line}")).unwrap();
    let older = out.join("checkpoint");
    let vkey = |key: &CheckpointKey| {
        let public_key = provost_audit_core::NoteSigner::public_key(key);
        PathBuf::from(CosignerKey { name: "witness.example/w1".to_owned(), public_key }.to_text())
    };
    let (ok, said) = run(&go, &[&out, &older, &vkey(&key)]);
    assert!(ok, "{said}");
    let (ok, said) = run(&go, &[&out, &older, &vkey(&lab.key)]);
    assert!(!ok && said.contains("no verifiable signatures"), "{said}");
}
