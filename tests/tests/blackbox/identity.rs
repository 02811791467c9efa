//! Callers with tokens of an identity provider: who they are, what they may do, and what they are told when they
//! may not, over every way in.

use serde_json::{Value, json};

use crate::{
    harness::{Dev, modern, post, text, until},
    idp::{Idp, Key, now_s},
    quic_client::Quic,
    ws_client::{Socket, upgrade},
};

pub const AUDIENCE: &str = "https://mcp.example.com/mcp";

fn document(kind: &str, tenant: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}, tenant: {tenant} }}\nspec: {spec}\n")
}

/// Tenant acme with an echo and a clock: `ann` is a principal who may use the echo, `gone` is disabled; the roles
/// `reader` and `keeper` give the clock and everything.
pub fn resources(provider: &Value) -> String {
    let mut yaml = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n".to_owned();
    let mut add = |kind: &str, name: &str, spec: &str| yaml += &document(kind, "acme", name, spec);
    add("Principal", "ann", "{ type: agent, attributes: { region: eu } }");
    add("Principal", "gone", "{ disabled: true }");
    add("Role", "user", "{ rules: [ { tools: ['echo.*'] } ] }");
    add("Role", "reader", "{ rules: [ { tools: ['time.*'] } ] }");
    add("Role", "keeper", "{ rules: [ { tools: ['*'] } ] }");
    add("RoleBinding", "users", "{ role: user, principals: [ann] }");
    add("Plugin", "echo", "{ source: { builtin: { name: echo } } }");
    add("Plugin", "time", "{ source: { builtin: { name: time } } }");
    add("Plugin", "other", "{ source: { builtin: { name: echo } } }");
    add("IdentityProvider", "corp", &provider.to_string());
    yaml
}

pub fn provider(idp: &Idp, more: Value) -> Value {
    let mut spec = json!({ "issuer": idp.issuer(), "audiences": [AUDIENCE] });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// Status, `WWW-Authenticate` and body of a tool call.
pub fn call(dev: &Dev, token: &str, tool: &str) -> (u16, String, Value) {
    let arguments = if tool.ends_with("echo") { json!({ "text": "hi" }) } else { json!({}) };
    let body = modern("tools/call", json!({ "name": tool, "arguments": arguments }));
    send(dev.mcp(), token, &body)
}

pub fn send(url: &str, token: &str, body: &Value) -> (u16, String, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", body["method"].as_str().unwrap());
        if let Some(name) = body["params"]["name"].as_str() {
            request = request.header("mcp-name", name);
        }
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.body(body.to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        let challenge = response.headers().get("www-authenticate").map(|v| v.to_str().unwrap().to_owned());
        let text = response.text().await.unwrap();
        (status, challenge.unwrap_or_default(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    })
}

fn get(url: &str) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(url).send().await.unwrap().json().await.unwrap()
    })
}

pub fn code(answer: &Value) -> &str {
    answer["error"]["data"]["code"].as_str().unwrap_or_default()
}

fn tools(dev: &Dev, token: &str) -> Vec<String> {
    let (_, answer) = post(dev.mcp(), token, &modern("tools/list", json!({})));
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
}

fn last_record(dev: &Dev, args: &[&str]) -> Value {
    let output = dev.cli(&[&["audit", "query", "--json"], args].concat());
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(lines.lines().last().expect("a record")).unwrap()
}

#[test]
fn a_token_names_a_principal_over_every_way_in_and_nothing_keeps_it() {
    let key = Key::p256();
    let idp = Idp::openid(vec![key.jwk("1")]);
    let dev = Dev::start(Some(&resources(&provider(&idp, json!({})))), &[]);
    let token = key.token("1", &idp.claims("ann", AUDIENCE, json!({})));

    let (status, _, answer) = call(&dev, &token, "echo.echo");
    assert_eq!((status, &answer["result"]["content"][0]["text"]), (200, &json!("hi")), "{answer}");
    assert_eq!(tools(&dev, &token), ["echo.echo"]);
    // As a principal of the tenant, so by its bindings: what they do not give is not there, and no scope helps.
    let (status, challenge, answer) = call(&dev, &token, "time.now");
    assert_eq!((status, challenge.as_str(), code(&answer)), (200, "", "PV-TOOL-UNKNOWN"));
    let record = last_record(&dev, &["--tenant", "acme", "--tool", "echo.echo"]);
    assert!(record.to_string().contains("jwt:corp") && record.to_string().contains("ann"), "{record}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut request = upgrade(&dev, "");
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let mut socket = Socket::connect(request).await;
        let body = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "ws" } }));
        let answer = socket.request("tools/call", body["params"].clone()).await;
        assert_eq!(answer["result"]["content"][0]["text"], "ws", "{answer}");

        let quic = Quic::connect(&dev).await;
        let head = json!({ "authorization": format!("Bearer {token}") }).to_string();
        let answer = quic.ask(&head, &body).await.pop().unwrap();
        assert_eq!(answer["result"]["content"][0]["text"], "ws", "{answer}");
        let bad = json!({ "authorization": format!("Bearer {token}x") }).to_string();
        let answer = quic.ask(&bad, &body).await.pop().unwrap();
        assert_eq!(code(&answer), "PV-AUTH-TOKEN", "{answer}");
    });

    // A refused token is recorded, without the token.
    let record = last_record(&dev, &["--status", "denied"]);
    assert_eq!(record["record"]["error.type"], "PV-AUTH-TOKEN", "{record}");
    let signature = token.rsplit('.').next().unwrap();
    assert!(!dev.stderr().contains(signature), "the token is in the log");
    for file in walk(&dev.data) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let found = bytes.windows(signature.len()).any(|w| w == signature.as_bytes());
        assert!(!found, "the token is in {}", file.display());
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() { files.extend(walk(&entry.path())) } else { files.push(entry.path()) }
    }
    files
}

#[test]
fn claims_make_a_caller_and_scopes_step_up() {
    let key = Key::rsa();
    let idp = Idp::start(vec![key.jwk("1")], "/.well-known/oauth-authorization-server");
    let spec = provider(
        &idp,
        json!({ "principals": "any", "scopes": { "clock": ["reader"], "all": ["keeper", "user"] },
            "claims": { "prefix": "corp-", "principalType": "user", "attributes": { "region": "org.region" },
                "roles": { "claim": "groups", "map": { "staff": ["user"] } } } }),
    );
    let policy = "{ cedar: \"forbid(principal, action, resource == Provost::Tool::\\\"other.echo\\\") unless \
                  { principal.attributes.hasTag(\\\"region\\\") && principal.attributes.getTag(\\\"region\\\") == \\\"eu\\\" };\" }";
    let yaml = resources(&spec) + &document("Policy", "acme", "regions", policy);
    let dev = Dev::start(Some(&yaml), &[]);
    let token = |more: Value| key.token("1", &idp.claims("Eve@Example.com", AUDIENCE, more));

    // Nothing is mapped: a caller without rights, who is told what to ask for.
    let bare = token(json!({}));
    assert_eq!(tools(&dev, &bare), Vec::<String>::new());
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", dev.base());
    let (status, challenge, answer) = call(&dev, &bare, "time.now");
    let expect = format!("Bearer error=\"insufficient_scope\", scope=\"clock\", resource_metadata=\"{metadata}\"");
    assert_eq!((status, challenge.as_str(), code(&answer)), (403, expect.as_str(), "PV-POLICY-DENIED"), "{answer}");
    let record = last_record(&dev, &["--tool", "time.now"]);
    assert!(record.to_string().contains("corp-eve-example-com__"), "{record}");

    // With the scope it runs, and the next one is asked for with what the token has.
    let clock = token(json!({ "scope": "clock openid" }));
    assert_eq!(call(&dev, &clock, "time.now").0, 200);
    assert_eq!(tools(&dev, &clock).iter().filter(|t| t.starts_with("echo")).count(), 0);
    let (status, challenge, _) = call(&dev, &clock, "echo.echo");
    assert!(status == 403 && challenge.contains("scope=\"all clock\""), "{status} {challenge}");

    // Groups give roles, attributes decide.
    let staff = token(json!({ "groups": ["staff", "keeper"] }));
    assert_eq!(tools(&dev, &staff), ["echo.echo"]);
    let (status, challenge, answer) = call(&dev, &token(json!({ "scope": "all" })), "other.echo");
    assert_eq!((status, challenge.as_str(), code(&answer)), (200, "", "PV-TOOL-UNKNOWN"), "no scope helps: {answer}");
    let eu = token(json!({ "scope": "all", "org": { "region": "eu" } }));
    assert_eq!(call(&dev, &eu, "other.echo").0, 200);
    assert_eq!(call(&dev, &eu, "other.echo").2["result"]["content"][0]["text"], "hi");

    // Discovery for clients.
    for path in ["", "/mcp"] {
        let document = get(&format!("{}/.well-known/oauth-protected-resource{path}", dev.base()));
        assert_eq!(document["resource"], format!("{}{path}", dev.base()));
        assert_eq!(document["authorization_servers"], json!([idp.issuer()]), "{document}");
        assert_eq!(document["scopes_supported"], json!(["all", "clock"]), "{document}");
    }
    let (status, challenge, answer) = call(&dev, "", "time.now");
    let expect = format!("Bearer scope=\"all clock\", resource_metadata=\"{metadata}\"");
    assert_eq!((status, challenge, code(&answer)), (401, expect, "PV-AUTH-MISSING"));
    let (status, challenge, answer) = call(&dev, &format!("{bare}x"), "time.now");
    assert!(status == 401 && challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
    assert_eq!(code(&answer), "PV-AUTH-TOKEN");
}

/// RFC 9728, section 3.2: a member with no element is left out.
#[test]
fn discovery_leaves_out_what_there_is_none_of() {
    let dev = Dev::start(None, &[]);
    for path in ["", "/mcp", "/mcp/echo"] {
        let document = get(&format!("{}/.well-known/oauth-protected-resource{path}", dev.base()));
        assert_eq!(document["resource"], format!("{}{path}", dev.base()), "{document}");
        assert_eq!(document["bearer_methods_supported"], json!(["header"]), "{document}");
        for member in ["authorization_servers", "scopes_supported"] {
            assert_eq!(document.get(member), None, "{document}");
        }
    }
}

#[test]
fn tokens_for_the_nodes_own_address_and_for_one_plugin() {
    let key = Key::ed25519();
    let idp = Idp::openid(vec![key.jwk("1")]);
    let mut spec = provider(&idp, json!({}));
    spec.as_object_mut().unwrap().remove("audiences");
    let dev = Dev::start(Some(&resources(&spec)), &[]);
    let token = |audience: &str| key.token("1", &idp.claims("ann", audience, json!({})));
    let body = |name: &str| modern("tools/call", json!({ "name": name, "arguments": { "text": "hi" } }));
    let base = dev.base();
    for (audience, merged, alone) in [
        (base.clone(), 200, 200),
        (format!("{base}/mcp"), 200, 200),
        (format!("{base}/mcp/echo"), 401, 200),
        (format!("{base}/mcp/time"), 401, 401),
        (format!("{base}0/mcp"), 401, 401),
        (format!("{base}/"), 200, 200),
        (format!("{base}/v1"), 401, 401),
        (AUDIENCE.to_owned(), 401, 401),
    ] {
        let token = token(&audience);
        assert_eq!(send(dev.mcp(), &token, &body("echo.echo")).0, merged, "{audience} at /mcp");
        assert_eq!(send(&format!("{base}/mcp/echo"), &token, &body("echo")).0, alone, "{audience} at /mcp/echo");
    }
}

#[test]
fn keys_rotate_and_outlive_their_server_and_a_flood_reaches_it_seldom() {
    let (old, new) = (Key::p256(), Key::rsa());
    let idp = Idp::openid(vec![old.jwk("old")]);
    let dev = Dev::start(Some(&resources(&provider(&idp, json!({})))), &[]);
    let claims = |jti: u32| idp.claims("ann", AUDIENCE, json!({ "jti": jti.to_string() }));
    assert_eq!(call(&dev, &old.token("old", &claims(0)), "echo.echo").0, 200);

    // A new key is found by its `kid`, at most a few seconds later.
    idp.publish(vec![old.jwk("old"), new.jwk("new")]);
    until(|| (call(&dev, &new.token("new", &claims(1)), "echo.echo").0 == 200).then_some(()));
    // Tokens of the old one hold as long as it is published.
    assert_eq!(call(&dev, &old.token("old", &claims(0)), "echo.echo").0, 200);

    // Unknown keys are asked for at most once in five seconds, whoever asks.
    let (began, before) = (std::time::Instant::now(), idp.asked_for_anything());
    let mut refused = 0;
    while refused < 60 {
        let (status, _, answer) = call(&dev, &new.token(&format!("no-{refused}"), &claims(2)), "echo.echo");
        assert_eq!((status, code(&answer)), (401, "PV-AUTH-ISSUER-KEYS"), "{answer}");
        refused += 1;
    }
    let (asked, windows) = (idp.asked_for_anything() - before, began.elapsed().as_secs() / 5 + 2);
    println!("identity: {refused} tokens with unknown keys in {:?}: {asked} requests at the provider", began.elapsed());
    assert!(asked <= 2 * windows, "{asked} requests in {:?}", began.elapsed());

    // A key that is gone at the provider is gone here with the next fetch, also for tokens that were good before.
    idp.publish(vec![new.jwk("new")]);
    until(|| {
        call(&dev, &new.token(&format!("x-{}", now_s()), &claims(3)), "echo.echo");
        (call(&dev, &old.token("old", &claims(0)), "echo.echo").0 == 401).then_some(())
    });

    // Without the provider what is known goes on to hold, and what is not known is refused.
    idp.set_down(true);
    assert_eq!(call(&dev, &new.token("new", &claims(4)), "echo.echo").0, 200);
    assert_eq!(call(&dev, &new.token("other", &claims(4)), "echo.echo").0, 401);
    assert_eq!(call(&dev, &new.token("new", &claims(5)), "echo.echo").0, 200);
}

#[test]
fn a_provider_that_never_answered_lets_nobody_in_until_it_does() {
    let key = Key::p384();
    let idp = Idp::openid(vec![key.jwk("1")]);
    idp.set_down(true);
    let spec = provider(&idp, json!({ "algorithms": ["ES384"] }));
    let dev = Dev::start(Some(&resources(&spec)), &[]);
    let token = key.token("1", &idp.claims("ann", AUDIENCE, json!({})));
    let (status, _, answer) = call(&dev, &token, "echo.echo");
    assert_eq!((status, code(&answer)), (401, "PV-AUTH-ISSUER-KEYS"), "{answer}");
    // API keys do not depend on it.
    assert_eq!(dev.cli(&["token", "create", "--principal", "ann", "--tenant", "acme"]).status.code(), Some(0));
    idp.set_down(false);
    until(|| (call(&dev, &token, "echo.echo").0 == 200).then_some(()));
}
