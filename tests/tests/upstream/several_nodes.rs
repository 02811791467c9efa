//! One plugin on several nodes: what is in one place is used from all. The nodes are toolboxes in this
//! process, and reach each other by a table.

use std::{
    collections::{BTreeMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, OnceLock},
};

use provost_data_pipeline::{ClientFacts, ClientLink, Execution, Operation};
use provost_data_tools::{
    At, Definitions, ExecuteRequest, Limits, ListKind, ListenFilter, Plugin, PluginId, ServerFacts, SessionOwner,
    SharedSession, SiblingError, Siblings, Toolbox, UpstreamError,
};
use provost_mcp::RawJson;
use provost_tests::everything::{EraChoice, Everything, HttpServer, serve_http};
use provost_types::{BoxFuture, Era, Instances, PluginSource, PluginSpec, StdioPlugin};
use serde_json::{Value, json};

use crate::{
    bench::*,
    endpoints::{ServerProcess, spec_of},
};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The nodes, and which are gone.
#[derive(Default)]
struct Net {
    nodes: OnceLock<BTreeMap<&'static str, Arc<Toolbox>>>,
    dead: Mutex<HashSet<&'static str>>,
}

impl Net {
    fn is_dead(&self, node: &str) -> bool {
        self.dead.lock().unwrap().contains(node)
    }

    fn plugin(&self, node: &str, plugin: &PluginId) -> Result<Arc<Plugin>, SiblingError> {
        let found = self.nodes.get().and_then(|nodes| nodes.get(node)).filter(|_| !self.is_dead(node));
        let found = found.and_then(|toolbox| toolbox.plugin(&plugin.tenant, plugin.name.as_str()));
        found.ok_or_else(|| SiblingError::NotReached("it is gone".to_owned()))
    }

    fn at(&self, at: &At, plugin: &PluginId) -> Result<Arc<Plugin>, SiblingError> {
        let (At::Node(node) | At::Process(node)) = at;
        self.plugin(node, plugin)
    }

    fn others<'a>(&'a self, own: &'a str) -> impl Iterator<Item = &'static str> + 'a {
        NAMES.into_iter().filter(move |name| *name != own && !self.is_dead(name))
    }
}

/// One node's place in it.
struct Seat {
    own: &'static str,
    net: Arc<Net>,
}

impl Siblings for Seat {
    fn tag(&self) -> String {
        self.own.to_owned()
    }

    fn owner(&self, key: &str) -> Option<String> {
        let score = |name: &str| {
            let mut hasher = DefaultHasher::new();
            (key, name).hash(&mut hasher);
            hasher.finish()
        };
        let owner = NAMES.into_iter().filter(|name| !self.net.is_dead(name)).max_by_key(|name| score(name))?;
        (owner != self.own).then(|| owner.to_owned())
    }

    fn execute<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, SiblingError>> {
        Box::pin(async move { Ok(self.net.at(at, plugin)?.execute_here(request, link).await) })
    }

    fn listen<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        filter: &'a ListenFilter,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<(), SiblingError>> {
        Box::pin(async move {
            let heard = self.net.at(at, plugin)?.listen_here(filter, request, link).await;
            heard.map_err(|cause| SiblingError::Lost(cause.to_string()))
        })
    }

    fn list<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        kind: ListKind,
    ) -> BoxFuture<'a, Result<Result<Definitions, UpstreamError>, SiblingError>> {
        Box::pin(async move { Ok(self.net.at(at, plugin)?.list_here(kind).await) })
    }

    fn facts<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
    ) -> BoxFuture<'a, Result<Result<ServerFacts, UpstreamError>, SiblingError>> {
        Box::pin(async move { Ok(self.net.at(at, plugin)?.capabilities_here().await) })
    }

    fn session<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
        gone: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<SharedSession>, SiblingError>> {
        Box::pin(async move {
            let session = self.net.at(at, plugin)?.session_for(owner, gone).await;
            session.map_err(|cause| SiblingError::NotReached(cause.to_string()))
        })
    }

    fn known_session<'a>(
        &'a self,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
    ) -> BoxFuture<'a, Option<SharedSession>> {
        let known = self.net.others(self.own).filter_map(|node| self.net.plugin(node, plugin).ok());
        let known: Vec<SharedSession> = known.filter_map(|plugin| plugin.known_session(owner)).collect();
        Box::pin(std::future::ready(known.into_iter().next()))
    }

    fn share_session<'a>(
        &'a self,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
        session: &'a SharedSession,
    ) -> BoxFuture<'a, ()> {
        for plugin in self.net.others(self.own).filter_map(|node| self.net.plugin(node, plugin).ok()) {
            plugin.note_session(owner.clone(), session.clone());
        }
        Box::pin(std::future::ready(()))
    }
}

/// Three nodes with the plugin `up`.
struct Cluster {
    net: Arc<Net>,
    spec: PluginSpec,
    _server: Option<HttpServer>,
}

impl Cluster {
    fn new(spec: PluginSpec, server: Option<HttpServer>) -> Self {
        let net = Arc::new(Net::default());
        let node = |own: &'static str| (own, started(own, &net, &spec));
        let nodes = NAMES.into_iter().map(node).collect();
        assert!(net.nodes.set(nodes).is_ok());
        Self { net, spec, _server: server }
    }

    fn stdio(instances: Instances) -> Self {
        let PluginSource::McpStdio(stdio) =
            stdio_spec(env!("CARGO_BIN_EXE_everything-rmcp"), &["--era", "legacy"], Era::Legacy).source
        else {
            unreachable!()
        };
        Self::new(spec(PluginSource::McpStdio(StdioPlugin { instances, ..stdio })), None)
    }

    async fn http() -> Self {
        let server = serve_http(Everything::new(EraChoice::Legacy), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self::new(http_spec(&server.url(), Era::Legacy), Some(server))
    }

    /// With equal endpoints.
    fn endpoints(servers: &[ServerProcess]) -> Self {
        let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
        Self::new(spec_of(&urls, Era::Legacy), None)
    }

    fn plugin(&self, node: &str) -> Arc<Plugin> {
        self.net.nodes.get().unwrap()[node].plugin(&name("acme"), "up").unwrap()
    }

    fn kill(&self, node: &'static str) {
        self.net.dead.lock().unwrap().insert(node);
        self.net.nodes.get().unwrap()[node].stop();
    }

    /// Calls `count_in_session` at a node.
    async fn count(&self, node: &str, client: &ClientFacts) -> String {
        let call = async || {
            let operation = Operation::CallTool("count_in_session".to_owned());
            let params = json!({ "name": "x", "arguments": {} });
            execute(&self.plugin(node), operation, params, client, &TestLink::default()).await
        };
        text(&certain(call).await)
    }
}

fn started(own: &'static str, net: &Arc<Net>, spec: &PluginSpec) -> Arc<Toolbox> {
    let seat = Seat { own, net: net.clone() };
    let toolbox = toolbox_among(Limits::default(), Some(Arc::new(seat)));
    toolbox.reconcile(&snapshot(&[("up", spec.clone())]));
    toolbox
}

/// A client that cannot be asked.
fn mute(session: &str) -> ClientFacts {
    ClientFacts { capabilities: RawJson::EMPTY_OBJECT, ..legacy_client(session) }
}

#[tokio::test]
async fn one_process_serves_all_nodes_and_another_one_begins_anew() {
    let cluster = Cluster::stdio(Instances::One);
    let client = mute("s");
    for (n, node) in NAMES.into_iter().cycle().take(6).enumerate() {
        assert_eq!(cluster.count(node, &client).await, (n + 1).to_string(), "at {node}");
        let tools = cluster.plugin(node).tools().await.unwrap();
        assert!(tools.iter().any(|tool| tool.name == "count_in_session"));
        assert_eq!(cluster.plugin(node).capabilities().await.unwrap().era, provost_mcp::Era::Legacy);
    }
    let seat = Seat { own: "none", net: cluster.net.clone() };
    let owner = seat.owner("acme\0up\0").unwrap();
    let owner = NAMES.into_iter().find(|name| *name == owner).unwrap();
    cluster.kill(owner);
    let left: Vec<&str> = NAMES.into_iter().filter(|name| *name != owner).collect();
    assert_eq!(cluster.count(left[0], &client).await, "1", "a new process remembers nothing");
    assert_eq!(cluster.count(left[1], &client).await, "2");
    assert_eq!(cluster.spec.timeout_ms, 0);
}

#[tokio::test]
async fn every_node_has_a_process_of_its_own_if_it_is_told_to() {
    let cluster = Cluster::stdio(Instances::EveryNode);
    for round in 1..3 {
        for node in NAMES {
            assert_eq!(cluster.count(node, &mute("s")).await, round.to_string(), "at {node}");
        }
    }
}

#[tokio::test]
async fn an_upstream_session_is_continued_at_every_node_and_outlives_each() {
    let cluster = Cluster::http().await;
    // One that can be asked is executed where its session is; one that cannot, everywhere.
    for client in [legacy_client("asked"), mute("mute")] {
        for (n, node) in NAMES.into_iter().cycle().take(6).enumerate() {
            assert_eq!(cluster.count(node, &client).await, (n + 1).to_string(), "at {node}, {:?}", client.session);
        }
    }
    // Another client's session is another one.
    assert_eq!(cluster.count("a", &mute("other")).await, "1");
    cluster.kill("a");
    assert_eq!(cluster.count("b", &legacy_client("asked")).await, "7");
    assert_eq!(cluster.count("c", &mute("mute")).await, "7");
    cluster.kill("b");
    assert_eq!(cluster.count("c", &legacy_client("asked")).await, "8");
    assert_eq!(cluster.count("c", &mute("mute")).await, "8");
}

#[tokio::test]
async fn the_end_of_a_clients_session_ends_its_upstream_session_though_the_node_that_opened_it_is_gone() {
    let cluster = Cluster::http().await;
    let seat = Seat { own: "none", net: cluster.net.clone() };
    for client in [legacy_client("asked"), mute("mute")] {
        let session = client.session.as_deref().unwrap();
        let alive: Vec<&str> = NAMES.into_iter().filter(|name| !cluster.net.is_dead(name)).collect();
        for (n, node) in alive.iter().cycle().take(4).enumerate() {
            assert_eq!(cluster.count(node, &client).await, (n + 1).to_string(), "at {node}");
        }
        let caller = format!("s:{}:{session}", principal());
        let owner = SessionOwner { caller: caller.clone(), capabilities: client.capabilities.as_str().to_owned() };
        let shared = alive.iter().find_map(|node| cluster.plugin(node).known_session(&owner)).unwrap();
        // Where it was opened, unless that was the first to go.
        let gone = seat.owner(&caller).and_then(|name| NAMES.into_iter().find(|own| *own == name)).unwrap();
        if alive.len() > 2 {
            cluster.kill(gone);
        }
        let left: Vec<&str> = NAMES.into_iter().filter(|name| !cluster.net.is_dead(name)).collect();
        for (n, node) in left.iter().enumerate() {
            cluster.net.nodes.get().unwrap()[node].end_session(session, n == 0);
            assert!(cluster.plugin(node).known_session(&owner).is_none(), "nothing is kept at {node}");
        }
        // Somebody who still had its id would find it gone.
        for node in &left {
            cluster.plugin(node).note_session(owner.clone(), shared.clone());
        }
        let began = std::time::Instant::now();
        while cluster.count(left[0], &client).await != "1" {
            assert!(began.elapsed() < std::time::Duration::from_secs(30), "the upstream still has the session");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        // Others' sessions are not touched.
        assert_eq!(cluster.count(left[0], &mute("other")).await, if alive.len() > 2 { "1" } else { "2" });
    }
}

#[tokio::test]
async fn a_session_is_at_one_endpoint_for_every_node_and_moves_with_all() {
    let mut servers = vec![ServerProcess::start("legacy"), ServerProcess::start("legacy")];
    let cluster = Cluster::endpoints(&servers);
    let clients: Vec<ClientFacts> =
        (0..4).flat_map(|n| [legacy_client(&format!("asked{n}")), mute(&format!("mute{n}"))]).collect();
    for (n, node) in NAMES.into_iter().cycle().take(6).enumerate() {
        for client in &clients {
            assert_eq!(cluster.count(node, client).await, (n + 1).to_string(), "at {node}, {:?}", client.session);
        }
    }
    drop(servers.remove(0));
    // Its sessions begin anew at the other one, once for all nodes; those of the other go on.
    for client in &clients {
        let mut counts = Vec::new();
        for node in NAMES {
            counts.push(cluster.count(node, client).await);
        }
        assert!(counts == ["1", "2", "3"] || counts == ["7", "8", "9"], "{counts:?} of {:?}", client.session);
    }
}

#[tokio::test]
async fn a_call_that_waits_for_its_client_goes_on_from_any_node() {
    for cluster in [Cluster::http().await, Cluster::stdio(Instances::One), Cluster::stdio(Instances::EveryNode)] {
        let ask = async |node: &'static str, more: Value| {
            let mut params = json!({ "name": "x", "arguments": { "message": "who?" } });
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let operation = Operation::CallTool("test_elicitation".to_owned());
            execute(&cluster.plugin(node), operation, params, &modern_client(), &TestLink::default()).await
        };
        let asked = body(&ask("a", json!({})).await);
        let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
        let answer = json!({ "action": "accept", "content": { "username": "ann", "email": "a@b.c" } });
        let retry = json!({ "inputResponses": { key: answer }, "requestState": asked["requestState"] });
        let done = ask("b", retry.clone()).await;
        assert!(text(&done).contains("ann"), "{done:?}");
        // It is good once, and gone with its node.
        assert_eq!(pv_code(&ask("c", retry).await), "PV-UPSTREAM-QUESTION-EXPIRED");
        let asked = body(&ask("a", json!({})).await);
        let keeper = asked["requestState"].as_str().unwrap().strip_prefix("provost-parked-").unwrap();
        let keeper = keeper.split_once('-').unwrap().0;
        let keeper = NAMES.into_iter().find(|name| *name == keeper).unwrap();
        cluster.kill(keeper);
        let other = NAMES.into_iter().find(|name| *name != keeper).unwrap();
        let retry = json!({ "inputResponses": {}, "requestState": asked["requestState"] });
        assert_eq!(pv_code(&ask(other, retry).await), "PV-UPSTREAM-QUESTION-EXPIRED");
    }
}
