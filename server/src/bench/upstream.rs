//! `provost bench upstream` (hidden): the smallest MCP server that a gateway can stand in front of.
//!
//! It answers `echo` of both eras over HTTP/1.1 with one JSON message and keeps nothing. It is what `provost bench
//! suite` calls directly and through everything else, unless `--upstream` names another server: being light, it makes
//! what a gateway adds as visible as it can be. Left out: sessions, streams, cancellation, everything but tools.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

/// The longest request that is read.
const MAX_BODY_BYTES: usize = 8 << 20;
/// The tool that is called.
pub const TOOL: &str = "echo";
/// More tools than this are no list.
const MAX_TOOLS: u32 = 4_096;

/// What `provost bench upstream` is told.
#[derive(Args)]
pub struct UpstreamArgs {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Further tools in its list, which do the same.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_TOOLS)))]
    more_tools: u32,
}

/// The members of a request that are looked at.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
    #[serde(default)]
    params: Params,
}

#[derive(Default, Deserialize)]
struct Params {
    #[serde(default)]
    arguments: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    text: String,
}

/// Serves until stdin closes; the first line on stdout is the URL.
pub async fn run(args: UpstreamArgs) -> anyhow::Result<()> {
    let taken = || format!("PV-BENCH-START: the upstream cannot listen on {}", args.http);
    let listener = TcpListener::bind(args.http).await.with_context(taken)?;
    let address = listener.local_addr().with_context(taken)?;
    // Made once: they are long.
    let tools: &'static str = Box::leak(tool_list(args.more_tools).to_string().into_boxed_str());
    print_url(address);
    tokio::select! {
        () = accept(listener, tools) => Ok(()),
        () = parent_ended() => Ok(()),
    }
}

#[allow(clippy::print_stdout, reason = "the URL is the command's output")]
fn print_url(address: SocketAddr) {
    println!("http://{address}/mcp");
}

/// Resolves when whoever started this is gone.
async fn parent_ended() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    while matches!(stdin.read(&mut buffer).await, Ok(read) if read > 0) {}
}

async fn accept(listener: TcpListener, tools: &'static str) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, tools))),
            // Out of files, or the client has gone again: the next may work.
            Err(cause) => {
                tracing::warn!(%cause, "a connection was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, tools: &'static str) {
    // Small answers leave at once: with Nagle's algorithm each would wait for a delayed ACK.
    let _ = stream.set_nodelay(true);
    let service =
        service_fn(move |request: Request<Incoming>| async move { Ok::<_, Infallible>(respond(request, tools).await) });
    // A client that breaks off is none of our business.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(request: Request<Incoming>, tools: &str) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        return empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await else {
        return empty(StatusCode::BAD_REQUEST);
    };
    match answer(&body.to_bytes(), tools) {
        Some(text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        None => empty(StatusCode::ACCEPTED),
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// The answer to a message; `None`: it wants none.
fn answer(message: &[u8], tools: &str) -> Option<String> {
    let Ok(asked) = serde_json::from_slice::<Asked<'_>>(message) else {
        return Some(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not understood"}}"#.to_owned());
    };
    let id = asked.id?.get();
    let result = match asked.method {
        "tools/call" => called(&asked.params.arguments.text),
        "tools/list" => {
            format!(r#"{{"resultType":"complete","ttlMs":60000,"cacheScope":"public","tools":{tools}}}"#)
        }
        "server/discover" => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "ttlMs": 60_000, "cacheScope": "public",
            "_meta": {"io.modelcontextprotocol/serverInfo": server_info()},
        })
        .to_string(),
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server_info(),
        })
        .to_string(),
        "ping" => "{}".to_owned(),
        _ => {
            return Some(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"there is no such method"}}}}"#
            ));
        }
    };
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

fn called(text: &str) -> String {
    let text = Value::from(text);
    format!(r#"{{"resultType":"complete","content":[{{"type":"text","text":{text}}}]}}"#)
}

fn server_info() -> Value {
    json!({ "name": "provost-bench-upstream", "version": env!("CARGO_PKG_VERSION") })
}

fn tool_list(more: u32) -> Value {
    let tool = |name: String| {
        json!({
            "name": name, "description": "Says what it is told.",
            "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        })
    };
    std::iter::once(TOOL.to_owned()).chain((0..more).map(|n| format!("more_{n:05}"))).map(tool).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str) -> Option<Value> {
        let tools = tool_list(2).to_string();
        answer(message.as_bytes(), &tools).map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn it_answers_both_eras_under_the_id_that_was_sent() {
        let call = said(
            r#"{"jsonrpc":"2.0","id":"a\"b","method":"tools/call","params":{"name":"echo","arguments":{"text":"\"<&"}}}"#,
        )
        .unwrap();
        assert_eq!((&call["id"], &call["result"]["content"][0]["text"]), (&json!("a\"b"), &json!("\"<&")));
        let list = said(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{}}}"#).unwrap();
        let names: Vec<_> = list["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
        assert_eq!(names, [json!("echo"), json!("more_00000"), json!("more_00001")]);
        let discovered = said(r#"{"jsonrpc":"2.0","id":2,"method":"server/discover"}"#).unwrap();
        assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));
        let ready = said(r#"{"jsonrpc":"2.0","id":3,"method":"initialize","params":{}}"#).unwrap();
        assert_eq!(ready["result"]["protocolVersion"], "2025-11-25");
    }

    #[test]
    fn what_wants_no_answer_gets_none_and_what_is_none_of_it_an_error() {
        assert_eq!(said(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), None);
        let unknown = said(r#"{"jsonrpc":"2.0","id":4,"method":"resources/list"}"#).unwrap();
        assert_eq!(unknown["error"]["code"], -32601);
        assert_eq!(said("{oops").unwrap()["error"]["code"], -32700);
    }
}
