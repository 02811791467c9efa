//! Foreign clients: the official Python and TypeScript SDKs list, call, stream, cancel and elicit.

use std::process::Command;

use crate::harness::{Dev, Process, root, upstream_yaml};

fn run_client(script: &str, upstream_era: &str) {
    run_client_over("mcp", script, upstream_era);
}

/// `address`: which address of `dev.json` the client talks to.
fn run_client_over(address: &str, script: &str, upstream_era: &str) {
    run_client_with(address, script, upstream_era, &[]);
}

/// The same with more variables in the client's environment.
pub fn run_client_with(address: &str, script: &str, upstream_era: &str, env: &[(&str, &str)]) {
    let upstream = Process::everything(upstream_era);
    let dev = Dev::start(Some(&upstream_yaml(&upstream.url)), &[]);
    let address = dev.info[address].as_str().unwrap();
    let url = if address.contains("://") { format!("{address}/up") } else { format!("quic://{address}/mcp/up") };
    let output = Command::new("bash")
        .arg(root().join("tests/clients/run.sh"))
        .arg(script)
        .env("URL", url)
        .env("TOKEN", dev.token())
        .env("CA", dev.info["ca"].as_str().unwrap())
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} against a {upstream_era} upstream:\n{text}");
    println!("{text}");
}

#[test]
fn python_sdk_legacy_upstream() {
    run_client("python", "legacy");
}

#[test]
fn python_sdk_modern_upstream() {
    run_client("python", "modern");
}

#[test]
fn python_sdk_over_a_websocket() {
    for upstream_era in ["legacy", "modern"] {
        run_client_over("ws", "python", upstream_era);
    }
}

#[test]
fn python_sdk_over_quic() {
    for upstream_era in ["legacy", "modern"] {
        run_client_over("quic", "python", upstream_era);
    }
}

#[test]
fn aioquic_over_http3() {
    for upstream_era in ["legacy", "modern"] {
        run_client_over("h3", "h3", upstream_era);
    }
}

#[test]
fn typescript_sdk_legacy_upstream() {
    run_client("typescript", "legacy");
}

#[test]
fn typescript_sdk_modern_upstream() {
    run_client("typescript", "modern");
}
