//! All nodes are restarted in turn while agents call through the client library, over every transport.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use provost_client::{Client, Connector, Endpoint, EraChoice, Identity, NoHandler, Options, Transport};
use provost_mcp::{Era, RawJson, RawObject};
use provost_tests::everything::{EraChoice as Upstream, Everything, serve_http};
use serde_json::{Value, json};

use crate::{
    agent_tls::{ca, fleet, url},
    any_node_scene::NODES,
    harness::{STOP_LIMIT, upstream_yaml},
    processes::{Fleet, SOON},
    restore::apply,
};

/// How long one call takes upstream; of every fifth call, longer, so that some are always in flight.
const CALL_MS: (u64, u64) = (5, 500);
/// On each a client knows what a node that goes has not begun.
const TRANSPORTS: [Transport; 4] = [Transport::Http, Transport::WebSocket, Transport::Http3, Transport::Quic];
/// Between two calls of one client.
const PERIOD: Duration = Duration::from_millis(60);
/// Patience with one call.
const LIMIT: Duration = Duration::from_secs(40);

/// A client of these nodes, that prefers the one of this number.
async fn connect(
    fleet: &Fleet,
    nodes: &[&str],
    transport: Transport,
    first: usize,
    era: EraChoice,
    (ca, token): (&Path, &str),
) -> Result<Client, String> {
    let connector = |node: &&str| {
        let endpoint = Endpoint::parse(&url(transport, fleet.servers[*node].http), None).unwrap();
        let options = Options { token: Some(token.to_owned().into()), ca: Some(ca.to_owned()), ..Options::default() };
        Connector::new(endpoint, options).unwrap()
    };
    let mut connectors: Vec<Connector> = nodes.iter().map(connector).collect();
    connectors.rotate_left(first % nodes.len());
    let identity = Identity { name: "test", version: "1", capabilities: RawJson::EMPTY_OBJECT };
    let client = Client::connect_any(&connectors, identity, Arc::new(NoHandler), era).await;
    client.map_err(|e| e.to_string())
}

async fn call(client: &Client, id: &str, ms: u64) -> Result<(), String> {
    let params = json!({ "name": "up.slow", "arguments": { "ms": ms, "id": id } });
    let params = RawObject::parse(&RawJson::from(params)).unwrap();
    let said = client.request("tools/call", params, None, Some(LIMIT)).await.map_err(|e| e.to_string())?;
    let said: Value = serde_json::from_str(said.as_str()).unwrap();
    if said["content"][0]["text"] == "slept" { Ok(()) } else { Err(said.to_string()) }
}

/// Waits until a node takes calls.
async fn ready(fleet: &Fleet, node: &str, trust: (&Path, &str)) {
    let began = Instant::now();
    loop {
        let called = async {
            let era = EraChoice::Only(Era::Modern);
            call(&connect(fleet, &[node], Transport::Http, 0, era, trust).await?, &format!("ready-{node}"), 0).await
        };
        match called.await {
            Ok(()) => return,
            Err(why) => assert!(began.elapsed() < SOON, "{node} takes no calls: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_fails_no_call_of_the_client_and_repeats_none() {
    let upstream = Everything::new(Upstream::Modern);
    let serving = serve_http(upstream.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let documents = upstream_yaml(&serving.url());
    let (mut fleet, token, ca) = tokio::task::block_in_place(|| {
        let fleet = fleet("clients", Duration::from_secs(3_600), "", &NODES);
        apply(&fleet, "cp-1", "up.yaml", &documents);
        let token = fleet.ok("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
        let ca = ca(&fleet);
        (fleet, token, ca)
    });
    for node in NODES {
        ready(&fleet, node, (&ca, &token)).await;
    }

    let (stop, failures) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
    let mut clients = Vec::new();
    let eras = [Era::Modern, Era::Legacy];
    for (n, (transport, era)) in TRANSPORTS.into_iter().flat_map(|t| eras.map(|era| (t, era))).enumerate() {
        // One at each node: whichever goes, somebody is there.
        for first in 0..NODES.len() {
            let client = connect(&fleet, &NODES, transport, first, EraChoice::Only(era), (&ca, &token)).await.unwrap();
            let (stop, failures, done) = (stop.clone(), failures.clone(), Arc::new(AtomicU64::new(0)));
            let counted = done.clone();
            let task = tokio::spawn(async move {
                for k in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let ms = if k % 5 == 0 { CALL_MS.1 } else { CALL_MS.0 };
                    match call(&client, &format!("{n}-{first}-{k}"), ms).await {
                        Ok(()) => drop(counted.fetch_add(1, Ordering::SeqCst)),
                        Err(why) => failures.lock().unwrap().push(format!("{transport:?}, {era:?}: {why}")),
                    }
                    tokio::time::sleep(PERIOD).await;
                }
            });
            clients.push((transport, done, task));
        }
    }
    for node in NODES {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::task::block_in_place(|| {
            let (took, status) = fleet.get(node).terminate();
            assert!(status.success() && took < STOP_LIMIT, "{node}: {status} after {took:?}");
            fleet.start(node);
        });
        ready(&fleet, node, (&ca, &token)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut answered = 0;
    for (transport, done, task) in clients {
        task.await.unwrap();
        let done = done.load(Ordering::SeqCst);
        assert!(done > 10, "{transport:?}: only {done} calls");
        answered += done;
    }
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for why in failures.lock().unwrap().drain(..) {
        *kinds.entry(why).or_default() += 1;
    }
    println!("{answered} calls answered on {} transports while three nodes were restarted", TRANSPORTS.len());
    assert!(kinds.is_empty(), "calls failed: {kinds:#?}");
    // What was sent again had not been begun before.
    let executed = upstream.begun_by_id();
    let twice: Vec<_> = executed.iter().filter(|(id, times)| **times > 1 && !id.starts_with("ready")).collect();
    assert!(twice.is_empty(), "executed more than once: {twice:?}");
}
