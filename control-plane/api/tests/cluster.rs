//! Cluster calls and watches over TCP: who may make them, what they answer, how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use common::{ACME, Recorder, admin, file, name, open};
use provost_control_api::{
    AdminApi, AdminToken, ControlNode, LocatedProblem, NodeFacts, SubscriberStatus, Subscribers,
    identity::{Certifier, DEFAULT_LIFE, Registry},
    verify_backup,
};
use provost_control_state::ClusterCommand;
use provost_types::Revision;
use provost_wire::{AdminConnection, admin as wire, admin::Failure, connect_admin};
use secrecy::ExposeSecret;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{Code, Status};
use wire::watch_response::Event;

struct Known;

impl Subscribers for Known {
    fn subscribers(&self) -> Vec<SubscriberStatus> {
        vec![SubscriberStatus {
            node: "edge-1".into(),
            role: "data-plane".into(),
            revision: Revision(3),
            lag: 1,
            silent: Duration::from_millis(250),
            problems: vec![LocatedProblem { code: "PV-POLICY-INVALID".into(), ..Default::default() }],
            version: "0.1.0".into(),
            part: Default::default(),
            refused: None,
            plugins: None,
        }]
    }
    fn facts(&self, node_id: u64, _: &str) -> NodeFacts {
        NodeFacts { version: String::new(), certificate_expires: format!("of-{node_id}") }
    }
}

struct Server {
    node: ControlNode,
    recorder: Arc<Recorder>,
    root: AdminConnection,
    /// Administers the tenant acme.
    ann: AdminConnection,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start(with_ca: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, recorder) = open(dir.path()).await;
        node.apply(&admin(), &[file("a.yaml", ACME)], "", false).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (token, kept) = AdminToken::generate("root").unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut api = AdminApi::new(&node, vec![kept]).with_subscribers(Arc::new(Known));
        if with_ca {
            let secrets = node.secrets();
            let (authority, _) = Certifier::make_authority(&*secrets, &name("test"), SystemTime::now()).unwrap();
            let command = ClusterCommand::Init {
                cluster: name("test"),
                node_id: 1,
                node: name("cp-1"),
                roles: BTreeSet::from([name("control-plane")]),
                address: "127.0.0.1:7443".into(),
                authority: Some(authority),
                version: Default::default(),
            };
            Registry::change(&node, command).await.unwrap();
            let registry: Arc<dyn Registry> = Arc::new(node.clone());
            api = api.with_certifier(Arc::new(Certifier::new(registry, secrets, DEFAULT_LIFE)));
        }
        let task = tokio::spawn(async move {
            api.serve(listener, async move { stopped.await.unwrap() }).await.unwrap();
        });
        let made = node.token_create(&admin(), &name("acme"), &name("ann"), None, "").await.unwrap();
        let root = connect_admin(&address, token.expose_secret()).await.unwrap();
        let ann = connect_admin(&address, made.token.expose_secret()).await.unwrap();
        recorder.taken(&node).await;
        Self { node, recorder, root, ann, stop, task, _dir: dir }
    }

    async fn stop(self) {
        drop((self.root, self.ann));
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(60), self.task).await.unwrap().unwrap();
        self.node.shutdown().await.unwrap();
    }
}

fn code<T>(result: Result<T, Status>) -> String {
    Failure::of(&result.map(drop).unwrap_err()).code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_not_a_tenants_business() {
    let server = Server::start(true).await;
    let mut ann = server.ann.clone();
    let token = wire::JoinTokenRequest { role: "data-plane".into(), node: "edge-1".into(), ttl_seconds: 0 };
    let refused = [
        code(ann.cluster_status(wire::ClusterStatusRequest {}).await),
        code(ann.join_token(token).await),
        code(ann.remove_node(wire::RemoveNodeRequest { node: "cp-1".into() }).await),
        code(ann.promote_node(wire::PromoteNodeRequest { node: "cp-1".into() }).await),
        code(ann.transfer_leader(wire::TransferLeaderRequest { node: "cp-1".into() }).await),
        code(ann.backup(wire::BackupRequest {}).await),
        code(ann.rotate_keys(wire::RotateKeysRequest {}).await),
        code(ann.rotate_ca(wire::RotateCaRequest { step: "begin".into() }).await),
    ];
    assert_eq!(refused, ["PV-ADMIN-SCOPE"; 8]);
    assert!(server.recorder.take().is_empty(), "nothing was tried");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_of_members_and_subscribers() {
    let server = Server::start(true).await;
    let mut root = server.root.clone();
    let status = root.cluster_status(wire::ClusterStatusRequest {}).await.unwrap().into_inner();
    assert!(status.confirmed);
    assert_eq!((status.cluster.as_str(), status.node_id, status.leader_id), ("test", 1, 1));
    let [member] = status.members.as_slice() else { panic!("{status:?}") };
    assert_eq!((member.name.as_str(), member.address.as_str()), ("cp-1", "127.0.0.1:7443"));
    assert_eq!((member.membership.as_str(), member.role.as_str(), member.lag), ("voter", "leader", 0));
    assert_eq!((member.version.as_str(), member.certificate_expires.as_str()), (env!("CARGO_PKG_VERSION"), "of-1"));
    let [subscriber] = status.subscribers.as_slice() else { panic!("{status:?}") };
    assert_eq!((subscriber.node.as_str(), subscriber.via.as_str()), ("edge-1", "node-1"));
    assert_eq!((subscriber.revision, subscriber.lag, subscriber.silent_ms), (3, 1, 250));
    assert_eq!(subscriber.problems[0].code, "PV-POLICY-INVALID");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn join_tokens_and_the_ca_are_changed_and_recorded() {
    let server = Server::start(true).await;
    let mut root = server.root.clone();
    let request = |role: &str, node: &str, ttl_seconds| wire::JoinTokenRequest {
        role: role.into(),
        node: node.into(),
        ttl_seconds,
    };
    let made = root.join_token(request("data-plane, audit-log", "edge-1", 60)).await.unwrap().into_inner();
    assert!(made.token.starts_with("pv1.") && made.expires.ends_with('Z'), "{}", made.expires);
    assert_eq!(server.recorder.take(), ["join-token.create None None", "join-token.create Some(Ok) None"]);
    let cluster = server.node.cluster();
    let kept = cluster.join_tokens().values().next().unwrap();
    assert_eq!((kept.node.as_str(), kept.roles.len()), ("edge-1", 2));
    for (wrong, expected) in [
        (request("king", "edge-2", 60), "PV-JOIN-ROLE"),
        (request("", "edge-2", 60), "PV-JOIN-ROLE"),
        (request("data-plane", "Edge 2", 60), "PV-ADMIN-REQUEST"),
        (request("data-plane", "edge-2", 3600), "PV-JOIN-LIFE"),
        (request("data-plane", "cp-1", 60), "PV-JOIN-NAME"),
    ] {
        assert_eq!(code(root.join_token(wrong.clone()).await), expected, "{wrong:?}");
    }
    server.recorder.take();

    let step = |step: &str| wire::RotateCaRequest { step: step.into() };
    let old = {
        let begun = root.rotate_ca(step("begin")).await.unwrap().into_inner().authorities;
        assert_eq!(begun.len(), 2);
        begun[0].clone()
    };
    let known = root.authorities(wire::AuthoritiesRequest {}).await.unwrap().into_inner().bundle;
    assert_eq!(known.matches("BEGIN CERTIFICATE").count(), 2, "both are to be trusted: {known}");
    assert_eq!(code(root.rotate_ca(step("commit")).await), "PV-CA-TOO-EARLY");
    assert_eq!(code(root.rotate_ca(step("leap")).await), "PV-ADMIN-REQUEST");
    let records = server.recorder.take();
    assert_eq!(records[1..], ["ca.rotate Some(Ok) None", "ca.rotate None None", "ca.rotate Some(RpcError) None"]);
    let committed = root.rotate_ca(step("commit:force")).await.unwrap().into_inner().authorities;
    assert_eq!((committed.len(), &committed[1]), (2, &old));
    let finished = root.rotate_ca(step("finish:force")).await.unwrap().into_inner().authorities;
    assert_eq!(finished, committed[..1]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_node_of_the_audit_log_gets_its_token_before_anything_can_be_recorded() {
    let server = Server::start(true).await;
    let mut root = server.root.clone();
    server.recorder.refuse.store(true, Ordering::Relaxed);
    let request =
        |role: &str, node: &str| wire::JoinTokenRequest { role: role.into(), node: node.into(), ttl_seconds: 60 };
    let refused = root.join_token(request("data-plane", "edge-1")).await.map(drop).unwrap_err();
    let failure = Failure::of(&refused);
    assert_eq!(failure.code, "PV-ADMIN-AUDIT");
    assert!(failure.hint.contains("cluster add NAME --role audit-log"), "{failure:?}");
    let made = root.join_token(request("data-plane,audit-log", "log-1")).await.unwrap().into_inner();
    assert!(made.token.starts_with("pv1."), "{made:?}");
    let tokens = server.node.cluster().join_tokens().clone();
    assert_eq!(tokens.values().map(|token| token.node.as_str()).collect::<Vec<_>>(), ["log-1"]);

    // Once there is such a node nothing is done without a record.
    let (hash, token) = tokens.into_iter().next().unwrap();
    let command = ClusterCommand::TokenUsed {
        hash,
        key: "ab".repeat(32),
        address: "127.0.0.1:7444".into(),
        now_ns: token.expires_ns - 1,
    };
    Registry::change(&server.node, command).await.unwrap();
    assert_eq!(code(root.join_token(request("audit-log", "log-2")).await), "PV-ADMIN-AUDIT");
    server.recorder.refuse.store(false, Ordering::Relaxed);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_to_nodes_is_refused_with_its_cause() {
    let server = Server::start(true).await;
    let mut root = server.root.clone();
    assert_eq!(code(root.remove_node(wire::RemoveNodeRequest { node: "cp-9".into() }).await), "PV-CLUSTER-NO-NODE");
    assert_eq!(code(root.promote_node(wire::PromoteNodeRequest { node: "9".into() }).await), "PV-CLUSTER-NO-NODE");
    // The last one cannot go, and is there afterwards.
    let last = root.remove_node(wire::RemoveNodeRequest { node: "cp-1".into() }).await.map(drop);
    assert!(last.is_err());
    let now = root.transfer_leader(wire::TransferLeaderRequest { node: "1".into() }).await;
    if let Ok(now) = now {
        assert_eq!((now.get_ref().voters.as_slice(), now.get_ref().leader_id), (&[1][..], 1));
    }
    let status = root.cluster_status(wire::ClusterStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.members.len(), 1);
    server.stop().await;

    let server = Server::start(false).await;
    let mut root = server.root.clone();
    let token = wire::JoinTokenRequest { role: "data-plane".into(), node: "edge-1".into(), ttl_seconds: 0 };
    assert_eq!(code(root.join_token(token).await), "PV-CA-NONE");
    assert_eq!(code(root.rotate_ca(wire::RotateCaRequest { step: "begin".into() }).await), "PV-CA-NONE");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_and_a_backup_comes_in_parts() {
    let server = Server::start(false).await;
    let mut root = server.root.clone();
    server.node.secret_set(&admin(), &name("acme"), &name("api"), b"v", "").await.unwrap();
    let done = root.rotate_keys(wire::RotateKeysRequest {}).await.unwrap().into_inner();
    assert_eq!((done.term, done.sealed), (2, 1));
    let mut parts = root.backup(wire::BackupRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        bytes.extend(part.data);
    }
    let summary = verify_backup(bytes.as_slice()).unwrap();
    assert_eq!(summary.header.revision, server.node.status().revision);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_of_keys_seals_the_keys_of_every_ca_anew_and_they_open() {
    let server = Server::start(true).await;
    let mut root = server.root.clone();
    server.node.secret_set(&admin(), &name("acme"), &name("api"), b"v", "").await.unwrap();
    root.rotate_ca(wire::RotateCaRequest { step: "begin".into() }).await.unwrap();
    let sealed = || -> Vec<String> {
        server.node.cluster().authorities().values().map(|authority| authority.sealed_key.clone()).collect()
    };
    let before = sealed();
    root.rotate_keys(wire::RotateKeysRequest {}).await.unwrap();
    let after = sealed();
    assert_eq!((before.len(), after.len()), (2, 2));
    assert!(before.iter().all(|old| !after.contains(old)), "a CA's key is sealed as it was");
    // What was sealed anew signs: of the old CA and of the new one.
    for step in ["commit:force", "finish:force"] {
        let token = wire::JoinTokenRequest { role: "data-plane".into(), node: step[..4].into(), ttl_seconds: 0 };
        root.join_token(token).await.unwrap();
        root.rotate_ca(wire::RotateCaRequest { step: step.into() }).await.unwrap();
    }
    let history = root.history(wire::HistoryRequest { limit: 10, ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(history.entries.iter().filter(|e| e.event == "keys.rotate").count(), 1, "{history:?}");
    server.stop().await;
}

async fn next(events: &mut tonic::Streaming<wire::WatchResponse>) -> Event {
    let message = tokio::time::timeout(Duration::from_secs(60), events.message()).await.unwrap();
    message.unwrap().unwrap().event.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_gives_what_is_there_changes_and_bookmarks() {
    let server = Server::start(false).await;
    let mut root = server.root.clone();
    let request = wire::WatchRequest { kind: "roles".into(), tenant: "acme".into(), ..Default::default() };
    let mut events = root.watch(request.clone()).await.unwrap().into_inner();
    let Event::Change(initial) = next(&mut events).await else { panic!() };
    assert!(initial.initial && initial.puts.len() == 1 && initial.puts[0].name == "reader");
    assert!(matches!(next(&mut events).await, Event::Bookmark(b) if b.revision >= initial.revision));
    let from = initial.revision;
    let role = "apiVersion: provost/v1\nkind: Role\nmetadata: {name: extra, tenant: acme}\n";
    let made = server.node.apply(&admin(), &[file("r.yaml", role)], "", false).await.unwrap().revision.0;
    let changed = loop {
        match next(&mut events).await {
            Event::Change(change) => break change,
            Event::Bookmark(bookmark) => assert!(bookmark.revision < made),
        }
    };
    assert_eq!((changed.revision, changed.initial, changed.puts[0].name.as_str()), (made, false, "extra"));
    // The same again, from where one was; another tenant's administrator sees none of it.
    let resumed = wire::WatchRequest { from_revision: from, ..request.clone() };
    let mut events = root.watch(resumed).await.unwrap().into_inner();
    assert!(matches!(next(&mut events).await, Event::Change(c) if c == changed));
    let future = wire::WatchRequest { from_revision: 9_999, ..request };
    assert_eq!(code(root.watch(future).await), "PV-CTL-FUTURE");
    let wrong = wire::WatchRequest { kind: "thing".into(), ..Default::default() };
    assert_eq!(code(root.watch(wrong).await), "PV-ADMIN-REQUEST");
    let ended = tokio::spawn(async move { while let Ok(Some(_)) = events.message().await {} });
    server.stop().await;
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_state_comes_in_several_messages_before_the_first_bookmark() {
    let server = Server::start(false).await;
    let mut root = server.root.clone();
    let text = "x".repeat(300_000);
    for n in 0..5 {
        let tenant = format!(
            "apiVersion: provost/v1\nkind: Tenant\nmetadata: {{name: t{n}}}\nspec: {{displayName: '{text}'}}\n"
        );
        server.node.apply(&admin(), &[file("t.yaml", &tenant)], "", false).await.unwrap();
    }
    let request = wire::WatchRequest { kind: "Tenant".into(), ..Default::default() };
    let mut events = root.watch(request).await.unwrap().into_inner();
    let (mut messages, mut names) = (0, BTreeSet::new());
    while let Event::Change(change) = next(&mut events).await {
        assert!(change.initial);
        messages += 1;
        names.extend(change.puts.into_iter().map(|p| p.name));
    }
    assert_eq!(names, ["acme", "t0", "t1", "t2", "t3", "t4"].map(str::to_owned).into());
    // Two documents (as JSON and as YAML) of 300 kB each, and a message holds 1 MiB of them.
    assert_eq!(messages, 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_are_gone_are_out_of_range() {
    let server = Server::start(false).await;
    let mut root = server.root.clone();
    for n in 0..provost_control_state::MAX_HISTORY + 2 {
        let tenant =
            format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{name: busy}}\nspec: {{displayName: 'n{n}'}}\n");
        server.node.apply(&admin(), &[file("t.yaml", &tenant)], "", false).await.unwrap();
    }
    let status = root.watch(wire::WatchRequest { from_revision: 1, ..Default::default() }).await.unwrap_err();
    assert_eq!((status.code(), Failure::of(&status).code.as_str()), (Code::OutOfRange, "PV-WATCH-COMPACTED"));
    server.stop().await;
}
