//! Attacks on the real binary. Each test is a table of one surface, and prints each case with what became of it.

mod deputy;
mod handles;
mod payloads;
mod slow;
mod smuggling;
mod ssrf;
mod upstream;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Dev, modern, post, until};

/// The longest wait for an answer on a socket.
const PATIENCE: Duration = Duration::from_secs(90);

/// Prints one line of a table.
fn verdict(surface: &str, case: &str, became: &str) {
    println!("{surface:10} | {case:58} | {became}");
}

/// `HOST:PORT` of the MCP endpoint.
fn address(dev: &Dev) -> String {
    dev.base().trim_start_matches("http://").to_owned()
}

/// A socket to the MCP endpoint.
fn socket(dev: &Dev) -> TcpStream {
    let stream = TcpStream::connect(address(dev)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes as they are and reads until the server closes, or says nothing more for a moment.
fn raw(dev: &Dev, bytes: &[u8]) -> String {
    let mut stream = socket(dev);
    // The server may refuse before it has read all.
    let _ = stream.write_all(bytes);
    read_some(&mut stream)
}

/// What comes until the connection ends or is quiet after it has said something.
fn read_some(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        said.extend_from_slice(&buffer[..n]);
        // All of an answer comes at once; what would follow a smuggled request comes soon.
        stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The statuses of the answers in what a socket said.
fn statuses(said: &str) -> Vec<u16> {
    said.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// A call that has to work whatever was sent before.
fn still_serves(dev: &Dev) {
    let (status, answer) = post(dev.mcp(), dev.token(), &modern("tools/list", json!({})));
    assert!(status == 200 && answer["result"]["tools"].is_array(), "it no longer serves: {status} {answer}");
}

/// A new token of a principal.
fn token_of(dev: &Dev, tenant: &str, principal: &str) -> String {
    let made = dev.cli(&["token", "create", "--tenant", tenant, "--principal", principal, "--json"]);
    let made: Value =
        serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{}", crate::harness::text(&made)));
    let token = made["token"].as_str().unwrap().to_owned();
    until(|| (post(dev.mcp(), &token, &modern("tools/list", json!({}))).0 == 200).then_some(()));
    token
}

/// Applies documents; what the command said, and whether it took them.
fn apply(dev: &Dev, yaml: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("attack.yaml");
    std::fs::write(&path, yaml).unwrap();
    let output = dev.cli(&["apply", "-f", path.to_str().unwrap()]);
    (output.status.success(), crate::harness::text(&output))
}

/// A tenant with an agent `bot`, who may use everything of it.
fn tenant(name: &str) -> String {
    crate::harness::upstream_yaml("http://127.0.0.1:9/mcp")
        .split("---\n")
        .filter(|document| !document.contains("kind: Plugin"))
        .map(|document| {
            document.replace("name: acme", &format!("name: {name}")).replace("tenant: acme", &format!("tenant: {name}"))
        })
        .collect::<Vec<_>>()
        .join("---\n")
}
