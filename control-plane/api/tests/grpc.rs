//! The admin service over TCP: who may call, what each call answers, how errors travel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{ACME, admin, file, name, open};
use provost_control_api::{AdminToken, ControlNode};
use provost_wire::{AdminClient, admin as wire, admin::Failure, connect_admin};
use secrecy::ExposeSecret;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

struct Server {
    node: ControlNode,
    client: AdminClient<Channel>,
    address: String,
    token: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, _) = open(dir.path()).await;
        node.apply(&admin(), &[file("a.yaml", ACME)], "", false).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (token, kept) = AdminToken::generate("dev-admin").unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = node.clone();
        let task = tokio::spawn(async move {
            let stop = async move { stopped.await.unwrap() };
            serving.serve(listener, vec![kept], stop).await.unwrap();
        });
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let client = AdminClient::new(endpoint.connect().await.unwrap());
        let (address, token) = (address.to_string(), token.expose_secret().to_owned());
        Self { node, client, address, token, stop, task, _dir: dir }
    }

    async fn token_of(&self, principal: &str, ttl: Option<Duration>) -> String {
        let (acme, principal) = (name("acme"), name(principal));
        let made = self.node.token_create(&admin(), &acme, &principal, ttl, "").await.unwrap();
        made.token.expose_secret().to_owned()
    }

    async fn stop(self) {
        drop(self.client);
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(60), self.task).await.unwrap().unwrap();
        self.node.shutdown().await.unwrap();
    }
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    Failure::of(&result.unwrap_err()).code
}

fn documents(text: &str) -> wire::ApplyRequest {
    let document = wire::Document { path: "x.yaml".into(), text: text.into() };
    wire::ApplyRequest { documents: vec![document], dry_run: false, message: "why".into() }
}

fn role(tenant: &str) -> String {
    format!("apiVersion: provost/v1\nkind: Role\nmetadata: {{name: extra, tenant: {tenant}}}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_calls_without_a_good_token() {
    let server = Server::start().await;
    let mut client = server.client.clone();
    let status = || wire::StatusRequest {};
    assert_eq!(code(client.status(status()).await), "PV-ADMIN-NO-TOKEN");
    assert_eq!(code(client.schema(wire::SchemaRequest {}).await), "PV-ADMIN-NO-TOKEN");
    assert_eq!(code(client.watch_revision(wire::WatchRevisionRequest {}).await.map(drop)), "PV-ADMIN-NO-TOKEN");
    assert_eq!(code(client.apply(documents(&role("acme"))).await), "PV-ADMIN-NO-TOKEN");
    assert_eq!(code(client.status(with("pv_wrong", status())).await), "PV-ADMIN-BAD-TOKEN");
    let plain = server.token_of("bob", None).await;
    assert_eq!(code(client.status(with(&plain, status())).await), "PV-ADMIN-NOT-ADMIN");
    let short = server.token_of("ann", Some(Duration::from_secs(1))).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(code(client.status(with(&short, status())).await), "PV-ADMIN-EXPIRED");
    let mut connected = connect_admin(&server.address, &server.token).await.unwrap();
    let answer = connected.status(status()).await.unwrap().into_inner();
    drop(connected);
    assert_eq!((answer.cluster.as_str(), answer.role.as_str()), ("test", "leader"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_administrator_stays_within_the_tenant() {
    let server = Server::start().await;
    let other = ACME.replace("acme", "umbra");
    server.node.apply(&admin(), &[file("u.yaml", &other)], "", false).await.unwrap();
    let token = server.token_of("ann", None).await;
    let mut client = server.client.clone();
    client.apply(with(&token, documents(&role("acme")))).await.unwrap();
    assert_eq!(code(client.apply(with(&token, documents(&role("umbra")))).await), "PV-ADMIN-SCOPE");
    let tenant = "apiVersion: provost/v1\nkind: Tenant\nmetadata: {name: mine}\n";
    assert_eq!(code(client.apply(with(&token, documents(tenant))).await), "PV-ADMIN-SCOPE");
    let own = "apiVersion: provost/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {displayName: x}\n";
    assert_eq!(code(client.apply(with(&token, documents(own))).await), "PV-ADMIN-SCOPE");
    let model = "apiVersion: provost/v1\nkind: Model\nmetadata: {name: m}\nspec: {source: {path: /m}}\n";
    assert_eq!(code(client.apply(with(&token, documents(model))).await), "PV-ADMIN-SCOPE");
    let back = wire::RollbackRequest { to: 1, ..Default::default() };
    assert_eq!(code(client.rollback(with(&token, back)).await), "PV-ADMIN-SCOPE");
    let secret = wire::SecretSetRequest {
        tenant: "umbra".into(),
        name: "s".into(),
        value: b"v".to_vec(),
        message: String::new(),
    };
    assert_eq!(code(client.secret_set(with(&token, secret)).await), "PV-ADMIN-SCOPE");
    let foreign = wire::TokenCreateRequest { tenant: "umbra".into(), principal: "ann".into(), ..Default::default() };
    assert_eq!(code(client.token_create(with(&token, foreign)).await), "PV-ADMIN-SCOPE");
    let seen = client.get(with(&token, wire::GetRequest::default())).await.unwrap().into_inner();
    assert!(seen.resources.iter().all(|r| r.tenant == "acme" || r.name == "acme"));
    assert!(seen.resources.len() >= 5);
    let history = client.history(with(&token, wire::HistoryRequest::default())).await.unwrap();
    let names = history.into_inner().entries.into_iter().flat_map(|e| e.changes);
    assert!(names.into_iter().all(|c| c.resource.contains("acme")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_answers() {
    let server = Server::start().await;
    let token = server.token.clone();
    let mut client = server.client.clone();
    let bad = client.apply(with(&token, documents("kind: Role\nx: 1\n"))).await.unwrap_err();
    let failure = Failure::of(&bad);
    assert_eq!(failure.code, "PV-CTL-INVALID");
    assert_eq!(failure.problems.len(), 3, "{failure}");
    assert!(failure.problems.iter().all(|p| p.file == "x.yaml" && p.line > 0), "{failure}");

    let applied = client.apply(with(&token, documents(&role("acme")))).await.unwrap().into_inner();
    assert_eq!(applied.changes[0].kind(), wire::ChangeKind::Created);
    let diff = wire::DiffRequest { documents: documents(&role("acme")).documents };
    assert_eq!(client.diff(with(&token, diff)).await.unwrap().into_inner().text, "");
    let one = wire::GetRequest { kind: "roles".into(), name: "extra".into(), tenant: String::new() };
    let found = client.get(with(&token, one)).await.unwrap().into_inner().resources;
    assert_eq!((found.len(), found[0].kind.as_str()), (1, "Role"));
    let none = wire::GetRequest { kind: "Role".into(), name: "none".into(), ..Default::default() };
    assert_eq!(code(client.get(with(&token, none)).await), "PV-RES-NOT-FOUND");

    let mut watch = client.watch_revision(with(&token, wire::WatchRevisionRequest {})).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().revision, applied.revision);
    let gone =
        wire::DeleteRequest { kind: "Role".into(), tenant: "acme".into(), name: "extra".into(), ..Default::default() };
    let gone = client.delete(with(&token, gone)).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().revision, gone.revision);

    let back = wire::RollbackRequest { to: applied.revision, ..Default::default() };
    let back = client.rollback(with(&token, back)).await.unwrap().into_inner();
    assert!(back.revision > gone.revision);
    let history = client.history(with(&token, wire::HistoryRequest { limit: 1, ..Default::default() }));
    assert_eq!(history.await.unwrap().into_inner().entries[0].event, "rollback");
    let explained = client.explain(with(&token, wire::ExplainRequest { path: "Role".into() }));
    assert!(!explained.await.unwrap().into_inner().fields.is_empty());
    let schema = client.schema(with(&token, wire::SchemaRequest {})).await.unwrap().into_inner();
    assert!(serde_json::from_str::<serde_json::Value>(&schema.json).is_ok());
    let made = wire::TokenCreateRequest {
        tenant: "acme".into(),
        principal: "ann".into(),
        ttl_seconds: 60,
        message: String::new(),
    };
    let made = client.token_create(with(&token, made)).await.unwrap().into_inner();
    assert!(made.token.starts_with("pv_") && !made.expires.is_empty());
    // A watcher does not keep the server from stopping.
    let ended = tokio::spawn(async move { while let Ok(Some(_)) = watch.message().await {} });
    server.stop().await;
    ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_problems_arrive_in_one_answer() {
    let server = Server::start().await;
    let one = "apiVersion: provost/v1\nkind: Role\nmetadata: {name: UP, tenant: acme}\nspec: {wrong: 1}\n---\n";
    let mut client = connect_admin(&server.address, &server.token).await.unwrap();
    let status = client.apply(documents(&one.repeat(300))).await.unwrap_err();
    let failure = Failure::of(&status);
    assert_eq!((failure.code.as_str(), failure.problems.len()), ("PV-CTL-INVALID", 600));
    drop(client);
    server.stop().await;
}
