//! A node that has nothing to do. Alone in its process: threads are found by their names.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use provost_gpu_serve::{GpuConfig, GpuNode};

const THREADS: usize = 2;
/// The scheduler looks around several times in this time.
const A_WHILE: Duration = Duration::from_secs(1);

/// How often each of the threads that compute was put on a processor, or left one: their switches of both kinds.
fn switches() -> Vec<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
    let named =
        |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("gpu-compute"));
    let count = |task: PathBuf| -> u64 {
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        counts.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum()
    };
    let mut switches: Vec<u64> = tasks.filter(named).map(count).collect();
    switches.sort_unstable();
    switches
}

#[test]
fn threads_that_have_nothing_to_compute_sleep() {
    let node = GpuNode::start(GpuConfig { threads: THREADS, ..GpuConfig::default() }).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let before = switches();
        std::thread::sleep(A_WHILE);
        let after = switches();
        if before == after && after.len() == THREADS {
            break;
        }
        assert!(Instant::now() < deadline, "they wake up and go to sleep again: {before:?} {after:?}");
    }
    drop(node);
}
