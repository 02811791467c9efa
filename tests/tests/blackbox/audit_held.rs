//! The control plane's copy of the audit log's checkpoints: an anchor, and what a rollback meets.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    files::copy,
    harness::{Dev, START_LIMIT, binary, text},
};

/// Patience with a copy that is made every few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the control plane holds, and the sum of the sizes in it.
fn held(dev: &Dev) -> (String, u64) {
    let printed = dev.cli(&["audit", "checkpoints"]);
    assert!(printed.status.success(), "{}", text(&printed));
    let notes = String::from_utf8(printed.stdout).unwrap();
    let sizes = notes.split("\n\n").filter_map(|part| part.trim_start().lines().nth(1)?.parse::<u64>().ok()).sum();
    (notes, sizes)
}

fn wait_for_more_than(dev: &Dev, least: u64) -> (String, u64) {
    let began = Instant::now();
    loop {
        let (notes, sizes) = held(dev);
        if sizes > least && notes.contains("/_cluster\n") {
            return (notes, sizes);
        }
        assert!(began.elapsed() < PATIENCE, "the control plane holds {sizes} records\n{notes}{}", dev.stderr());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_rollback_of_the_whole_audit_storage_meets_the_copy_in_the_control_plane() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let select = ["call", "sql.query", "--arg", "sql=SELECT count(*) AS n FROM customers"];
    let mut dev = Dev::start_in(&data, None, &[]);
    assert!(dev.cli(&select).status.success());
    let (_, first) = wait_for_more_than(&dev, 0);
    let json = dev.cli(&["audit", "checkpoints", "--json"]);
    let json = String::from_utf8(json.stdout).unwrap();
    for line in json.lines() {
        let one: serde_json::Value = serde_json::from_str(line).unwrap();
        let (log, size) = (one["log"].as_str().unwrap(), one["size"].as_u64().unwrap());
        assert!(one["note"].as_str().unwrap().starts_with(&format!("{log}\n{size}\n")), "{line}");
    }
    assert!(json.contains("/_cluster\""), "{json}");
    assert!(dev.terminate().1, "{}", dev.stderr());
    for part in ["audit", "audit-raft"] {
        copy(&data.join(part), &dir.path().join("old").join(part));
    }

    let mut dev = Dev::start_in(&data, None, &[]);
    for _ in 0..20 {
        assert!(dev.cli(&select).status.success());
    }
    let (notes, _) = wait_for_more_than(&dev, first + 40);
    assert!(dev.terminate().1, "{}", dev.stderr());
    let anchor = dir.path().join("anchor");
    fs::write(&anchor, notes).unwrap();
    let audit = data.join("audit");
    let args = ["audit", "verify", audit.to_str().unwrap(), "--against", anchor.to_str().unwrap()];
    let verify = dev.cli(&args);
    assert_eq!(verify.status.code(), Some(0), "{}", text(&verify));
    drop(dev);

    // Files and Raft log together, as a snapshot of their volume would have them.
    for part in ["audit", "audit-raft"] {
        fs::remove_dir_all(data.join(part)).unwrap();
        copy(&dir.path().join("old").join(part), &data.join(part));
    }
    let mut child = Command::new(binary("provost"))
        .args(["dev", "--http", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > START_LIMIT {
            child.kill().unwrap();
            panic!("it runs on a log that was rolled back");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = text(&child.wait_with_output().unwrap());
    assert!(!status.success() && said.contains("PV-AUDIT-ROLLED-BACK"), "{said}");
    assert!(said.contains("the control plane holds a checkpoint of"), "{said}");
    let refused = Command::new(binary("provost")).args(args).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
}

#[test]
fn a_new_key_takes_over_while_calls_run() {
    let mut dev = Dev::start(None, &[]);
    let select = ["call", "sql.query", "--arg", "sql=SELECT count(*) AS n FROM customers"];
    assert!(dev.cli(&select).status.success());
    let old = fs::read_to_string(dev.data.join("audit/cluster/audit.pub")).unwrap();
    let rotated = dev.cli(&["audit", "rotate-key"]);
    assert!(rotated.status.success(), "{}", text(&rotated));
    let new = String::from_utf8(rotated.stdout.clone()).unwrap();
    assert_ne!(old, new);
    assert!(text(&rotated).contains("the new key signs"), "{}", text(&rotated));
    assert!(dev.cli(&select).status.success());
    // The control plane's copy goes over to the new key too.
    let began = Instant::now();
    while !held(&dev).0.contains("/_cluster\n") {
        assert!(began.elapsed() < PATIENCE, "{}", dev.stderr());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(dev.terminate().1, "{}", dev.stderr());
    let audit = dev.data.join("audit");
    assert_eq!(fs::read_to_string(audit.join("cluster/audit.pub")).unwrap(), new);
    for key in [&old, &new] {
        let verify = dev.cli(&["audit", "verify", audit.to_str().unwrap(), "--key", key.trim()]);
        assert_eq!(verify.status.code(), Some(2), "{}", text(&verify));
    }
    assert!(!dev.data.join("keys/audit-checkpoint.key.next").exists());
}
