#![allow(clippy::unwrap_used, clippy::panic)]
use provost_client::{Endpoint, Options};
use provost_mcp::JsonLimits;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::*;

/// What a test holds of a relay: the client's lines, the answers to them, and its end.
type Relayed = (mpsc::Sender<Line>, mpsc::Receiver<Bytes>, tokio::task::JoinHandle<anyhow::Result<()>>);

/// A relay to a port of this machine, with the client's ends.
fn relay_to(port: u16) -> Relayed {
    let endpoint = Endpoint::parse(&format!("ws://127.0.0.1:{port}/mcp"), None).unwrap();
    let connector = Connector::new(endpoint, Options::default()).unwrap();
    let (lines, from_client) = mpsc::channel(8);
    let (to_client, answers) = mpsc::channel(8);
    let task = tokio::spawn(Relay::new(connector, from_client, to_client).run());
    (lines, answers, task)
}

/// A relay to a port where nobody listens.
fn unreachable() -> Relayed {
    relay_to(std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

fn line(text: &'static str) -> Line {
    Line::Message(Outgoing::parse(Bytes::from_static(text.as_bytes()), &JsonLimits::REQUEST).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_connection_only_so_long_and_a_cancelled_one_not_at_all() {
    let (lines, mut answers, task) = unreachable();
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
    let (lines, answers, task) = unreachable();
    drop((lines, answers));
    task.await.unwrap().unwrap();
}

/// A balancer with no node behind it, or one that is being started, takes connections and closes them.
#[tokio::test]
async fn a_request_waits_while_connections_are_closed_before_they_are_answered() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (lines, mut answers, task) = relay_to(listener.local_addr().unwrap().port());
    lines.send(line(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#)).await.unwrap();
    for _ in 0..3 {
        let (mut stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            answer = answers.recv() => panic!("it was refused: {answer:?}"),
        };
        // What is left unread would reset the connection, which is another error.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut head).await.unwrap() > 0, "the request for an upgrade broke off");
        }
    }
    drop((lines, answers));
    task.await.unwrap().unwrap();
}
