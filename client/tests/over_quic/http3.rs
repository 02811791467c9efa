//! What HTTP/3 looks like, and its end.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::{Buf, Bytes};
use http::{Response, StatusCode};
use provost_client::{Client, Connector, EraChoice, Identity, NoHandler, Transport};
use provost_mcp::{Era, RawJson};
use serde_json::{Value, json};

use crate::{
    LIMIT,
    again::{Node, SCRIPTS, begun_once},
    server::Server,
};

type Connection = h3::server::Connection<h3_quinn::Connection, Bytes>;
type Stream = h3::server::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// Answers one request of HTTP/3 with events; returns its headers and body.
async fn serve_http3(server: &Server) -> (http::HeaderMap, Value) {
    let connection = h3_quinn::Connection::new(server.accept().await);
    let mut connection = h3::server::Connection::<_, Bytes>::new(connection).await.unwrap();
    let resolver = connection.accept().await.unwrap().unwrap();
    let (request, mut stream) = resolver.resolve_request().await.unwrap();
    let mut body = Vec::new();
    while let Some(mut data) = stream.recv_data().await.unwrap() {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let response = Response::builder().status(StatusCode::OK).header("content-type", "text/event-stream");
    stream.send_response(response.body(()).unwrap()).await.unwrap();
    let result = json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } });
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
    let events = format!(
        "data: {}\n\ndata: {answer}\n\n",
        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} })
    );
    stream.send_data(events.into()).await.unwrap();
    stream.finish().await.unwrap();
    // Until the client closes.
    let _ = tokio::time::timeout(LIMIT, connection.accept()).await;
    (request.headers().clone(), asked)
}

#[tokio::test]
async fn http3_is_streamable_http() {
    let server = Server::new(b"h3");
    let connector = server.connector(&format!("https://127.0.0.1:{}/mcp", server.port()), Transport::Http3);
    let serving = tokio::spawn(async move { serve_http3(&server).await });
    let identity = Identity { name: "test", version: "1", capabilities: RawJson::EMPTY_OBJECT };
    let client = Client::connect(&connector, identity, Arc::new(NoHandler), EraChoice::Auto).await.unwrap();
    assert_eq!(client.facts().era, Era::Modern);
    drop(client);
    let (headers, asked) = tokio::time::timeout(LIMIT, serving).await.unwrap().unwrap();
    assert_eq!(headers["authorization"], "Bearer pv_secret");
    assert_eq!(headers["mcp-method"], "server/discover");
    assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
    assert_eq!(asked["method"], "server/discover");
}

async fn ask(connection: &mut Connection) -> Option<(Value, Stream)> {
    let (_, mut stream) = connection.accept().await.ok()??.resolve_request().await.unwrap();
    let mut body = Vec::new();
    while let Some(mut data) = stream.recv_data().await.unwrap() {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    Some((serde_json::from_slice(&body).unwrap(), stream))
}

async fn answer(stream: &mut Stream, id: &Value, result: Value) {
    let response = Response::builder().status(StatusCode::OK).header("content-type", "application/json");
    stream.send_response(response.body(()).unwrap()).await.unwrap();
    let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result });
    stream.send_data(answer.to_string().into()).await.unwrap();
    stream.finish().await.unwrap();
}

/// One connection for each of these, one after the other; counts the calls that were taken.
fn nodes(script: &'static [Node]) -> (Connector, Arc<AtomicUsize>) {
    let server = Server::new(b"h3");
    let connector = server.connector(&format!("https://127.0.0.1:{}/mcp", server.port()), Transport::Http3);
    let taken = Arc::<AtomicUsize>::default();
    let counted = taken.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for node in script {
            let quic = server.accept().await;
            let mut connection = Connection::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
            while let Some((asked, mut stream)) = ask(&mut connection).await {
                if asked["method"] == "server/discover" {
                    let result = json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} });
                    answer(&mut stream, &asked["id"], result).await;
                    continue;
                }
                match node {
                    Node::Refuses => {
                        stream.stop_stream(h3::error::Code::H3_REQUEST_REJECTED);
                        break;
                    }
                    Node::Leaves => {
                        quic.close(0x100_u32.into(), b"PV-QUIC-DRAINING: the node shuts down");
                        break;
                    }
                    Node::Fails => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        quic.close(0x100_u32.into(), b"");
                        break;
                    }
                    Node::Answers => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        answer(&mut stream, &asked["id"], json!({ "n": 1 })).await;
                    }
                    Node::AnswersAndLeaves => panic!("h3 does not say when an answer has arrived"),
                }
            }
            kept.push(connection);
        }
        std::future::pending::<()>().await;
    });
    (connector, taken)
}

#[tokio::test]
async fn what_a_node_that_goes_has_not_begun_is_sent_again_over_http3_and_nothing_else_is() {
    for (script, is_answered) in SCRIPTS {
        begun_once(nodes(script), script, is_answered).await;
    }
}
