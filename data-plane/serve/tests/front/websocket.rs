//! The bounds of a WebSocket, which are too long to wait for at their real length.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use provost_data_serve::SocketLimits;
use provost_types::{CallStatus, Phase};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    sockets::{Served, serve_world},
    world::{World, modern_request},
};

type Socket = WebSocketStream<TcpStream>;

async fn serve(limits: SocketLimits) -> Served {
    serve_world(World::with_sockets(limits)).await
}

async fn open(served: &Served) -> Socket {
    let mut request = format!("ws://{}/mcp", served.address).into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", HeaderValue::from_static("Bearer token-alice"));
    headers.insert("sec-websocket-protocol", HeaderValue::from_static("mcp"));
    let stream = TcpStream::connect(served.address).await.unwrap();
    client_async(request, stream).await.unwrap().0
}

async fn send(socket: &mut Socket, id: u64, tool: &str) {
    let (_, body) = modern_request("tools/call", json!({ "name": tool, "arguments": {} }));
    let mut message: Value = serde_json::from_str(&body).unwrap();
    message["id"] = json!(id);
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// Messages to the end, and the reason of the close frame.
async fn to_the_end(socket: &mut Socket) -> (Vec<Value>, u16, String) {
    let mut said = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("nothing comes");
        match next.expect("no close frame").expect("no close frame") {
            Message::Text(text) => said.push(serde_json::from_str(&text).unwrap()),
            Message::Close(Some(frame)) => return (said, frame.code.into(), frame.reason.to_string()),
            _ => {}
        }
    }
}

async fn answer(socket: &mut Socket) -> Value {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("nothing comes");
        if let Message::Text(text) = next.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_silent_is_let_go_and_its_calls_are_cancelled() {
    let ping_every = Duration::from_millis(50);
    let silence = Duration::from_secs(2);
    let served = serve(SocketLimits { ping_every, silence, ..SocketLimits::DEFAULT }).await;
    let mut socket = open(&served).await;
    send(&mut socket, 1, "wait").await;
    // A client that is not polled answers no pings.
    let outcome = served.wait_for(Phase::Outcome, "wait").await;
    assert_eq!(outcome.status, Some(CallStatus::Cancelled));
    let (_, code, reason) = to_the_end(&mut socket).await;
    assert!(code == 1008 && reason.starts_with("PV-WS-SILENT"), "{code} {reason}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_socket_is_closed_and_one_with_a_call_in_flight_is_not() {
    let ping_every = Duration::from_millis(50);
    let idle = Duration::from_secs(2);
    let served = serve(SocketLimits { ping_every, idle, ..SocketLimits::DEFAULT }).await;
    let mut busy = open(&served).await;
    send(&mut busy, 1, "gate").await;
    let mut bored = open(&served).await;
    let (said, code, reason) = to_the_end(&mut bored).await;
    assert!(said.is_empty() && code == 1000 && reason.starts_with("PV-WS-IDLE"), "{code} {reason}");
    // Well past its time the other one still gets its answer. Pongs go out while it is read.
    let plane = served.world.plane.clone();
    let opener = tokio::spawn(async move {
        tokio::time::sleep(idle * 2).await;
        while plane.recorded(Phase::Outcome, "gate").is_empty() {
            let _ = plane.changes.send("go");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let (said, code, reason) = to_the_end(&mut busy).await;
    assert!(said.iter().any(|m| m.to_string().contains("through")), "{said:?}");
    assert!(code == 1000 && reason.starts_with("PV-WS-IDLE"), "{code} {reason}");
    opener.await.unwrap();
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_notifications_loses_its_socket_and_no_record() {
    let served = serve(SocketLimits { max_queued_bytes: 256 * 1024, ..SocketLimits::DEFAULT }).await;
    let mut socket = open(&served).await;
    send(&mut socket, 1, "flood").await;
    // 200 events of 64 KiB were said; the call ended as if they had been read.
    let outcome = served.wait_for(Phase::Outcome, "flood").await;
    assert_eq!(outcome.status, Some(CallStatus::Ok));
    let (said, code, reason) = to_the_end(&mut socket).await;
    assert!(code == 1008 && reason.starts_with("PV-WS-SLOW-READER"), "{code} {reason}");
    assert!(said.len() < 20, "{} messages were kept", said.len());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_no_answers_is_not_read_from() {
    let limits =
        SocketLimits { max_queued_bytes: 64 * 1024, write_stall: Duration::from_millis(500), ..SocketLimits::DEFAULT };
    let served = serve(limits).await;
    let mut socket = open(&served).await;
    let (_, body) = modern_request("tools/call", json!({ "name": "echo", "arguments": { "t": "x".repeat(50_000) } }));
    let mut message: Value = serde_json::from_str(&body).unwrap();
    let mut sent = 0u32;
    let writing = async {
        // Until the node takes no more and lets go; what the kernel's buffers hold comes first.
        loop {
            sent += 1;
            message["id"] = json!(sent);
            if socket.send(Message::text(message.to_string())).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), writing).await.expect("a client that never reads is served for ever");
    let called = served.world.plane.recorded(Phase::Outcome, "echo").len();
    assert!(called > 0 && called <= sent as usize, "{called} of {sent}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_and_sockets_are_bounded() {
    let served = serve(SocketLimits { max_in_flight: 2, max_connections: 1, ..SocketLimits::DEFAULT }).await;
    let mut socket = open(&served).await;
    for id in [1, 2, 3] {
        send(&mut socket, id, "wait").await;
    }
    let refused = answer(&mut socket).await;
    assert_eq!((&refused["id"], &refused["error"]["data"]["code"]), (&json!(3), &json!("PV-MCP-SESSION-BUSY")));
    // Cancelling makes room, once the call has ended.
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    socket.send(Message::text(cancelled.to_string())).await.unwrap();
    served.wait_for(Phase::Outcome, "wait").await;
    let mut id = 10;
    let echoed = loop {
        send(&mut socket, id, "echo").await;
        let said = answer(&mut socket).await;
        if said["result"].is_object() {
            break said;
        }
        assert_eq!(said["error"]["data"]["code"], "PV-MCP-SESSION-BUSY", "{said}");
        id += 1;
    };
    assert_eq!(echoed["id"], id);

    let mut second = format!("ws://{}/mcp", served.address).into_client_request().unwrap();
    second.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mcp"));
    let stream = TcpStream::connect(served.address).await.unwrap();
    let refused = client_async(second, stream).await.expect_err("a second socket was opened").to_string();
    assert!(refused.contains("503"), "{refused}");
    socket.close(None).await.unwrap();
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bug_in_an_executor_is_an_answer_and_not_the_end_of_the_socket() {
    let served = serve(SocketLimits::DEFAULT).await;
    let mut socket = open(&served).await;
    send(&mut socket, 1, "panic").await;
    let said = answer(&mut socket).await;
    assert_eq!((&said["id"], &said["error"]["data"]["code"]), (&json!(1), &json!("PV-INTERNAL")), "{said}");
    send(&mut socket, 1, "echo").await;
    assert!(answer(&mut socket).await["result"].is_object());
    served.stop().await;
}
