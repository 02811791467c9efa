//! Access tokens for upstreams: the plugin's own, and those given for a caller's.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::State, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use provost_data_pipeline::{Execution, Operation, Reply, SubjectToken};
use provost_data_tools::{ExecuteRequest, Plugin};
use provost_types::{
    EgressSpec, Era, HttpPlugin, OAuthClient, PluginSource, PluginSpec, PrincipalRef, SecretRef, UpstreamAuth,
};
use serde_json::{Value, json};

use crate::bench::*;

type Fields = HashMap<String, String>;

/// An authorization server and an upstream in one: the upstream takes what the server gave, and says who calls.
#[derive(Default)]
struct World {
    /// The forms of token requests, with their `authorization` header as the field `_basic`.
    asked: Mutex<Vec<Fields>>,
    /// Tokens that are good, and whose.
    good: Mutex<HashMap<String, String>>,
    /// The method and `authorization` of every request to the upstream.
    seen: Mutex<Vec<(String, String)>>,
    given: AtomicUsize,
    /// What to do with token requests instead of giving a token.
    refusal: Mutex<Option<(u16, String)>>,
    /// The issuer that the metadata names; empty: the right one.
    issuer: Mutex<String>,
    /// Whether the upstream refuses every token.
    closed: std::sync::atomic::AtomicBool,
}

struct Running {
    world: Arc<World>,
    base: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start() -> Running {
    let world: Arc<World> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(serve).with_state((world.clone(), base.clone()));
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Running { world, base, task }
}

fn reply(status: u16, body: String) -> Response {
    Response::builder().status(status).header("content-type", "application/json").body(Body::from(body)).unwrap()
}

async fn serve(State((world, base)): State<(Arc<World>, String)>, request: axum::extract::Request) -> Response {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get("authorization").map_or("", |v| v.to_str().unwrap()).to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    match path.as_str() {
        "/token" => {
            let mut fields: Fields = url::form_urlencoded::parse(&body).into_owned().collect();
            fields.insert("_basic".to_owned(), authorization);
            let whose = fields.get("subject_token").cloned().unwrap_or_else(|| "the plugin".to_owned());
            world.asked.lock().unwrap().push(fields);
            if let Some((status, body)) = world.refusal.lock().unwrap().clone() {
                return reply(status, body);
            }
            let token = format!("access-{}", world.given.fetch_add(1, Ordering::SeqCst));
            world.good.lock().unwrap().insert(format!("Bearer {token}"), whose);
            reply(200, json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).to_string())
        }
        "/.well-known/oauth-authorization-server/as" => {
            let named = world.issuer.lock().unwrap().clone();
            let issuer = if named.is_empty() { format!("{base}/as") } else { named };
            reply(200, json!({"issuer": issuer, "token_endpoint": format!("{base}/token")}).to_string())
        }
        "/mcp" => upstream(&world, &authorization, &serde_json::from_slice(&body).unwrap()),
        _ => reply(404, String::new()),
    }
}

fn upstream(world: &World, authorization: &str, message: &Value) -> Response {
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    world.seen.lock().unwrap().push((method.clone(), authorization.to_owned()));
    let Some(whose) = world.good.lock().unwrap().get(authorization).cloned() else { return reply(401, String::new()) };
    if world.closed.load(Ordering::SeqCst) {
        return reply(401, String::new());
    }
    let result = match method.as_str() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
        "tools/list" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}),
        _ => {
            json!({"resultType": "complete", "content": [{"type": "text", "text": format!("for {whose}, {authorization}")}]})
        }
    };
    reply(200, json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string())
}

fn client(base: &str) -> OAuthClient {
    OAuthClient {
        token_url: Some(format!("{base}/token")),
        client_id: "gate:way".to_owned(),
        client_secret: Some(SecretRef { secret: name("client"), prefix: String::new() }),
        scope: "tools:call".to_owned(),
        ..OAuthClient::default()
    }
}

fn with_auth(base: &str, auth: UpstreamAuth) -> PluginSpec {
    spec(PluginSource::McpHttp(HttpPlugin {
        url: format!("{base}/mcp"),
        auth: Some(Box::new(auth)),
        era: Era::Modern,
        ..HttpPlugin::default()
    }))
}

/// A call of `who`, who came with `subject`.
async fn call_as(plugin: &Plugin, who: &str, subject: Option<&str>) -> Execution {
    let (client, link) = (modern_client(), TestLink::default());
    let principal = PrincipalRef { tenant: name("acme"), name: name(who) };
    let subject = subject.map(SubjectToken::verified);
    let operation = Operation::CallTool("t".to_owned());
    let made = request(operation, json!({"name": "t"}), &client, &principal, Duration::from_secs(60));
    plugin.execute(&ExecuteRequest { subject: subject.as_ref(), ..made }, &link).await
}

#[tokio::test]
async fn the_plugins_own_token_is_asked_for_once_and_used_until_it_is_refused() {
    let running = start().await;
    let plugin = plugin(with_auth(&running.base, UpstreamAuth::ClientCredentials(client(&running.base))));
    let calls = (0..20).map(|_| call_as(&plugin, "ann", Some("callers-own-token")));
    for done in futures::future::join_all(calls).await {
        // The upstream repeats the token, and nobody sees it.
        assert_eq!(text(&done), "for the plugin, Bearer [redacted]");
    }
    let world = &running.world;
    let asked = world.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let expected = [
        ("grant_type", "client_credentials"),
        ("scope", "tools:call"),
        ("resource", &format!("{}/mcp", running.base)),
        ("_basic", &format!("Basic {}", BASE64_STANDARD.encode("gate%3Away:s3cret"))),
    ];
    for (field, value) in expected {
        assert_eq!(asked[0].get(field).map(String::as_str), Some(value), "{field}");
    }
    assert!(!format!("{:?} {asked:?}", world.seen.lock().unwrap()).contains("callers-own-token"), "passed through");
    // Revoked: the next call asks again, once, and is executed once.
    world.good.lock().unwrap().clear();
    let before = world.seen.lock().unwrap().len();
    assert_eq!(text(&call_as(&plugin, "ann", None).await), "for the plugin, Bearer [redacted]");
    assert_eq!(world.asked.lock().unwrap().len(), 2);
    assert_eq!(world.seen.lock().unwrap().len() - before, 2);
    // An upstream that takes none is asked twice, and not for ever.
    world.closed.store(true, Ordering::SeqCst);
    let before = world.seen.lock().unwrap().len();
    assert_eq!(pv_code(&call_as(&plugin, "ann", None).await), "PV-UPSTREAM-UNAUTHORIZED");
    assert_eq!((world.asked.lock().unwrap().len(), world.seen.lock().unwrap().len() - before), (3, 2));
}

#[tokio::test]
async fn each_caller_has_a_token_of_their_own() {
    let running = start().await;
    let plugin = plugin(with_auth(&running.base, UpstreamAuth::TokenExchange(client(&running.base))));
    let world = &running.world;
    assert_eq!(pv_code(&call_as(&plugin, "ann", None).await), "PV-UPSTREAM-NO-SUBJECT");
    assert!(world.seen.lock().unwrap().iter().all(|(method, _)| method != "tools/call"), "it was sent all the same");
    for (who, subject) in [("ann", "ann-1"), ("bob", "bob-1"), ("ann", "ann-1"), ("ann", "ann-2"), ("bob", "bob-1")] {
        let done = call_as(&plugin, who, Some(subject)).await;
        assert_eq!(text(&done), format!("for {subject}, Bearer [redacted]"), "{who}");
    }
    plugin.tools().await.unwrap();
    let exchanged = |fields: &Fields| fields.get("subject_token").cloned();
    let asked = world.asked.lock().unwrap().clone();
    let mut subjects: Vec<String> = asked.iter().filter_map(exchanged).collect();
    subjects.sort();
    assert_eq!(subjects, ["ann-1", "ann-2", "bob-1"], "one for each, however often they call");
    for fields in asked.iter().filter(|f| exchanged(f).is_some()) {
        assert_eq!(fields["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
        assert_eq!(fields["subject_token_type"], "urn:ietf:params:oauth:token-type:access_token");
        assert_eq!(fields["resource"], format!("{}/mcp", running.base));
    }
    let seen = world.seen.lock().unwrap().clone();
    assert!(!format!("{seen:?}").contains("ann-"), "a caller's token went upstream: {seen:?}");
    // One caller's token ends: theirs is asked for again, the other's is not.
    world.good.lock().unwrap().retain(|_, whose| whose != "ann-2");
    assert_eq!(text(&call_as(&plugin, "ann", Some("ann-2")).await), "for ann-2, Bearer [redacted]");
    assert_eq!(text(&call_as(&plugin, "bob", Some("bob-1")).await), "for bob-1, Bearer [redacted]");
    assert_eq!(world.asked.lock().unwrap().len(), asked.len() + 1);
}

#[tokio::test]
async fn an_issuer_is_believed_about_itself_only() {
    let running = start().await;
    let of_issuer =
        OAuthClient { token_url: None, issuer: Some(format!("{}/as", running.base)), ..client(&running.base) };
    let auth = UpstreamAuth::ClientCredentials(of_issuer);
    let good = plugin(with_auth(&running.base, auth.clone()));
    assert_eq!(text(&call_as(&good, "ann", None).await), "for the plugin, Bearer [redacted]");
    *running.world.issuer.lock().unwrap() = "https://other.example".to_owned();
    let mixed_up = plugin(with_auth(&running.base, auth.clone()));
    let before = running.world.asked.lock().unwrap().len();
    let done = call_as(&mixed_up, "ann", None).await;
    assert_eq!(pv_code(&done), "PV-UPSTREAM-TOKEN", "{done:?}");
    assert_eq!(running.world.asked.lock().unwrap().len(), before, "the client's secret was sent");
    // The plugin may name hosts, and then its authorization server is bound by that too.
    let PluginSource::McpHttp(mut http) = with_auth(&running.base, auth).source else { unreachable!() };
    http.egress =
        Some(Box::new(EgressSpec { allow_hosts: ["mcp.example.com".to_owned()].into(), ..EgressSpec::default() }));
    let done = call_as(&plugin(spec(PluginSource::McpHttp(http))), "ann", None).await;
    assert_eq!(pv_code(&done), "PV-UPSTREAM-ADDRESS-REFUSED");
}

#[tokio::test]
async fn a_token_endpoint_that_refuses_says_why_without_secrets() {
    let running = start().await;
    let table = [
        (
            400,
            json!({"error": "invalid_client", "error_description": "secret s3cret of gate:way is wrong"}).to_string(),
            "`invalid_client` secret [redacted] of gate:way is wrong",
        ),
        (500, "<h1>s3cret</h1>".to_owned(), "HTTP 500"),
        (200, "{}".to_owned(), "holds no token"),
        (200, json!({"access_token": "a b", "token_type": "Bearer"}).to_string(), "cannot be sent"),
        (200, json!({"access_token": "a", "token_type": "mac"}).to_string(), "no bearer token"),
        (302, String::new(), "HTTP 302"),
    ];
    for (status, body, expected) in table {
        *running.world.refusal.lock().unwrap() = Some((status, body));
        let plugin = plugin(with_auth(&running.base, UpstreamAuth::ClientCredentials(client(&running.base))));
        let done = call_as(&plugin, "ann", None).await;
        assert_eq!(pv_code(&done), "PV-UPSTREAM-TOKEN", "{done:?}");
        let Reply::Error(error) = &done.reply else { panic!("{done:?}") };
        assert!(error.message.contains(expected) && !error.message.contains("s3cret"), "{}", error.message);
    }
    // A server that hands the caller's token back would make us pass it through.
    let back = json!({"access_token": "ann-1", "token_type": "Bearer"}).to_string();
    *running.world.refusal.lock().unwrap() = None;
    let plugin = plugin(with_auth(&running.base, UpstreamAuth::TokenExchange(client(&running.base))));
    plugin.tools().await.unwrap();
    *running.world.refusal.lock().unwrap() = Some((200, back));
    assert_eq!(pv_code(&call_as(&plugin, "ann", Some("ann-1")).await), "PV-UPSTREAM-TOKEN");
    assert!(running.world.seen.lock().unwrap().iter().all(|(_, authorization)| !authorization.contains("ann-1")));
}
