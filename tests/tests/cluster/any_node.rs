//! Any node serves any client: sessions that go from node to node, nodes that die and that go.

use serde_json::json;

use crate::{
    any_node_scene::{LegacyClient, NODES, addresses, event, ready, scene},
    balancer::{Balancer, Turns},
    harness::{Process, modern, post, upstream_yaml},
    processes::{Fleet, SOON},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_legacy_session_goes_from_node_to_node() {
    let up = Process::everything("modern");
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("wander", &upstream_yaml(&up.url), "up.count_begun"));
    let urls = NODES.map(|node| fleet.servers[node].mcp());
    let client = LegacyClient::open(&urls[0], &token, json!({ "elicitation": {} })).await;

    // Each node serves it.
    for url in &urls {
        let answer = client.call(url, "up.test_simple_text", json!({})).await;
        assert!(answer["result"]["content"].is_array(), "{url}: {answer}");
    }

    // A level that was set at one node holds at the others, once the nodes know each other. The upstream logs at
    // the level that it is asked for.
    let deadline = std::time::Instant::now() + SOON;
    'set: loop {
        let set = client.ask(&urls[1], "logging/setLevel", json!({ "level": "emergency" })).await;
        assert_eq!(set["result"], json!({}), "{set}");
        for url in &urls {
            let body = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call",
                "params": { "name": "up.test_tool_with_logging", "arguments": {} } });
            let text = client.begin(url, &body).await.text().await.unwrap();
            if !text.contains(r#""level":"emergency""#) {
                assert!(std::time::Instant::now() < deadline, "{url}: {text}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue 'set;
            }
        }
        break;
    }

    // A question that one node asks is answered at another, and the stream is taken up at the third.
    let call = json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": { "name": "up.test_elicitation", "arguments": { "message": "who?" } } });
    let mut stream = client.begin(&urls[0], &call).await;
    let (last, asked) = event(&mut stream, |said| said["method"] == "elicitation/create").await;
    drop(stream);
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"],
        "result": { "action": "accept", "content": { "username": "ada", "email": "a@example.org" } } });
    client.tell(&urls[1], answer).await;
    let mut rest = client.listen(&urls[2], Some(&last)).await;
    let (_, said) = event(&mut rest, |said| said["id"] == 3).await;
    assert!(said["result"]["content"][0]["text"].as_str().unwrap().contains("accept"), "{said}");

    // A call is cancelled at another node than the one that runs it.
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call",
        "params": { "name": "up.slow", "arguments": { "ms": 4_000 } } });
    let before: u64 = client.text(&urls[0], "up.count_begun").await.parse().unwrap();
    let running = {
        let (url, call) = (urls[0].clone(), call.clone());
        let client = LegacyClient::open(&urls[0], &token, json!({})).await;
        let session = client.session.clone();
        (tokio::spawn(async move { client.begin(&url, &call).await.text().await.unwrap() }), session)
    };
    while client.text(&urls[0], "up.count_begun").await.parse::<u64>().unwrap() == before {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut canceller = LegacyClient::open(&urls[2], &token, json!({})).await;
    canceller.session = running.1;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 4 } });
    canceller.tell(&urls[2], cancel).await;
    let said = running.0.await.unwrap();
    assert!(said.contains("PV-CALL-CANCELLED"), "{said}");

    // The node where it began dies, and it goes on; and after that node is back.
    fleet.get("dp-1").kill();
    for url in &urls[1..] {
        let answer = client.call(url, "up.test_simple_text", json!({})).await;
        assert!(answer["result"]["content"].is_array(), "{url}: {answer}");
    }
    tokio::task::block_in_place(|| {
        fleet.start("dp-1");
        crate::any_node_scene::ready(&fleet, "dp-1", &token, "up.count_begun");
    });
    let answer = client.call(&urls[0], "up.test_simple_text", json!({})).await;
    assert!(answer["result"]["content"].is_array(), "{answer}");

    // What is ended at one node is ended at all.
    assert_eq!(client.end(&urls[1]).await, 204);
    for url in &urls[1..] {
        let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/list" });
        assert_eq!(client.begin(url, &body).await.status().as_u16(), 404, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_outlive_a_rotation_of_the_keys() {
    let up = Process::everything("modern");
    let (fleet, token) = tokio::task::block_in_place(|| scene("rotate", &upstream_yaml(&up.url), "up.count_begun"));
    let balancer = Balancer::start(addresses(&fleet), Turns::Requests, None).await;
    let url = balancer.url("/mcp");
    let old = LegacyClient::open(&url, &token, json!({})).await;
    tokio::task::block_in_place(|| fleet.ok("cp-1", &["cluster", "rotate-keys"]));
    let new = LegacyClient::open(&url, &token, json!({})).await;
    for client in [&old, &new, &old, &new, &old, &new] {
        let answer = client.call(&url, "up.test_simple_text", json!({})).await;
        assert!(answer["result"]["content"].is_array(), "{answer}");
    }
    assert!(balancer.served().iter().all(|n| *n >= 3), "{:?}", balancer.served());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tokens_of_guards_outlive_rotations_of_the_keys_on_every_node() {
    const CARD: &str = "4111 1111 1111 1111";
    let up = Process::everything("modern");
    let mut documents = upstream_yaml(&up.url);
    for plugin in ["rows", "pay"] {
        documents += &document("Plugin", plugin, "{ source: { builtin: { name: echo } } }");
    }
    let card = "rules: [ { kinds: [card], action: tokenise } ]";
    documents += &document("Guard", "rows", &format!("{{ directions: [results], tools: ['rows.*'], {card} }}"));
    let reveal = "reveal: { principals: [bot], directions: [arguments] }";
    documents +=
        &document("Guard", "pay", &format!("{{ directions: [arguments], tools: ['pay.*'], {card}, {reveal} }}"));
    tokio::task::block_in_place(|| {
        let (mut fleet, token) = scene("tokens", &documents, "up.count_begun");
        let echo = |fleet: &Fleet, node: &str, plugin: &str, text: &str| {
            let call = modern("tools/call", json!({ "name": format!("{plugin}.echo"), "arguments": { "text": text } }));
            let url = fleet.servers[node].mcp();
            let token = token.clone();
            // Not on a thread of the runtime's.
            let answer = std::thread::spawn(move || post(&url, &token, &call).1).join().unwrap();
            let said = answer["result"]["content"][0]["text"].as_str();
            said.unwrap_or_else(|| panic!("{answer}")).to_owned()
        };
        let sealed = echo(&fleet, NODES[0], "rows", CARD);
        assert!(sealed.starts_with("[[pv:card:"), "{sealed}");
        for _ in 0..2 {
            fleet.ok("cp-1", &["cluster", "rotate-keys"]);
        }
        // A node that never saw the key while it was the newest.
        assert!(fleet.get(NODES[1]).terminate().1.success());
        fleet.start(NODES[1]);
        ready(&fleet, NODES[1], &token, "up.count_begun");
        for node in NODES {
            fleet.until("the token opens", |fleet| echo(fleet, node, "pay", &sealed) == CARD);
        }
    });
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}, tenant: acme }}\nspec: {spec}\n")
}
