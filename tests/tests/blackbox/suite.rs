//! The official conformance suite, from npm.

use std::process::Command;

const SUITE: &str = "@modelcontextprotocol/conformance@0.2.0-alpha.12";

/// Whether there is anything to run it with.
#[allow(dead_code, reason = "one target insists, the other skips")]
pub(crate) fn is_installed() -> bool {
    Command::new("npx").arg("--version").output().is_ok_and(|output| output.status.success())
}

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
