//! Connections to an upstream are used again, whatever form its answers have.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::Response, serve::ListenerExt};
use bytes::Bytes;
use futures::stream;
use provost_types::Era;
use serde_json::{Value, json};

use crate::bench::*;

const CALLS: usize = 20;
/// Between an answer and the end of its stream: two packets.
const LATE: Duration = Duration::from_millis(3);

/// Answers calls with a stream of one event, whose end comes a moment after the answer.
async fn answer(request: axum::extract::Request) -> Response {
    let bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let message: Value = serde_json::from_slice(&bytes).unwrap();
    let result = match message["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
        "tools/list" => json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "private",
            "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}),
        _ => json!({"resultType": "complete", "content": []}),
    };
    let event = format!("data: {}\n\n", json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
    let events = stream::unfold(Some(event), |event| async {
        match event {
            Some(event) => Some((Ok::<_, Infallible>(Bytes::from(event)), None)),
            None => {
                tokio::time::sleep(LATE).await;
                None
            }
        }
    });
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(events)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_a_moment_after_its_answer_costs_no_connection() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = accepted.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let listener = listener.tap_io(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let router = axum::Router::new().fallback(answer);
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let plugin = plugin(http_spec(&url, Era::Modern));
    for _ in 0..CALLS {
        assert_eq!(body(&call(&plugin, "t", json!({})).await)["content"], json!([]));
        // The next call comes when the stream has surely ended; on a busy machine mostly.
        tokio::time::sleep(LATE * 10).await;
    }
    let connections = accepted.load(Ordering::SeqCst);
    // One for all; without reading the end each call takes one of its own.
    assert!(connections <= CALLS / 2, "{connections} connections for {CALLS} calls");
    serving.abort();
}
