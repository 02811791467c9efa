//! SIGKILL in the middle of writes: every acknowledged change is there after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use common::{admin, file, open};
use provost_control_api::ResourceFilter;

const FOLDER: &str = "PROVOST_TEST_KILL_FOLDER";
/// Changes acknowledged before each kill.
const BEFORE_KILL: usize = 15;

/// Not a test by itself: the process that is killed. Writes until the end, telling each name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let (node, _) = open(folder.as_ref()).await;
    for n in 0_u64.. {
        let own = format!("t{}-{n}", std::process::id());
        let text = format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{name: {own}}}\n");
        node.apply(&admin(), &[file("t.yaml", &text)], "", false).await.unwrap();
        let mut out = std::io::stderr().lock();
        writeln!(out, "ACK {own}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_writers_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = lines.map(|l| l.unwrap()).filter_map(|l| l.strip_prefix("ACK ").map(str::to_owned));
        acknowledged.extend(told.by_ref().take(BEFORE_KILL));
        child.kill().unwrap();
        acknowledged.extend(told);
        child.wait().unwrap();
    }
    assert!(acknowledged.len() >= 3 * BEFORE_KILL);
    let (node, _) = open(dir.path()).await;
    let (_, found) = node.get(&admin(), &ResourceFilter::default()).await.unwrap();
    let names: Vec<String> = found.iter().map(|r| r.metadata.name.to_string()).collect();
    for name in &acknowledged {
        assert!(names.contains(name), "{name} was acknowledged and is gone");
    }
    node.shutdown().await.unwrap();
}
