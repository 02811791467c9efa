//! Plugins that act in their users' names: a call, the elicitation, the browser, and the call again.

mod attacks;
mod browser;
mod keeping;
mod notices;
mod own;
mod world;

use browser::{Browser, Page};
use serde_json::{Value, json};
use world::World;

use crate::harness::{Dev, modern, post, text, until, upstream_yaml};

/// Two people who may use the plugin `up`, which acts in their names.
fn documents(world: &World) -> String {
    upstream_yaml(&world.url()).replace("principals: [bot]", "principals: [bot, eve]").replace(
        &format!("mcp-http: {{ url: '{}' }}", world.url()),
        &format!(
            "mcp-http: {{ url: '{}', era: modern, auth: {{ perUser: {{ clientId: gateway, scope: mail:read }} }} }}",
            world.url()
        ),
    ) + "---\napiVersion: provost/v1\nkind: Principal\nmetadata: { name: eve, tenant: acme }\nspec: { type: agent }\n"
}

fn token_of(dev: &Dev, principal: &str) -> String {
    let made = dev.cli(&["token", "create", "--tenant", "acme", "--principal", principal, "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{}", text(&made)));
    let token = made["token"].as_str().unwrap().to_owned();
    until(|| (post(dev.mcp(), &token, &modern("tools/list", json!({}))).0 == 200).then_some(()));
    token
}

/// A call of a client that can be sent to addresses.
fn call(dev: &Dev, token: &str, back: Option<(&Value, &str)>) -> Value {
    let mut body = modern("tools/call", json!({"name": "up.t", "arguments": {}}));
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {"url": {}}});
    if let Some((state, action)) = back {
        body["params"]["requestState"] = state.clone();
        body["params"]["inputResponses"] = json!({"connect": {"action": action}});
    }
    post(dev.mcp(), token, &body).1
}

/// The address that a call names, and the state to come back with.
fn asked(answer: &Value) -> (String, Value) {
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    let request = &answer["result"]["inputRequests"]["connect"];
    assert_eq!(
        (&request["method"], &request["params"]["mode"]),
        (&json!("elicitation/create"), &json!("url")),
        "{answer}"
    );
    (request["params"]["url"].as_str().unwrap().to_owned(), answer["result"]["requestState"].clone())
}

fn ticket(url: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == "ticket").unwrap().1.into_owned()
}

/// To the authorization server: the page's answer, with the user's token given.
fn begin(dev: &Dev, browser: &mut Browser, url: &str, token: &str) -> Page {
    let page = browser.get(url);
    assert!(page.status == 200 && (page.text.contains("bot") || page.text.contains("eve")), "{page:?}");
    let start = format!("{}/connect", dev.base());
    browser.post(&start, &[("ticket", &ticket(url)), ("token", token)], &[("origin", &dev.base())])
}

/// Where the authorization server sends the user of this account back to.
fn consent(browser: &mut Browser, page: &Page, account: &str) -> String {
    assert_eq!(page.status, 303, "{page:?}");
    let back = browser.get(&format!("{}&login={account}", page.location));
    assert_eq!(back.status, 302, "{back:?}");
    back.location
}

/// All of it; the call's answer at the end.
fn connect(dev: &Dev, token: &str, account: &str) -> Value {
    let (url, state) = asked(&call(dev, token, None));
    let mut browser = Browser::default();
    let page = begin(dev, &mut browser, &url, token);
    let back = consent(&mut browser, &page, account);
    let done = browser.get(&back);
    assert!(done.status == 200 && done.text.contains("Connected"), "{done:?}");
    call(dev, token, Some((&state, "accept")))
}

fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_user_consents_in_a_browser_and_the_call_goes_on() {
    let world = World::start(3_600);
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start_env(&dir.path().join("data"), Some(&documents(&world)), &[], &[("PROVOST_LOG", "debug")]);
    let (bot, eve) = (dev.token().to_owned(), token_of(&dev, "eve"));

    // Who cannot be sent anywhere is told the address.
    let plain = post(dev.mcp(), &bot, &modern("tools/call", json!({"name": "up.t", "arguments": {}}))).1;
    assert_eq!(plain["error"]["data"]["code"], "PV-UPSTREAM-CONSENT", "{plain}");
    let url = plain["error"]["data"]["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/connect?ticket=", dev.base())), "{url}");
    assert!(plain["error"]["message"].as_str().unwrap().contains(url), "{plain}");

    let (_, state) = asked(&call(&dev, &bot, None));
    let declined = call(&dev, &bot, Some((&state, "decline")));
    assert_eq!(declined["error"]["data"]["code"], "PV-UPSTREAM-CONSENT", "{declined}");
    assert!(world.calls().is_empty() && world.asked().is_empty(), "something was sent before the consent");

    assert_eq!(said(&connect(&dev, &bot, "ann-account")), "for ann-account, Bearer [redacted]");
    assert_eq!(said(&call(&dev, &bot, None)), "for ann-account, Bearer [redacted]");
    let asked_for = world.asked();
    assert_eq!(asked_for.len(), 1, "{asked_for:?}");
    assert_eq!(asked_for[0]["redirect_uri"], format!("{}/connect/callback/acme/up", dev.base()));
    assert_eq!(asked_for[0]["resource"], world.url());

    // Another principal of the tenant has nothing of it, and an account of their own.
    asked(&call(&dev, &eve, None));
    assert_eq!(said(&connect(&dev, &eve, "eve-account")), "for eve-account, Bearer [redacted]");
    assert_eq!(said(&call(&dev, &bot, None)), "for ann-account, Bearer [redacted]");

    // It is listed, recorded and nowhere to be read.
    let listed = dev.cli(&["connections", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_else(|_| panic!("{}", text(&listed)));
    let whose: Vec<&str> =
        listed["connections"].as_array().unwrap().iter().map(|c| c["principal"].as_str().unwrap()).collect();
    assert_eq!(
        {
            let mut whose = whose.clone();
            whose.sort_unstable();
            whose
        },
        ["bot", "eve"],
        "{listed}"
    );
    assert_eq!(listed["connections"][0]["scope"], "mail:read");
    let records = crate::websocket::records(&dev, &["--tool", "up.t"]);
    assert!(records.iter().any(|r| r["secrets"] == json!(["connection/own"])), "{records:?}");
    let events = text(&dev.cli(&["audit", "query", "--json"]));
    assert!(events.contains("connection.made"), "{events}");
    let mut everything = format!("{records:?}{events}{}", dev.stderr());
    for args in [
        &["connections", "list"][..],
        &["get", "Connection", "-o", "yaml"],
        &["get", "Connection", "-o", "json"],
        &["history", "--json"],
    ] {
        let shown = dev.cli(args);
        assert!(shown.status.success(), "{}", text(&shown));
        everything.push_str(&text(&shown));
    }
    for value in world.given().iter().filter(|value| !value.starts_with("code-")) {
        assert!(!everything.contains(value.as_str()), "{value} was shown");
    }
}

#[test]
fn a_client_of_2025_is_told_by_an_error_and_when_it_is_done() {
    let world = World::start(3_600);
    let dev = Dev::start(Some(&documents(&world)), &[]);
    let bot = dev.token().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = |session: &str, body: &Value| {
        let mut request = client.post(dev.mcp()).header("authorization", format!("Bearer {bot}"));
        request = request.header("content-type", "application/json");
        request = request.header("accept", "application/json, text/event-stream");
        if !session.is_empty() {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
        }
        request.body(body.to_string())
    };
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {"elicitation": {"url": {}}},
        "clientInfo": {"name": "a", "version": "1"}}});
    let session = runtime.block_on(async {
        let response = request("", &initialize).send().await.unwrap();
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    });
    let stream = client.get(dev.mcp()).header("authorization", format!("Bearer {bot}"));
    let stream = stream.header("mcp-session-id", &session).header("mcp-protocol-version", "2025-11-25");
    let mut stream = runtime.block_on(stream.header("accept", "text/event-stream").send()).unwrap();
    assert_eq!(stream.status(), 200);

    let tool = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "up.t", "arguments": {}}});
    let calls = || {
        let text = runtime.block_on(async { request(&session, &tool).send().await.unwrap().text().await.unwrap() });
        let last = text.lines().filter_map(|line| line.strip_prefix("data:")).next_back().unwrap_or(&text);
        serde_json::from_str::<Value>(last).unwrap_or_else(|_| panic!("{text}"))
    };
    let refused = calls();
    assert_eq!(refused["error"]["code"], -32042, "{refused}");
    let elicited = &refused["error"]["data"]["elicitations"][0];
    assert_eq!(elicited["mode"], "url", "{refused}");
    let (url, id) = (elicited["url"].as_str().unwrap(), elicited["elicitationId"].as_str().unwrap());

    let mut browser = Browser::default();
    let page = begin(&dev, &mut browser, url, &bot);
    let back = consent(&mut browser, &page, "ann-account");
    assert_eq!(browser.get(&back).status, 200);
    let heard = runtime.block_on(async {
        let mut heard = String::new();
        let reading = async {
            while !heard.contains("notifications/elicitation/complete") {
                let Some(chunk) = stream.chunk().await.unwrap() else { break };
                heard.push_str(&String::from_utf8_lossy(&chunk));
            }
        };
        tokio::time::timeout(crate::harness::START_LIMIT, reading).await.unwrap();
        heard
    });
    assert!(heard.contains("notifications/elicitation/complete") && heard.contains(id), "{heard}");
    assert_eq!(said(&calls()), "for ann-account, Bearer [redacted]");
}
