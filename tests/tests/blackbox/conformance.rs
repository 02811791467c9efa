//! The official suite, through Provost, in both eras on both sides.

use std::process::Command;

use crate::harness::{Dev, Process, upstream_yaml};

const SUITE: &str = "@modelcontextprotocol/conformance@0.2.0-alpha.12";

/// Runs the scored scenarios of one revision and returns the output of a failed run.
pub(crate) fn run_suite(url: &str, requirements: &str) -> Result<(), String> {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new("npx")
        .args(["-y", "-p", "node@22", "-p", SUITE, "conformance", "server", "--url", url])
        .args(["--requirements", requirements, "-o"])
        .arg(out.path())
        .current_dir(out.path())
        .output()
        .map_err(|cause| format!("npx cannot be started: {cause}; install nodejs and npm"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        println!("{}", text.lines().rev().take(12).collect::<Vec<_>>().join("\n"));
        return Ok(());
    }
    Err(format!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn conform(upstream_era: &str, requirements: &str) {
    let upstream = Process::everything(upstream_era);
    let dev = Dev::start(Some(&upstream_yaml(&upstream.url)), &["--anonymous", "acme"]);
    let url = format!("{}/up", dev.mcp());
    if let Err(output) = run_suite(&url, requirements) {
        panic!("{requirements} in front of a {upstream_era} upstream:\n{output}");
    }
}

#[test]
fn conformance_modern_client_modern_upstream() {
    conform("modern", "2026-07-28");
}

#[test]
fn conformance_modern_client_legacy_upstream() {
    conform("legacy", "2026-07-28");
}

#[test]
fn conformance_legacy_client_modern_upstream() {
    conform("modern", "2025-11-25");
}

#[test]
fn conformance_legacy_client_legacy_upstream() {
    conform("legacy", "2025-11-25");
}
