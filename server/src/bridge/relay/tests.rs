#![allow(clippy::unwrap_used, clippy::panic)]
use provost_client::{Endpoint, Options};
use provost_mcp::JsonLimits;
use serde_json::Value;

use super::*;

/// A relay to a port where nobody listens, with the client's ends.
async fn unreachable() -> (mpsc::Sender<Line>, mpsc::Receiver<Bytes>, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = Endpoint::parse(&format!("ws://127.0.0.1:{port}/mcp"), None).unwrap();
    let connector = Connector::new(endpoint, Options::default()).unwrap();
    let (lines, from_client) = mpsc::channel(8);
    let (to_client, answers) = mpsc::channel(8);
    let task = tokio::spawn(Relay::new(connector, from_client, to_client).run());
    (lines, answers, task)
}

fn line(text: &'static str) -> Line {
    Line::Message(Outgoing::parse(Bytes::from_static(text.as_bytes()), &JsonLimits::REQUEST).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_connection_only_so_long_and_a_cancelled_one_not_at_all() {
    let (lines, mut answers, task) = unreachable().await;
    lines.send(line(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#)).await.unwrap();
    lines.send(line(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#)).await.unwrap();
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    lines.send(line(cancel)).await.unwrap();
    let answer: Value = serde_json::from_slice(&answers.recv().await.unwrap()).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["data"]["code"]), (&2.into(), &"PV-BRIDGE-UNREACHABLE".into()));
    drop(lines);
    task.await.unwrap().unwrap();
    assert!(answers.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_client_ends_the_relay_without_a_connection() {
    let (lines, answers, task) = unreachable().await;
    drop((lines, answers));
    task.await.unwrap().unwrap();
}
