//! A voter that lost its log must not come back under its id: it voted, and its vote is forgotten. It
//! could elect a leader that lacks what was acknowledged.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, Member},
    tool_calls::ToolCalls,
    workload::Scene,
};

/// The folder in a node's data directory that holds its vote and its log.
const RAFT_FOLDER: &str = "raft";
/// How deep to look for it.
const MAX_DEPTH: usize = 3;
/// What the refusal is called, in the node's log.
const REFUSALS: [&str; 2] = ["PV-RAFT-WIPED", "PV-CLUSTER-WIPED"];
/// How long the parent and the node may take to restart and refuse.
const REFUSAL_LIMIT: Duration = Duration::from_secs(30);
/// How long the refusal must hold: the parent tries again meanwhile.
const WATCHED: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_refuses_to_start_and_the_others_work_on() {
    let Some(cluster) = Cluster::start().await else { return };
    let scene = Scene::set(&cluster).await;
    let calls = ToolCalls::start(&cluster.place);
    scene.writable_everywhere(&cluster).await;
    let leader = cluster.leader().await;
    let victim = cluster.place.members().into_iter().find(|m| m.id != leader.id).unwrap();
    let kept = scene.write(leader.id, "reg-0", REFUSAL_LIMIT).await.unwrap();
    assert_eq!(refusal(&cluster, &victim), None, "it refuses before anything happened");
    // The parent must not restart it half wiped, and agents must not be paused with the parent.
    let before = calls.stop().await;
    cluster.pause_parent();
    cluster.kill(&victim);
    wait_for_end(&victim).await;
    let wiped = wipe(&victim.data_dir);
    cluster.resume_parent();
    assert!(!wiped.is_empty(), "{} holds no folder `{RAFT_FOLDER}`", victim.data_dir.display());
    let calls = ToolCalls::start(&cluster.place);

    let began = Instant::now();
    let code = loop {
        if let Some(code) = refusal(&cluster, &victim) {
            break code;
        }
        assert!(began.elapsed() < REFUSAL_LIMIT, "the wiped voter does not refuse to start");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    println!("wiped voter: {code} after {:?}", began.elapsed());
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        if let Ok(status) = scene.admin.status(victim.id).await {
            assert_eq!(status.role, "stopped", "the wiped voter takes part: {status:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // Two of three are a majority.
    for member in cluster.place.members().iter().filter(|m| m.id != victim.id) {
        assert_eq!(scene.read(member.id, "reg-0", REFUSAL_LIMIT).await.unwrap(), Some(kept));
        scene.write(member.id, "reg-1", REFUSAL_LIMIT).await.unwrap();
    }
    before.expect_no_failure();
    calls.stop().await.expect_no_failure();
}

/// The code by which a node refused, if it did.
fn refusal(cluster: &Cluster, member: &Member) -> Option<&'static str> {
    let log = cluster.log(member);
    REFUSALS.into_iter().find(|code| log.contains(code))
}

/// Waits until the process is gone or is a zombie that its paused parent has not seen yet.
async fn wait_for_end(member: &Member) {
    let began = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", member.pid)).unwrap_or_default();
        // The state follows the name, which is in parentheses.
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return;
        }
        assert!(began.elapsed() < REFUSAL_LIMIT, "process {} does not end", member.pid);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Removes every Raft folder below a node's data directory.
fn wipe(data_dir: &Path) -> Vec<PathBuf> {
    let mut wiped = Vec::new();
    let mut open = vec![(data_dir.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if !path.is_dir() {
                continue;
            }
            if entry.file_name() == RAFT_FOLDER {
                std::fs::remove_dir_all(&path).unwrap();
                wiped.push(path);
            } else if depth < MAX_DEPTH {
                open.push((path, depth + 1));
            }
        }
    }
    wiped
}
