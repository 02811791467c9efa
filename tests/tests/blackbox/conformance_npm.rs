//! The official suite, through Provost, in front of a server on the official TypeScript SDK.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::{
    harness::{Dev, root, upstream_yaml},
    suite::run_suite,
};

/// The everything-server of `tests/upstream-npm`; it ends with its guard.
struct Upstream {
    child: Child,
    url: String,
}

impl Upstream {
    /// Starts it in one era. The first start on a machine installs the SDK.
    fn start(era: &str) -> Self {
        let script = root().join("tests/upstream-npm/run.sh");
        let mut child = Command::new("bash")
            .arg(&script)
            .args(["--era", era, "--http", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("listening ") else {
            let _ = child.kill();
            let status = child.wait();
            panic!("{} did not start ({status:?}), it said `{}`", script.display(), line.trim());
        };
        Self { url: url.to_owned(), child }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn conform(upstream_era: &str, requirements: &str) {
    let upstream = Upstream::start(upstream_era);
    let dev = Dev::start(Some(&upstream_yaml(&upstream.url)), &["--anonymous", "acme"]);
    let url = format!("{}/up", dev.mcp());
    if let Err(output) = run_suite(&url, requirements) {
        panic!("{requirements} in front of a {upstream_era} TypeScript upstream:\n{output}");
    }
}

/// Where this fails too, the fixture is at fault and not what stands before it.
fn conform_directly(era: &str, requirements: &str) {
    let upstream = Upstream::start(era);
    if let Err(output) = run_suite(&upstream.url, requirements) {
        panic!("{requirements} of the {era} TypeScript upstream itself:\n{output}");
    }
}

#[test]
fn conformance_npm_direct_modern() {
    conform_directly("modern", "2026-07-28");
}

#[test]
fn conformance_npm_direct_legacy() {
    conform_directly("legacy", "2025-11-25");
}

#[test]
fn conformance_npm_modern_client_modern_upstream() {
    conform("modern", "2026-07-28");
}

#[test]
fn conformance_npm_modern_client_legacy_upstream() {
    conform("legacy", "2026-07-28");
}

#[test]
fn conformance_npm_legacy_client_modern_upstream() {
    conform("modern", "2025-11-25");
}

#[test]
fn conformance_npm_legacy_client_legacy_upstream() {
    conform("legacy", "2025-11-25");
}
