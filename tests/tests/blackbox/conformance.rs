//! The official suite, through Provost, in both eras on both sides.

use crate::{
    harness::{Dev, Process, upstream_yaml},
    suite::run_suite,
};

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
