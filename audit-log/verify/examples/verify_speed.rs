//! How fast a directory is verified: `verify_speed DIR [RUNS]`.
//!
//! Prints records a second for each run, and at the end the bytes that were read from files
//! and the largest resident size of the process.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool for measuring stops at the first surprise")]

use std::{path::PathBuf, time::Instant};

use provost_audit_verify::{VerifyOptions, verify};

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().expect("usage: verify_speed DIR [RUNS]"));
    let runs: u32 = args.next().map_or(3, |n| n.parse().expect("a number of runs"));
    for _ in 0..runs {
        let began = Instant::now();
        let report = verify(&dir, &VerifyOptions::default()).expect("a directory with logs");
        let seconds = began.elapsed().as_secs_f64();
        let records: u64 = report.logs.iter().map(|log| log.records).sum();
        let failure = report.logs.iter().find_map(|log| log.failure.as_ref());
        let place = failure.map(|f| format!(", record {} in {} at {}", f.index, f.file.display(), f.offset));
        println!(
            "{records} records in {seconds:.3} s: {:.0} records/s, exit {}{}",
            records as f64 / seconds,
            report.exit_code(),
            place.unwrap_or_default()
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap_or("unknown");
    println!("bytes read in all runs: {read}");
    println!("peak memory: {}", peak.unwrap_or("unknown").trim_start_matches("VmHWM:").trim());
}
