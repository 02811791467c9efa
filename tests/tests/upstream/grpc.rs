//! gRPC services: how their methods are found, what is sent, what comes back, and what is never sent.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, stream::BoxStream};
use provost_data_pipeline::{Operation, Reply};
use provost_data_tools::{ListKind, Plugin};
use provost_mcp::RawJson;
use provost_tests::tickets::{
    DESCRIPTORS, Reflection, router,
    v1::{
        CreateRequest, GetRequest, ListReply, ListRequest, RemoveReply, RemoveRequest, Ticket, WatchRequest,
        tickets_server::Tickets,
    },
};
use provost_types::{CallStatus, EgressSpec, GrpcPlugin, OAuthClient, PluginSource, SecretRef, UpstreamAuth};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

use crate::bench::*;

/// What every secret of [`toolbox`] is.
const SECRET: &str = "s3cret";
/// Ids of [`Faulty`] from which on they are no codes of a status.
const ECHO: i64 = 100;
const SLOW: i64 = 101;
const LARGE: i64 = 102;

/// Metadata of a call.
type Seen = BTreeMap<String, String>;

/// Answers a `Get` with the status that its id is the code of.
#[derive(Clone, Default)]
struct Faulty {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Faulty {
    fn note<T>(&self, request: &Request<T>) -> String {
        let headers = request.metadata().clone().into_headers();
        let seen: Seen = headers
            .iter()
            .map(|(key, value)| (key.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let said = seen.get("authorization").cloned().unwrap_or_default();
        self.seen.lock().unwrap().push(seen);
        said
    }
}

#[tonic::async_trait]
impl Tickets for Faulty {
    type WatchStream = BoxStream<'static, Result<Ticket, Status>>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        self.note(&request);
        Ok(Response::new(ListReply::default()))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Ticket>, Status> {
        let said = self.note(&request);
        let titled = |title: String| Ok(Response::new(Ticket { title, ..Ticket::default() }));
        match request.into_inner().id {
            ECHO => titled(said),
            SLOW => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                titled(String::new())
            }
            LARGE => titled("x".repeat(3 << 20)),
            code => {
                let code = tonic::Code::from(i32::try_from(code).unwrap_or(2));
                Err(Status::with_details(code, format!("{said} is not wanted"), vec![0x1a_u8, 0x00].into()))
            }
        }
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<Ticket>, Status> {
        self.note(&request);
        Ok(Response::new(request.into_inner().ticket.unwrap_or_default()))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        self.note(&request);
        Ok(Response::new(RemoveReply {}))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.note(&request);
        let after = request.into_inner().after;
        let ticket = |id: i64| Ok::<_, Status>(Ticket { id, ..Ticket::default() });
        let told = match after {
            // Five and an end.
            0 => futures::stream::iter((1..=5).map(ticket)).boxed(),
            // Two and then nothing for long.
            1 => futures::stream::iter((1..=2).map(ticket)).chain(futures::stream::pending()).boxed(),
            // One and a failure.
            2 => {
                let failed = async { Err::<Ticket, _>(Status::aborted("no more")) };
                futures::stream::iter((1..=1).map(ticket)).chain(futures::stream::once(failed)).boxed()
            }
            // Without end.
            _ => futures::stream::iter((1..).map(ticket)).boxed(),
        };
        Ok(Response::new(told))
    }

    async fn import(&self, _: Request<Streaming<CreateRequest>>) -> Result<Response<ListReply>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

struct Service {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    async fn start(reflection: Reflection) -> Self {
        let faulty = Faulty::default();
        let seen = faulty.seen.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = router(faulty, reflection).unwrap();
        let task = tokio::spawn(async move {
            router.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { url, seen, task }
    }

    fn source(&self) -> GrpcPlugin {
        let secret = SecretRef { secret: name("api"), prefix: "Bearer ".to_owned() };
        GrpcPlugin {
            url: self.url.clone(),
            secret_headers: BTreeMap::from([("authorization".to_owned(), secret)]),
            headers: BTreeMap::from([("x-client".to_owned(), "gateway".to_owned())]),
            ..GrpcPlugin::default()
        }
    }

    fn plugin(&self) -> Arc<Plugin> {
        of(self.source())
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn of(source: GrpcPlugin) -> Arc<Plugin> {
    plugin(spec(PluginSource::Grpc(Box::new(source))))
}

async fn names(plugin: &Plugin) -> Vec<String> {
    plugin.tools().await.unwrap().iter().map(|tool| tool.name.clone()).collect()
}

async fn get(plugin: &Plugin, id: i64) -> provost_data_pipeline::Execution {
    call(plugin, "Tickets_Get", json!({"id": id.to_string()})).await
}

const NAMES: [&str; 5] = ["Tickets_List", "Tickets_Get", "Tickets_Create", "Tickets_Remove", "Tickets_Watch"];

#[tokio::test]
async fn methods_are_found_by_either_reflection_or_by_a_descriptor() {
    for reflection in [Reflection::V1, Reflection::V1Alpha] {
        let service = Service::start(reflection).await;
        let plugin = service.plugin();
        assert_eq!(plugin.at_hand(ListKind::Tools).len(), 0, "nobody was asked yet");
        assert_eq!(names(&plugin).await, NAMES, "{reflection:?}");
        assert_eq!(get(&plugin, ECHO).await.status, CallStatus::Ok, "{reflection:?}");
    }
    let service = Service::start(Reflection::Nothing).await;
    let plugin = service.plugin();
    assert!(plugin.tools().await.unwrap_err().to_string().contains("descriptor"));
    assert_eq!(pv_code(&get(&plugin, ECHO).await), "PV-UPSTREAM-GARBAGE");
    let source = GrpcPlugin { descriptor: Some(BASE64_STANDARD.encode(DESCRIPTORS)), ..service.source() };
    let plugin = of(source.clone());
    assert_eq!(plugin.at_hand(ListKind::Tools).len(), NAMES.len(), "nobody need be asked");
    let create = plugin.cached_tool("Tickets_Create").unwrap();
    assert!(create.raw.as_str().contains("Opens a ticket; its id is given by the service."), "{}", create.raw.as_str());
    assert_eq!(get(&plugin, ECHO).await.status, CallStatus::Ok);
    let some = GrpcPlugin { include: ["Tickets_G*".to_owned()].into(), ..source };
    assert_eq!(names(&of(some)).await, ["Tickets_Get"]);
}

#[tokio::test]
async fn a_call_is_one_message_with_what_the_plugin_gives() {
    let service = Service::start(Reflection::V1).await;
    let plugin = service.plugin();
    let ticket = json!({"title": "T", "priority": "HIGH", "comments": ["a"], "labels": {"k": "v"}, "team": "house"});
    let done = call(&plugin, "Tickets_Create", json!({ "ticket": ticket })).await;
    assert_eq!(done.status, CallStatus::Ok, "{done:?}");
    let mut expect = ticket.clone();
    expect["id"] = "0".into();
    assert_eq!(body(&done)["structuredContent"], expect);
    assert_eq!(serde_json::from_str::<Value>(&text(&done)).unwrap(), expect, "the same as text");
    let seen = service.last();
    assert_eq!((seen["authorization"].as_str(), seen["x-client"].as_str()), ("Bearer s3cret", "gateway"));
    assert!(seen["grpc-timeout"].ends_with('m'), "{seen:?}");
    // What a service says back of our credentials nobody sees.
    let echoed = get(&plugin, ECHO).await;
    assert_eq!(body(&echoed)["structuredContent"]["title"], "Bearer [redacted]");
    let empty = call(&plugin, "Tickets_Remove", json!({"id": 7})).await;
    assert_eq!(body(&empty)["structuredContent"], json!({}));
}

#[tokio::test]
async fn what_is_no_message_is_not_sent() {
    let service = Service::start(Reflection::V1).await;
    let plugin = service.plugin();
    plugin.tools().await.unwrap();
    for arguments in [
        json!({"ticket": {"title": 7}}),
        json!({"ticket": {"priority": "URGENT"}}),
        json!({"ticket": {"person": "Ann", "team": "house"}}),
        json!({"ticket": {"subject": "x"}}),
        json!({"other": 1}),
    ] {
        let problem = plugin.validate("Tickets_Create", &RawJson::from(arguments.clone()));
        assert!(problem.is_err(), "{arguments}");
        assert_eq!(
            pv_code(&call(&plugin, "Tickets_Create", arguments.clone()).await),
            "PV-GRPC-ARGUMENT",
            "{arguments}"
        );
    }
    assert!(plugin.validate("Tickets_Get", &RawJson::from(json!({"id": "7"}))).is_ok());
    assert!(plugin.validate("Tickets_Get", &RawJson::from(json!({"id": 7}))).is_ok());
    assert_eq!(pv_code(&call(&plugin, "Tickets_Import", json!({})).await), "none");
    assert_eq!(service.count(), 0);
}

#[tokio::test]
async fn a_status_is_told_as_what_it_is() {
    let service = Service::start(Reflection::V1).await;
    let plugin = service.plugin();
    for (code, expect) in [
        (1, Ok("CANCELLED")),
        (2, Ok("UNKNOWN")),
        (3, Ok("INVALID_ARGUMENT")),
        (4, Err("PV-UPSTREAM-TIMEOUT")),
        (5, Ok("NOT_FOUND")),
        (6, Ok("ALREADY_EXISTS")),
        (7, Err("PV-UPSTREAM-UNAUTHORIZED")),
        (8, Err("PV-UPSTREAM-BUSY")),
        (9, Ok("FAILED_PRECONDITION")),
        (10, Ok("ABORTED")),
        (11, Ok("OUT_OF_RANGE")),
        (12, Ok("UNIMPLEMENTED")),
        (13, Ok("INTERNAL")),
        (14, Err("PV-UPSTREAM-UNREACHABLE")),
        (15, Ok("DATA_LOSS")),
        (16, Err("PV-UPSTREAM-UNAUTHORIZED")),
    ] {
        let done = get(&plugin, code).await;
        match expect {
            Ok(status) => {
                assert_eq!(done.status, CallStatus::ToolError, "{code}: {done:?}");
                let said = text(&done);
                assert!(said.starts_with(&format!("{status}: Bearer [redacted] is not wanted")), "{code}: {said}");
            }
            Err(expect) => assert_eq!(pv_code(&done), expect, "{code}"),
        }
        assert!(!format!("{done:?}").contains(SECRET), "{code}: {done:?}");
    }
    let Reply::Error(busy) = get(&plugin, 8).await.reply else { panic!("a busy service is an error") };
    assert!(busy.data.unwrap().as_str().contains("retryAfterMs"));
    assert_eq!(pv_code(&get(&plugin, LARGE).await), "PV-UPSTREAM-TOO-LARGE");
}

#[tokio::test]
async fn a_stream_is_a_list_of_what_came() {
    let service = Service::start(Reflection::V1).await;
    let plugin = service.plugin();
    let watch = async |arguments: Value| call(&plugin, "Tickets_Watch", arguments).await;
    let told = |done: &provost_data_pipeline::Execution| {
        let body = body(done);
        let ids: Vec<String> = body["structuredContent"]["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ticket| ticket["id"].as_str().unwrap().to_owned())
            .collect();
        (ids.len(), body["content"].as_array().unwrap().len())
    };
    // A second text says that there may be more.
    assert_eq!(told(&watch(json!({})).await), (5, 1));
    assert_eq!(told(&watch(json!({"maxMessages": 3})).await), (3, 2));
    assert_eq!(told(&watch(json!({"after": "1", "maxMessages": 2})).await), (2, 2), "what is enough is not waited for");
    assert_eq!(told(&watch(json!({"after": "9"})).await), (100, 2));
    let failed = watch(json!({"after": "2"})).await;
    assert_eq!((failed.status, text(&failed).as_str()), (CallStatus::ToolError, "ABORTED: no more"));
}

#[tokio::test]
async fn a_call_ends_in_time_and_when_its_caller_goes() {
    let service = Service::start(Reflection::V1).await;
    let plugin = service.plugin();
    plugin.tools().await.unwrap();
    let slow = |link: Arc<TestLink>, time: Duration| {
        let plugin = plugin.clone();
        async move {
            let (operation, client) = (Operation::CallTool("Tickets_Get".to_owned()), modern_client());
            let params = json!({"name": "Tickets_Get", "arguments": {"id": SLOW.to_string()}});
            execute_within(&plugin, operation, params, &client, &link, time).await
        }
    };
    let late = slow(Arc::default(), Duration::from_millis(500)).await;
    assert_eq!(pv_code(&late), "PV-UPSTREAM-TIMEOUT");
    let before = service.count();
    let link = Arc::new(TestLink::default());
    let running = tokio::spawn(slow(link.clone(), Duration::from_secs(50)));
    eventually("the call arrives", async || service.count() > before).await;
    link.cancel.cancel();
    assert_eq!(running.await.unwrap().status, CallStatus::Cancelled);
}

#[tokio::test]
async fn a_service_that_is_not_available_is_left_alone_and_its_tools_stay_listed() {
    let service = Service::start(Reflection::V1).await;
    let plugin = service.plugin();
    let mut codes = Vec::new();
    for _ in 0..200 {
        codes.push(pv_code(&get(&plugin, 14).await));
        if codes.last().unwrap() == "PV-UPSTREAM-OPEN" {
            break;
        }
    }
    assert_eq!(codes.last().unwrap(), "PV-UPSTREAM-OPEN");
    assert!(plugin.tools().await.unwrap().named("Tickets_Get").is_some());
}

#[tokio::test]
async fn a_plugin_goes_where_its_rules_let_it_and_nowhere_else() {
    let service = Service::start(Reflection::V1).await;
    let with = |change: &dyn Fn(&mut GrpcPlugin)| {
        let mut source = service.source();
        change(&mut source);
        of(source)
    };
    for (url, expect) in [
        ("http://10.0.0.1:50051", "PV-UPSTREAM-ADDRESS-REFUSED"),
        ("https://10.0.0.1:50051", "PV-UPSTREAM-ADDRESS-REFUSED"),
        ("https://169.254.169.254", "PV-UPSTREAM-ADDRESS-REFUSED"),
        ("http://grpc.example", "PV-UPSTREAM-ADDRESS-REFUSED"),
        // Nobody listens there.
        ("http://127.0.0.1:9", "PV-UPSTREAM-UNREACHABLE"),
    ] {
        let plugin = with(&|source| source.url = url.to_owned());
        assert_eq!(pv_code(&get(&plugin, ECHO).await), expect, "{url}");
    }
    let narrow = with(&|source| {
        source.egress =
            Some(Box::new(EgressSpec { allow_hosts: ["a.example".into()].into(), ..EgressSpec::default() }));
    });
    assert_eq!(pv_code(&get(&narrow, ECHO).await), "PV-UPSTREAM-ADDRESS-REFUSED");
    let changes: [fn(&mut GrpcPlugin); 2] = [
        |source| source.descriptor = Some("AAAA".to_owned()),
        |source| source.secret_headers.values_mut().for_each(|r| r.secret = name(NO_SECRET)),
    ];
    for change in changes {
        assert_eq!(pv_code(&get(&with(&change), ECHO).await), "PV-UPSTREAM-CONFIG");
    }
    assert_eq!(service.count(), 0);
}

#[tokio::test]
async fn what_does_not_speak_grpc_is_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let page = axum::Router::new().fallback(|| async { "<html>" });
    let server = tokio::spawn(async move { axum::serve(listener, page).await.unwrap() });
    let source = GrpcPlugin { url, descriptor: Some(BASE64_STANDARD.encode(DESCRIPTORS)), ..GrpcPlugin::default() };
    assert_eq!(pv_code(&get(&of(source), ECHO).await), "PV-UPSTREAM-GARBAGE");
    server.abort();
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once_and_seen_by_nobody() {
    let service = Service::start(Reflection::V1).await;
    let given = Arc::new(AtomicUsize::new(0));
    let counted = given.clone();
    let tokens = axum::Router::new().fallback(move || {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let token = json!({"access_token": format!("access-{number}"), "token_type": "Bearer", "expires_in": 3600});
        async move { axum::Json(token) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, tokens).await.unwrap() });
    let client = OAuthClient {
        token_url: Some(token_url),
        client_id: "gateway".to_owned(),
        client_secret: Some(SecretRef { secret: name("client"), prefix: String::new() }),
        ..OAuthClient::default()
    };
    let plugin = of(GrpcPlugin {
        auth: Some(Box::new(UpstreamAuth::ClientCredentials(client))),
        secret_headers: BTreeMap::new(),
        ..service.source()
    });
    assert_eq!(body(&get(&plugin, ECHO).await)["structuredContent"]["title"], "Bearer [redacted]");
    assert_eq!(service.last()["authorization"], "Bearer access-0");
    let before = service.count();
    assert_eq!(pv_code(&get(&plugin, 16).await), "PV-UPSTREAM-UNAUTHORIZED");
    let sent: Vec<String> =
        service.seen.lock().unwrap().iter().skip(before).map(|seen| seen["authorization"].clone()).collect();
    assert_eq!(sent, ["Bearer access-0", "Bearer access-1"]);
    assert_eq!(given.load(Ordering::SeqCst), 2);
    server.abort();
}
