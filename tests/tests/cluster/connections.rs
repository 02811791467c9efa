//! A consent that goes from node to node: each step at another one, and every node uses what it gave.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    any_node_scene::{NODES, PATIENCE, scene},
    connections_browser::Browser,
    connections_world::World,
    harness::{Process, modern, post, upstream_yaml},
};

fn documents(up: &Process, world: &World) -> String {
    upstream_yaml(&up.url)
        + &format!(
            "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: mail, tenant: acme }}\nspec:\n  source:\n    \
             mcp-http: {{ url: '{}', era: modern, auth: {{ perUser: {{ clientId: gateway, scope: mail:read }} }} }}\n",
            world.url()
        )
}

fn call(url: &str, token: &str, state: Option<&Value>) -> Value {
    let mut body = modern("tools/call", json!({"name": "mail.t", "arguments": {}}));
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {"url": {}}});
    if let Some(state) = state {
        body["params"]["requestState"] = state.clone();
        body["params"]["inputResponses"] = json!({"connect": {"action": "accept"}});
    }
    post(url, token, &body).1
}

/// The address as another node has it.
fn at(url: &str, base: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    let base = url::Url::parse(base).unwrap();
    url.set_host(base.host_str()).unwrap();
    url.set_port(base.port()).unwrap();
    url.into()
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_consent_goes_from_node_to_node_and_one_node_refreshes() {
    let (up, world) = (Process::everything("modern"), World::start(2));
    let (fleet, token) = scene("consents", &documents(&up, &world), "up.count_begun");
    let urls = NODES.map(|node| fleet.servers[node].mcp());
    let bases = urls.clone().map(|url| url.trim_end_matches("/mcp").to_owned());

    let asked = call(&urls[0], &token, None);
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let state = &asked["result"]["requestState"];
    let url = asked["result"]["inputRequests"]["connect"]["params"]["url"].as_str().unwrap();
    let mut browser = Browser::default();
    let page = browser.get(&at(url, &bases[1]));
    assert_eq!(page.status, 200, "{page:?}");
    let ticket = url::Url::parse(url).unwrap().query_pairs().next().unwrap().1.into_owned();
    let form = [("ticket", ticket.as_str()), ("token", token.as_str())];
    let page = browser.post(&format!("{}/connect", bases[1]), &form, &[("origin", &bases[1])]);
    assert_eq!(page.status, 303, "{page:?}");
    let back = browser.get(&format!("{}&login=ann-account", page.location));
    assert!(back.location.starts_with(&bases[1]), "{back:?}");
    let done = browser.get(&at(&back.location, &bases[2]));
    assert!(done.status == 200 && done.text.contains("Connected"), "{done:?}");
    // A replay at a node that has not seen it.
    let answered = call(&urls[0], &token, Some(state));
    assert_eq!(text(&answered), "for ann-account, Bearer [redacted]");

    // All nodes use it, and refresh it all the time: the server would notice a token that comes twice.
    std::thread::scope(|scope| {
        for url in &urls {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..6 {
                        assert_eq!(text(&call(url, &token, None)), "for ann-account, Bearer [redacted]");
                    }
                });
            }
        }
    });
    let refreshes = world.asked().iter().filter(|f| f["grant_type"] == "refresh_token").count();
    println!("36 calls at three nodes with tokens of 2 s: {refreshes} refreshes");
    assert!(refreshes > 0 && !world.was_reused(), "a refresh token was used twice ({refreshes} refreshes)");

    fleet.ok("cp-1", &["connections", "revoke", "--principal", "bot", "--plugin", "mail"]);
    let began = Instant::now();
    for url in &urls {
        while call(url, &token, None)["result"]["resultType"] != "input_required" {
            assert!(began.elapsed() < PATIENCE, "{url} still uses it");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
