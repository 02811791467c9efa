//! Two nodes that know each other, over loopback without TLS: a legacy session that uses both.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use provost_data_serve::siblings::{SiblingAddress, SiblingCallers, SiblingService, SiblingSlot, Siblings};
use provost_types::{BoxFuture, Phase};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Extensions, Status,
    transport::{Endpoint, Server, server::TcpIncoming},
};

use crate::world::{Session, World, read, read_until};

/// Whoever calls, or nobody.
struct Everybody(bool);

impl SiblingCallers for Everybody {
    fn admit<'a>(&'a self, _: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        let refused = || Status::permission_denied("PV-SIBLING-PEER: nobody is a member");
        Box::pin(std::future::ready(self.0.then_some(()).ok_or_else(refused)))
    }
}

/// A node with its service for the other.
struct Node {
    world: World,
    siblings: Arc<Siblings>,
    address: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(name: &str, world: World, admits: bool) -> Node {
    let siblings = Siblings::new(name);
    let world = World { front: Arc::new(world.alone().with_siblings(siblings.clone())), plane: world.plane };
    let slot = SiblingSlot::default();
    assert!(slot.set(siblings.clone()).is_ok());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = SiblingService::server(slot, Arc::new(Everybody(admits)));
    let serving = Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
    let tasks = vec![tokio::spawn(async move { serving.await.unwrap() })];
    Node { world, siblings, address, tasks }
}

/// Both know both, and have greeted each other.
async fn two(admits: bool) -> (Node, Node) {
    let first = World::new();
    let second = first.sibling();
    let (mut a, mut b) = (serve("a", first, admits).await, serve("b", second, admits).await);
    let known = [("a", a.address.clone()), ("b", b.address.clone())];
    for node in [&mut a, &mut b] {
        let member = |(name, address): &(&str, String)| SiblingAddress {
            name: (*name).to_owned(),
            address: address.clone(),
            channel: Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy(),
        };
        node.siblings.set(known.iter().map(member).collect());
        node.tasks.push(tokio::spawn(node.siblings.clone().watch()));
    }
    (a, b)
}

fn at<'a>(node: &'a Node, session: &Session<'_>) -> Session<'a> {
    Session { world: &node.world, bearer: session.bearer.clone(), id: session.id.clone() }
}

/// Does something again until it has come about.
async fn until<F: Future<Output = bool>>(what: &str, attempt: impl Fn() -> F) {
    let began = Instant::now();
    while !attempt().await {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_question_of_one_node_is_answered_at_the_other() {
    let (a, b) = two(true).await;
    let here = a.world.session("token-alice").await;
    let there = at(&b, &here);
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "ask" } });
    let mut stream = here.begin(call).await.into_body();
    let (_, asked) = read_until(&mut stream, |v| v["method"] == json!("elicitation/create")).await;
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {
        "action": "accept", "content": { "name": "Ada" } } });
    // Another's session cannot answer for this one, at whichever node.
    let stranger = b.world.session("token-bob").await;
    assert_eq!(stranger.post(answer.clone()).await.status, StatusCode::ACCEPTED);
    assert_eq!(there.post(answer).await.status, StatusCode::ACCEPTED);
    let (_, answered) = read_until(&mut stream, |v| v["id"] == json!(4)).await;
    assert_eq!(answered["result"]["content"][0]["text"], json!("Hello, Ada! []"));
}

#[tokio::test]
async fn a_stream_of_one_node_is_taken_up_at_the_other() {
    let (a, b) = two(true).await;
    let here = a.world.session("token-alice").await;
    let there = at(&b, &here);
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "gate" } });
    let mut stream = here.begin(call).await.into_body();
    let (text, _) = read_until(&mut stream, |v| v["method"] == json!("notifications/progress")).await;
    let last = text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(stream);
    let mut rest = there.get(&last).await.into_body();
    a.world.plane.changes.send("go").unwrap();
    let (text, answered) = read_until(&mut rest, |v| v["id"] == json!(4)).await;
    assert_eq!(answered["result"]["content"][0]["text"], json!("through"));
    assert!(!text.contains("notifications/progress"), "only what was missed: {text}");
    // Another's session has no such stream: its client gets a new one, in which nothing of this is said.
    let stranger = b.world.session("token-bob").await;
    let response = stranger.get(&last).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut fresh = response.into_body();
    let heard = tokio::time::timeout(Duration::from_millis(300), read_until(&mut fresh, |v| v["id"] == json!(4)));
    assert!(heard.await.is_err(), "a stream of another session was handed out");
    // Nor does it exist under the tag of a process that is gone.
    let gone = format!("{}-00000000", last.rsplit_once('-').unwrap().0);
    assert_eq!(there.get(&gone).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_call_is_cancelled_and_a_session_ended_at_the_other_node() {
    let (a, b) = two(true).await;
    let here = a.world.session("token-alice").await;
    let there = at(&b, &here);
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "wait" } });
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    let cancelling = async {
        while a.world.plane.recorded(Phase::Intent, "wait").is_empty() {
            tokio::task::yield_now().await;
        }
        // Until the nodes have greeted each other nobody is told.
        let began = Instant::now();
        while a.world.plane.recorded(Phase::Outcome, "wait").is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "it is not cancelled");
            assert_eq!(there.post(cancel.clone()).await.status, StatusCode::ACCEPTED);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (response, ()) = tokio::join!(here.begin(call), cancelling);
    assert_eq!(read(response).await.pv(), "PV-CALL-CANCELLED");

    // The level that is set at one node holds at the other.
    let set = there.call("logging/setLevel", json!({ "level": "warning" })).await;
    assert_eq!(set.json()["result"], json!({}));
    let logged = here.call("tools/call", json!({ "name": "log" })).await;
    let levels: Vec<_> =
        logged.events().iter().filter_map(|e| e["params"]["level"].as_str().map(str::to_owned)).collect();
    assert_eq!(levels, ["warning"]);

    let ended = b.world.send(Method::DELETE, "/mcp", &there.headers(), "").await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert_eq!(here.call("tools/list", json!({})).await.status, StatusCode::NOT_FOUND);
    // Others' sessions go on.
    assert_eq!(b.world.session("token-alice").await.call("tools/list", json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_is_no_member_is_told_nothing_and_tells_nothing() {
    let (a, b) = two(false).await;
    let here = a.world.session("token-alice").await;
    let there = at(&b, &here);
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "ask" } });
    let mut stream = here.begin(call).await.into_body();
    let (text, asked) = read_until(&mut stream, |v| v["method"] == json!("elicitation/create")).await;
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "action": "accept" } });
    assert_eq!(there.post(answer).await.status, StatusCode::ACCEPTED);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    assert_eq!(there.get(&last).await.status(), StatusCode::OK, "a new stream");
    let heard = tokio::time::timeout(Duration::from_millis(300), read_until(&mut stream, |v| v["id"] == json!(4)));
    assert!(heard.await.is_err(), "the answer got through");
    until("the calls of the session are known", || async { !a.world.plane.recorded(Phase::Intent, "ask").is_empty() })
        .await;
}
