//! Services with an OpenAPI document: what is sent, what comes back, and what is never sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, extract::State, response::Response};
use provost_data_pipeline::{Operation, Reply};
use provost_data_tools::{Limits, Plugin};
use provost_mcp::RawJson;
use provost_types::{CallStatus, OpenApiPlugin, PluginSource, SecretRef};
use serde_json::{Map, Value, json};

use crate::bench::*;

/// What every secret of [`toolbox`] is.
const SECRET: &str = "s3cret";

/// What a request was.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

struct Service {
    base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    document: Arc<Mutex<Value>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = (Arc<Mutex<Vec<Seen>>>, Arc<Mutex<Value>>);

impl Service {
    async fn start() -> Self {
        let (seen, document) = (Arc::default(), Arc::new(Mutex::new(document())));
        let router = axum::Router::new().fallback(serve).with_state((Arc::clone(&seen), document.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, seen, document, task }
    }

    fn plugin(&self) -> Arc<Plugin> {
        plugin(spec(PluginSource::OpenApi(Box::new(self.source()))))
    }

    fn source(&self) -> OpenApiPlugin {
        let secret = |prefix: &str| SecretRef { secret: name("api"), prefix: prefix.to_owned() };
        let Value::Object(document) = document() else { unreachable!() };
        OpenApiPlugin {
            document: Some(document),
            server: Some(format!("{}/v1", self.base)),
            headers: BTreeMap::from([("x-client".to_owned(), "gateway".to_owned())]),
            secret_headers: BTreeMap::from([("authorization".to_owned(), secret("Bearer "))]),
            secret_query: BTreeMap::from([("key".to_owned(), secret(""))]),
            ..OpenApiPlugin::default()
        }
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn serve(State((seen, document)): State<Shared>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
    let headers: BTreeMap<String, String> = parts
        .headers
        .iter()
        .map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect();
    let said = headers.get("authorization").cloned().unwrap_or_default();
    seen.lock().unwrap().push(Seen {
        line: format!("{} {}", parts.method, parts.uri),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let reply = |status: u16, kind: &str, body: String| {
        Response::builder().status(status).header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let json_of = |value: Value| reply(200, "application/json", value.to_string());
    let page = query.split('&').find_map(|p| p.strip_prefix("page=")).and_then(|p| p.parse::<u32>().ok()).unwrap_or(1);
    match path.as_str() {
        "/document" => json_of(document.lock().unwrap().clone()),
        "/v1/items" if parts.method == "GET" => {
            let mut response = json_of(json!([{"n": page}]));
            if page < 5 {
                // As it came, with what the gateway gave.
                let next = format!(
                    "</v1/items?{}&page={}>; rel=\"next\"",
                    query.replace(&format!("page={page}"), "x=1"),
                    page + 1
                );
                response.headers_mut().insert("link", next.parse().unwrap());
            }
            response
        }
        "/v1/status/429" => {
            let mut response = reply(429, "text/plain", "slow down".to_owned());
            response.headers_mut().insert("retry-after", "7".parse().unwrap());
            response
        }
        "/v1/status/302" => {
            let mut response = reply(302, "text/plain", String::new());
            response.headers_mut().insert("location", "/v1/items".parse().unwrap());
            response
        }
        "/v1/status/204" => Response::builder().status(204).body(Body::empty()).unwrap(),
        "/v1/status/409" => {
            let problem = json!({"title": "Taken", "detail": format!("{said} is not wanted"), "status": 409});
            reply(409, "application/problem+json", problem.to_string())
        }
        path if path.starts_with("/v1/status/") => {
            reply(path.rsplit('/').next().unwrap().parse().unwrap(), "text/plain", format!("said {said}"))
        }
        "/v1/slow" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            json_of(json!({}))
        }
        "/v1/large" => json_of(json!("x".repeat(5 << 20))),
        "/v1/picture" => reply(200, "image/png", "\u{89}PNG".to_owned()),
        _ => json_of(json!({"line": format!("{} {}", parts.method, path), "said": said})),
    }
}

fn document() -> Value {
    let path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let answer = |schema: Value| json!({"200": {"content": {"application/json": {"schema": schema}}}});
    let item = json!({"type": "object", "required": ["title"], "properties": {
        "title": {"type": "string"}, "size": {"type": "integer", "exclusiveMinimum": true, "minimum": 0}}});
    let body = |kind: &str| json!({"required": true, "content": {kind: {"schema": item}}});
    let simple = |id: &str| json!({"get": {"operationId": id}});
    json!({"openapi": "3.0.3", "info": {"title": "items", "version": "1"}, "paths": {
        "/items": {
            "get": {"operationId": "listItems", "responses": answer(json!({"type": "array", "items": item}))},
            "post": {"operationId": "createItem", "requestBody": body("application/json"), "responses": {}},
        },
        "/items/{id}": {
            "parameters": [path("id")],
            "get": {"operationId": "getItem", "parameters": [
                {"name": "fields", "in": "query", "explode": false, "schema": {"type": "array", "items": {"type": "string"}}},
                {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
            ]},
            "put": {"operationId": "replaceItem", "requestBody": body("application/x-www-form-urlencoded")},
            "delete": {"operationId": "deleteItem"},
        },
        "/status/{code}": {"parameters": [path("code")], "get": {"operationId": "status"}},
        "/slow": simple("slow"), "/large": simple("large"), "/picture": simple("picture"),
        "/upload": {"post": {"operationId": "upload", "requestBody": body("multipart/form-data")}},
    }})
}

#[tokio::test]
async fn a_call_is_the_request_that_the_document_describes() {
    let service = Service::start().await;
    let plugin = service.plugin();
    let tools = plugin.tools().await.unwrap();
    let names: Vec<&str> = tools.iter().map(|t| t.name.as_str()).collect();
    let expect =
        ["listItems", "createItem", "getItem", "replaceItem", "deleteItem", "large", "picture", "slow", "status"];
    assert_eq!(names, expect, "without the upload");
    for (tool, arguments, line, sent) in [
        (
            "getItem",
            json!({"id": "a/b c", "fields": ["x", "y&z"], "X-Trace": "t"}),
            "GET /v1/items/a%2Fb%20c?fields=x,y%26z&key=s3cret",
            "",
        ),
        ("createItem", json!({"body": {"title": "t"}}), "POST /v1/items?key=s3cret", r#"{"title":"t"}"#),
        (
            "replaceItem",
            json!({"id": "1", "body": {"title": "a&b", "size": 2}}),
            "PUT /v1/items/1?key=s3cret",
            "size=2&title=a%26b",
        ),
        ("deleteItem", json!({"id": "1"}), "DELETE /v1/items/1?key=s3cret", ""),
    ] {
        let done = call(&plugin, tool, arguments).await;
        assert_eq!(done.status, CallStatus::Ok, "{tool}: {done:?}");
        let seen = service.last();
        let mut members: Vec<&str> = seen.body.split('&').collect();
        members.sort_unstable();
        assert_eq!((seen.line.as_str(), members.join("&").as_str()), (line, sent), "{tool}");
        assert_eq!(seen.headers["authorization"], "Bearer s3cret");
        assert_eq!(seen.headers["x-client"], "gateway");
        assert!(!body(&done).to_string().contains(SECRET), "{tool} shows the secret: {}", body(&done));
    }
    let seen = |tool: &str, line: &str| {
        service.seen.lock().unwrap().iter().any(|s| s.line.contains(line) && s.headers.contains_key(tool))
    };
    assert!(seen("x-trace", "GET /v1/items/a"));
    assert!(!service.last().headers.contains_key("content-type"));
}

#[tokio::test]
async fn what_may_not_be_sent_is_not() {
    let service = Service::start().await;
    let plugin = service.plugin();
    for (tool, arguments) in [
        ("getItem", json!({"id": ".."})),
        ("getItem", json!({"id": "../../admin"})),
        ("deleteItem", json!({"id": ""})),
        ("deleteItem", json!({})),
        ("getItem", json!({"id": "1", "X-Trace": "a\r\nx-admin: 1"})),
    ] {
        let done = call(&plugin, tool, arguments.clone()).await;
        assert_eq!(pv_code(&done), "PV-OPENAPI-ARGUMENT", "{tool} {arguments}");
    }
    let problem = plugin.validate("createItem", &RawJson::from(json!({"body": {"title": "t", "size": 0}})));
    assert!(problem.unwrap_err().0.contains("/body/size"));
    assert!(plugin.validate("createItem", &RawJson::from(json!({"body": {"title": "t", "size": 1}}))).is_ok());
    assert_eq!(pv_code(&call(&plugin, "upload", json!({})).await), "none");
    assert_eq!(service.count(), 0);
}

#[tokio::test]
async fn answers_say_what_the_service_said() {
    let service = Service::start().await;
    let plugin = service.plugin();
    let status = async |code: &str| call(&plugin, "status", json!({"code": code})).await;
    let conflict = status("409").await;
    assert_eq!(conflict.status, CallStatus::ToolError);
    assert!(
        text(&conflict).starts_with("HTTP 409 Conflict. Taken: Bearer [redacted] is not wanted"),
        "{}",
        text(&conflict)
    );
    assert_eq!(text(&status("204").await), "HTTP 204, without content");
    for (code, expect) in [
        ("401", "PV-UPSTREAM-UNAUTHORIZED"),
        ("403", "PV-UPSTREAM-UNAUTHORIZED"),
        ("429", "PV-UPSTREAM-BUSY"),
        ("302", "PV-UPSTREAM-HTTP"),
        ("500", "PV-UPSTREAM-HTTP"),
    ] {
        let done = status(code).await;
        assert_eq!(pv_code(&done), expect, "{code}");
        assert!(!format!("{done:?}").contains(SECRET), "{code}: {done:?}");
    }
    let Reply::Error(busy) = status("429").await.reply else { panic!("429 is an error") };
    let data: Value = busy.data.unwrap().parse().unwrap();
    assert_eq!(data["retryAfterMs"], 7_000, "when to come again");
    assert_eq!(pv_code(&call(&plugin, "large", json!({})).await), "PV-UPSTREAM-TOO-LARGE");
    assert_eq!(body(&call(&plugin, "picture", json!({})).await)["content"][0]["mimeType"], "image/png");
}

#[tokio::test]
async fn pages_are_got_when_they_are_asked_for() {
    let service = Service::start().await;
    let plugin = service.plugin();
    let items = async |arguments: Value| {
        let done = body(&call(&plugin, "listItems", arguments).await);
        let numbers: Vec<u64> =
            done["structuredContent"]["items"].as_array().unwrap().iter().map(|i| i["n"].as_u64().unwrap()).collect();
        (numbers, done["content"].as_array().unwrap().len())
    };
    // A second text says that there is more.
    assert_eq!(items(json!({})).await, (vec![1], 2));
    assert_eq!(service.count(), 1);
    assert_eq!(items(json!({"pages": 3})).await, (vec![1, 2, 3], 2));
    assert_eq!(items(json!({"pages": 20})).await, (vec![1, 2, 3, 4, 5], 1));
    let given = service.last().line.matches("key=s3cret").count();
    assert_eq!(given, 1, "{}", service.last().line);
}

#[tokio::test]
async fn a_call_ends_in_time_and_when_its_caller_goes() {
    let service = Service::start().await;
    let plugin = service.plugin();
    let slow = |link: Arc<TestLink>, time: Duration| {
        let plugin = plugin.clone();
        async move {
            let (operation, client) = (Operation::CallTool("slow".to_owned()), modern_client());
            execute_within(&plugin, operation, json!({"name": "slow"}), &client, &link, time).await
        }
    };
    let late = slow(Arc::default(), Duration::from_millis(200)).await;
    assert_eq!(pv_code(&late), "PV-UPSTREAM-TIMEOUT");
    let link = Arc::new(TestLink::default());
    let running = tokio::spawn(slow(link.clone(), Duration::from_secs(50)));
    eventually("the request arrives", async || service.count() == 2).await;
    link.cancel.cancel();
    assert_eq!(running.await.unwrap().status, CallStatus::Cancelled);
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_and_its_tools_stay_listed() {
    let service = Service::start().await;
    let plugin = service.plugin();
    let mut codes = Vec::new();
    for _ in 0..200 {
        codes.push(pv_code(&call(&plugin, "status", json!({"code": "500"})).await));
        if codes.last().unwrap() == "PV-UPSTREAM-OPEN" {
            break;
        }
    }
    assert_eq!(codes.last().unwrap(), "PV-UPSTREAM-OPEN");
    assert!(plugin.tools().await.unwrap().named("status").is_some());
}

#[tokio::test]
async fn a_document_can_be_fetched_and_says_nothing_of_where_calls_go() {
    let service = Service::start().await;
    let evil = json!([{"url": "http://127.0.0.1:9"}]);
    service.document.lock().unwrap()["servers"] = evil;
    let source = OpenApiPlugin {
        document: None,
        document_url: Some(format!("{}/document", service.base)),
        include: ["getItem".to_owned(), "list*".to_owned()].into(),
        ..service.source()
    };
    let up = plugin(spec(PluginSource::OpenApi(Box::new(source.clone()))));
    assert_eq!(up.at_hand(provost_data_tools::ListKind::Tools).len(), 0);
    assert_eq!(call(&up, "getItem", json!({"id": "7"})).await.status, CallStatus::Ok);
    assert_eq!(service.last().line, "GET /v1/items/7?key=s3cret");
    assert_eq!(up.tools().await.unwrap().len(), 2);
    let fetched = service.seen.lock().unwrap().iter().find(|s| s.line == "GET /document").cloned().unwrap();
    assert!(!fetched.headers.contains_key("authorization"), "the document is asked for without credentials");
    // One that is no document breaks nothing but its plugin.
    *service.document.lock().unwrap() = json!({"swagger": "2.0"});
    let limits = Limits { max_answer_bytes: 100, ..Limits::default() };
    let (_toolbox, other) = plugin_with(spec(PluginSource::OpenApi(Box::new(source))), limits);
    assert_eq!(pv_code(&call(&other, "getItem", json!({"id": "7"})).await), "PV-UPSTREAM-GARBAGE");
}

#[tokio::test]
async fn a_plugin_without_a_usable_document_says_so() {
    let service = Service::start().await;
    let with = |change: fn(&mut OpenApiPlugin)| {
        let mut source = service.source();
        change(&mut source);
        plugin(spec(PluginSource::OpenApi(Box::new(source))))
    };
    let changes: [fn(&mut OpenApiPlugin); 4] = [
        |s| s.document = Some(Map::new()),
        |s| s.document = None,
        |s| s.server = None,
        |s| s.secret_headers.values_mut().for_each(|r| r.secret = name(NO_SECRET)),
    ];
    for change in changes {
        assert_eq!(pv_code(&call(&with(change), "getItem", json!({"id": "1"})).await), "PV-UPSTREAM-CONFIG");
    }
    let far = with(|s| s.server = Some("http://api.example/v1".to_owned()));
    assert_eq!(pv_code(&call(&far, "getItem", json!({"id": "1"})).await), "PV-UPSTREAM-ADDRESS-REFUSED");
    assert_eq!(service.count(), 0);
}
