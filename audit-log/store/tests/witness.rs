//! Attacks on cosignatures: verdict, exit code and place for each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use common::{Lab, copy_dir, tenant};
use provost_audit_core::{Checkpoint, CosignerKey, LogId, NoteSigner, SignedNote, VerifierKey};
use provost_audit_store::CheckpointKey;
use provost_audit_verify::{Exit, Report, VerifyOptions, verify};
use tempfile::{TempDir, tempdir};

const NAME_1: &str = "witness.example/w1";
const NAME_2: &str = "witness.example/w2";
const TIME_S: u64 = 1_763_000_001;

struct Scene {
    dir: TempDir,
    log_key: CheckpointKey,
    one: CheckpointKey,
    two: CheckpointKey,
}

/// A cluster's log of 40 records and acme's of 300, signed; two witnesses' keys.
fn scene() -> Scene {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    lab.calls(&LogId::CLUSTER, 10);
    lab.calls(&tenant("acme"), 150);
    lab.checkpoint();
    lab.calls(&LogId::CLUSTER, 10);
    lab.checkpoint();
    // Ends the thread that publishes.
    drop(lab.machine);
    let log_key = lab.key;
    let key = |name: &str| CheckpointKey::open(&dir.path().join(name)).unwrap();
    let (one, two) = (key("w1.key"), key("w2.key"));
    Scene { dir, log_key, one, two }
}

impl Scene {
    fn note(&self) -> String {
        fs::read_to_string(self.dir.path().join("audit/cluster/checkpoint")).unwrap()
    }

    fn line(&self, name: &str, key: &CheckpointKey) -> String {
        CosignerKey::cosign(name, SignedNote::parse(&self.note()).unwrap().text, TIME_S, key)
    }

    fn vkey(name: &str, key: &CheckpointKey) -> String {
        CosignerKey { name: name.to_owned(), public_key: key.public_key() }.to_text()
    }

    fn policy(&self, name: &str, rules: &str) -> PathBuf {
        let log = VerifierKey { name: "provost/_cluster".to_owned(), public_key: self.log_key.public_key() }.to_text();
        let (one, two) = (Self::vkey(NAME_1, &self.one), Self::vkey(NAME_2, &self.two));
        let text = format!("log {log}\nwitness w1 {one}\nwitness w2 {two}\n{rules}\n");
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A copy whose cosigned checkpoint is this text, judged by the policy.
    fn judge(&self, name: &str, cosigned: &str, policy: &Path) -> Report {
        let copy = self.dir.path().join(name);
        copy_dir(&self.dir.path().join("audit"), &copy);
        fs::write(copy.join("cluster/checkpoint.cosigned"), cosigned).unwrap();
        let options = VerifyOptions { witness_policy: Some(policy.to_owned()), ..VerifyOptions::default() };
        verify(&copy, &options).unwrap()
    }
}

/// A line with a witness's name and key id around any bytes.
fn relabel(name: &str, key: &CheckpointKey, bytes: &[u8]) -> String {
    let id = CosignerKey { name: name.to_owned(), public_key: key.public_key() }.id();
    format!("\u{2014} {name} {}\n", BASE64.encode([&id[..], bytes].concat()))
}

#[test]
fn attack_cosignatures() {
    let scene = scene();
    let note = scene.note();
    let text = SignedNote::parse(&note).unwrap().text.to_owned();
    let (one, two) = (scene.line(NAME_1, &scene.one), scene.line(NAME_2, &scene.two));
    let any = scene.policy("any", "group any-of-them any w1 w2\nquorum any-of-them");
    let both = scene.policy("both", "group both all w1 w2\nquorum both");
    let time = TIME_S.to_be_bytes();
    let crossed = relabel(NAME_1, &scene.one, &[&time[..], &scene.one.sign(text.as_bytes())].concat());
    let plain = VerifierKey::signature_line(NAME_1, &text, &scene.one);
    let short = relabel(NAME_1, &scene.one, &time);
    // Same name and, by brute force or luck, same id: still another key.
    let collision = {
        let message = format!("cosignature/v1\ntime {TIME_S}\n{text}");
        relabel(NAME_1, &scene.one, &[&time[..], &scene.two.sign(message.as_bytes())].concat())
    };
    let moved = {
        let other = text.replacen("\n40\n", "\n39\n", 1);
        CosignerKey::cosign(NAME_1, &other, TIME_S, &scene.one)
    };
    let of_another = CosignerKey::cosign(NAME_1, &text.replacen("_cluster", "acme", 1), TIME_S, &scene.one);
    let by_the_log = CosignerKey::cosign("provost/_cluster", &text, TIME_S, &scene.log_key);
    let unsigned_by_log = format!("{text}\n{one}{two}");
    let older = {
        let head = Checkpoint::parse_unchecked(&note).unwrap();
        Checkpoint { root: provost_audit_core::Hash([7; 32]), ..head }.sign(&scene.log_key)
    };
    let fork = {
        let text = SignedNote::parse(&older).unwrap().text.to_owned();
        format!(
            "{older}{}{}",
            CosignerKey::cosign(NAME_1, &text, TIME_S, &scene.one),
            CosignerKey::cosign(NAME_2, &text, TIME_S, &scene.two)
        )
    };
    let cases: Vec<(&str, String, &Path, Exit)> = vec![
        ("both cosigned", format!("{note}{one}{two}"), &both, Exit::Proven),
        ("one is enough", format!("{note}{two}"), &any, Exit::Proven),
        ("too few witnesses", format!("{note}{one}"), &both, Exit::Unanchored),
        ("duplicate witness", format!("{note}{one}{one}{one}"), &both, Exit::Unanchored),
        ("signatures stripped", note.clone(), &any, Exit::Unanchored),
        ("a plain signature of the witness's key", format!("{note}{plain}"), &any, Exit::Unanchored),
        ("the log cosigns itself", format!("{note}{by_the_log}"), &any, Exit::Unanchored),
        ("cross-protocol signature", format!("{note}{crossed}"), &any, Exit::Tampered),
        ("key-id collision", format!("{note}{collision}"), &any, Exit::Tampered),
        ("a cosignature of another checkpoint", format!("{note}{moved}"), &any, Exit::Tampered),
        ("a cosignature of another log", format!("{note}{of_another}"), &any, Exit::Tampered),
        ("a cut cosignature", format!("{note}{short}"), &any, Exit::Tampered),
        ("a line under another's name", format!("{note}{one}{}", two.replace(NAME_2, NAME_1)), &any, Exit::Proven),
        ("the log's signature stripped", unsigned_by_log, &any, Exit::Tampered),
        ("witnesses cosigned another history", fork, &both, Exit::Tampered),
    ];
    for (n, (what, cosigned, policy, exit)) in cases.into_iter().enumerate() {
        let report = scene.judge(&format!("case-{n}"), &cosigned, policy);
        let of_cluster = &report.logs[0];
        println!("{what:<44} {exit:?} {} {}", exit.code(), of_cluster.failure.as_ref().map_or("-", |f| &f.attack));
        // acme's log is noted nowhere here, so it stays unanchored.
        let expected = if exit == Exit::Proven { Exit::Unanchored } else { exit };
        assert_eq!(report.exit, expected, "{what}\n{report}");
        assert_eq!(of_cluster.anchored, (exit == Exit::Proven).then_some(40), "{what}\n{report}");
        if exit == Exit::Tampered {
            let failure = of_cluster.failure.as_ref().expect(what);
            let placed = failure.file.ends_with("cluster/checkpoint.cosigned") || what.contains("another history");
            assert!(placed, "{what}\n{report}");
        }
        let row = match what {
            "too few witnesses" => Some("too few witnesses"),
            "duplicate witness" => Some("duplicate witnesses"),
            "a cosignature of another log" => Some("witness: signature of another log"),
            _ => None,
        };
        if let Some(case) = row {
            let verdict = if exit == Exit::Tampered { "AUTHENTICITY failed" } else { "consistent, not proven" };
            common::matrix::row(case, verdict, &exit.code().to_string(), "cluster/checkpoint.cosigned");
        }
    }
}

#[test]
fn attack_policies() {
    let scene = scene();
    let cosigned = format!("{}{}", scene.note(), scene.line(NAME_1, &scene.one));
    // A key that was taken out of the policy counts for nothing.
    let log = VerifierKey { name: "provost/_cluster".to_owned(), public_key: scene.log_key.public_key() }.to_text();
    let policy = |name: &str, text: String| {
        let path = scene.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let two = Scene::vkey(NAME_2, &scene.two);
    let revoked = policy("revoked", format!("log {log}\nwitness w2 {two}\nquorum w2\n"));
    let report = scene.judge("revoked-key", &cosigned, &revoked);
    assert_eq!((report.exit, report.logs[0].anchored), (Exit::Unanchored, None), "{report}");

    // The policy's log key is the trusted one: a directory signed by another is forged.
    let other = CheckpointKey::open(&scene.dir.path().join("other.key")).unwrap();
    let other = VerifierKey { name: "provost/_cluster".to_owned(), public_key: other.public_key() }.to_text();
    let forged = policy("other-log-key", format!("log {other}\nwitness w2 {two}\nquorum w2\n"));
    let report = scene.judge("other-key", &cosigned, &forged);
    assert_eq!(report.exit, Exit::Tampered, "{report}");

    let audit = scene.dir.path().join("audit");
    let ask = |path: PathBuf| verify(&audit, &VerifyOptions { witness_policy: Some(path), ..VerifyOptions::default() });
    for (name, text, said) in [
        ("nobody", format!("log {log}\nquorum none\n"), "asks nobody"),
        ("elsewhere", format!("log {}\nwitness w2 {two}\nquorum w2\n", log_named("else/_cluster", &scene)), "none is"),
        ("not-a-policy", "hello\n".to_owned(), "line 1"),
    ] {
        let refused = ask(policy(name, text)).expect_err(name).to_string();
        assert!(refused.contains(said) && refused.starts_with("PV-AUDIT-USAGE"), "{name}: {refused}");
    }
    assert!(ask(scene.dir.path().join("absent")).is_err());
}

fn log_named(name: &str, scene: &Scene) -> String {
    VerifierKey { name: name.to_owned(), public_key: scene.log_key.public_key() }.to_text()
}
