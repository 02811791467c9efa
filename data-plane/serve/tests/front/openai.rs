//! The OpenAI-compatible endpoints.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use provost_data_serve::Peer;
use serde_json::json;

use crate::world::{Said, World, data_lines};

async fn post(world: &World, path: &str, headers: &[(&str, &str)], body: &str) -> Said {
    let mut all = vec![("content-type", "application/json"), ("authorization", "Bearer token-alice")];
    all.retain(|(name, _)| !headers.iter().any(|(n, _)| n == name));
    all.extend_from_slice(headers);
    world.send(Method::POST, path, &all, body.to_owned()).await
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn chat_whole_and_streamed() {
    let world = World::new();
    let whole = post(&world, CHAT, &[], r#"{"model":"tiny","messages":[]}"#).await;
    assert_eq!(whole.status, StatusCode::OK);
    assert_eq!(whole.json()["object"], json!("chat.completion"));
    assert!(whole.header("x-provost-audit").contains("\"log\":\"provost/acme\""));

    let streamed = post(&world, CHAT, &[], r#"{"model":"tiny","messages":[],"stream":true}"#).await;
    assert!(streamed.is_events());
    let lines = data_lines(&streamed.text);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2], "[DONE]");
    assert_eq!(streamed.events()[1]["choices"][0]["delta"]["content"], json!("lo"));
}

#[tokio::test]
async fn completions_are_chats_with_a_prompt() {
    let world = World::new();
    let whole = post(&world, COMPLETIONS, &[], r#"{"model":"tiny","prompt":"once"}"#).await;
    assert_eq!(whole.status, StatusCode::OK);
    assert!(post(&world, COMPLETIONS, &[], r#"{"model":"tiny","prompt":"once","stream":true}"#).await.is_events());
    let denied = post(&world, COMPLETIONS, &[], r#"{"model":"denied","prompt":"once"}"#).await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    for (path, body) in [
        (COMPLETIONS, r#"{"model":"tiny","messages":[]}"#),
        (COMPLETIONS, r#"{"model":"tiny","messages":[],"prompt":"once"}"#),
        (COMPLETIONS, r#"{"model":"tiny"}"#),
        (CHAT, r#"{"model":"tiny","prompt":"once"}"#),
    ] {
        let refused = post(&world, path, &[], body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert_eq!(refused.json()["error"]["code"], json!("PV-OPENAI-INVALID"));
    }
    let got = world.send(Method::GET, COMPLETIONS, &[("authorization", "Bearer token-alice")], "").await;
    assert_eq!((got.status, got.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
}

#[tokio::test]
async fn models() {
    let world = World::new();
    let all = world.send(Method::GET, "/v1/models", &[], "").await;
    assert_eq!(all.json()["data"][0]["id"], json!("tiny"));
    let one = world.send(Method::GET, "/v1/models/tiny", &[], "").await;
    assert_eq!(one.json()["id"], json!("tiny"));
    let none = world.send(Method::GET, "/v1/models/huge", &[], "").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn errors_in_openais_shape() {
    let world = World::new();
    let chat = |model: &str| format!(r#"{{"model":"{model}","messages":[],"stream":true}}"#);
    let table: Vec<(&str, Vec<(&str, &str)>, String, u16, &str)> = vec![
        (CHAT, vec![], "{".to_owned(), 400, "PV-OPENAI-INVALID"),
        (CHAT, vec![], r#"{"model":1}"#.to_owned(), 400, "PV-OPENAI-INVALID"),
        (CHAT, vec![], r#"{"model":"a","model":"b"}"#.to_owned(), 400, "PV-OPENAI-INVALID"),
        (CHAT, vec![("content-type", "text/plain")], chat("tiny"), 415, "PV-HTTP-CONTENT-TYPE"),
        (CHAT, vec![], format!("\"{}\"", "x".repeat(70_000)), 413, "PV-HTTP-BODY-TOO-LARGE"),
        (CHAT, vec![("authorization", "Bearer wrong")], chat("tiny"), 401, "PV-AUTH-UNKNOWN"),
        (CHAT, vec![], chat("absent"), 404, "PV-TARGET-UNKNOWN"),
        (CHAT, vec![], chat("denied"), 403, "PV-POLICY-DENIED"),
        (CHAT, vec![], chat("limited"), 429, "PV-QUOTA"),
        (CHAT, vec![], chat("limit unknown"), 503, "PV-QUOTA-UNREACHABLE"),
        ("/v1/embeddings", vec![], r#"{"model":"tiny","input":"x"}"#.to_owned(), 500, "PV-INTERNAL"),
        ("/v1/images/generations", vec![], chat("tiny"), 404, "PV-HTTP-NOT-FOUND"),
    ];
    for (path, headers, body, status, code) in table {
        let said = post(&world, path, &headers, &body).await;
        assert_eq!(said.status.as_u16(), status, "{code}: {}", said.text);
        assert_eq!(said.json()["error"]["code"], json!(code));
        assert!(said.json()["error"]["message"].is_string());
        assert!(!said.text.contains("secret"), "what has no code of ours stays inside");
    }
}

#[tokio::test]
async fn limits_stand_in_openais_headers() {
    let world = World::new();
    let table = [("limited", StatusCode::TOO_MANY_REQUESTS, "0"), ("counted", StatusCode::OK, "12")];
    for (model, status, remaining) in table {
        let said = post(&world, CHAT, &[], &format!(r#"{{"model":"{model}","messages":[]}}"#)).await;
        assert_eq!(said.status, status);
        assert_eq!(said.header("x-ratelimit-limit-requests"), "100");
        assert_eq!(said.header("x-ratelimit-remaining-requests"), remaining, "the limit that is nearest");
        assert_eq!(said.header("x-ratelimit-reset-requests"), "1m1s");
        assert_eq!(said.header("x-ratelimit-limit-tokens"), "");
    }
    let limited = post(&world, CHAT, &[], r#"{"model":"limited","messages":[]}"#).await;
    assert_eq!(limited.header("retry-after"), "2");
    assert_eq!(limited.json()["error"]["type"], json!("insufficient_quota"));
    assert_eq!(limited.json()["error"]["limit"]["code"], json!("PV-QUOTA"));
    let free = post(&world, CHAT, &[], r#"{"model":"tiny","messages":[]}"#).await;
    assert_eq!(free.header("x-ratelimit-limit-requests"), "");
}

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=b");

/// A form that begins and does not come to its end.
fn endless(world: &World) -> tokio::task::JoinHandle<StatusCode> {
    let front = world.front.clone();
    let request = Request::builder().method(Method::POST).uri(TRANSCRIPTIONS).header("host", "127.0.0.1:8420");
    let request = request.header("authorization", "Bearer token-alice").header(FORM.0, FORM.1);
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let request = request.body(body).unwrap();
    let peer = Peer { address: None, transport: "http", is_secure: false, certificate: None };
    tokio::spawn(async move { front.respond(request, peer).await.status() })
}

#[tokio::test]
async fn a_tenant_has_so_many_places_for_recordings_and_gets_them_back() {
    let world = World::new();
    let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny\r\n--b--\r\n";
    let held: Vec<_> = (0..12).map(|_| endless(&world)).collect();
    let mut refused = post(&world, TRANSCRIPTIONS, &[FORM], form).await;
    for _ in 0..1_000 {
        if refused.status == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        tokio::task::yield_now().await;
        refused = post(&world, TRANSCRIPTIONS, &[FORM], form).await;
    }
    assert_eq!(refused.json()["error"]["code"], json!("PV-SPEECH-BUSY"), "{}", refused.text);
    assert_eq!(refused.header("retry-after"), "1");
    for task in held {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    let said = post(&world, TRANSCRIPTIONS, &[FORM], form).await;
    assert_eq!((said.status, &said.json()["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("PV-OPENAI-INVALID")));
}

#[tokio::test]
async fn a_form_of_somebody_unknown_is_not_read_and_its_refusal_recorded() {
    let world = World::new();
    let said = post(&world, TRANSCRIPTIONS, &[FORM, ("authorization", "Bearer wrong")], "no form at all").await;
    assert_eq!((said.status, &said.json()["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!("PV-AUTH-UNKNOWN")));
    assert_eq!(world.plane.denied_with("PV-AUTH-UNKNOWN").await.what.method, "inference/transcribe");
    let known = post(&world, TRANSCRIPTIONS, &[FORM], "no form at all").await;
    assert_eq!(known.status, StatusCode::BAD_REQUEST, "{}", known.text);
    let other = post(&world, TRANSCRIPTIONS, &[], "{}").await;
    assert_eq!(other.json()["error"]["code"], json!("PV-HTTP-CONTENT-TYPE"));
}
