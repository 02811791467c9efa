//! Quotas as callers meet them: each level counts for itself, money is counted by prices, and who is
//! refused is told what, until when, in the words of the protocol that they speak.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::{
    harness::{Dev, START_LIMIT, modern, text},
    inference::models_dir,
};

/// One echo for each thing to be counted, so that quotas do not meet.
const PLUGINS: [&str; 6] = ["team", "user", "one", "talk", "paid", "rate"];

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}, tenant: acme }}\nspec: {spec}\n")
}

fn start(models: &std::path::Path) -> Dev {
    let mut yaml = vec!["apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n".to_owned()];
    let mut add = |kind: &str, name: &str, spec: &str| yaml.push(document(kind, name, spec));
    for principal in ["ann", "bob"] {
        add("Principal", principal, "{ type: agent }");
    }
    for plugin in PLUGINS {
        add("Plugin", plugin, "{ source: { builtin: { name: echo } } }");
    }
    add("Role", "all", "{ rules: [ { tools: ['*'], models: ['*'] } ] }");
    add("RoleBinding", "all", "{ role: all, principals: [ann, bob] }");
    add("Quota", "team", "{ limit: 3, unit: calls, window: month, tools: ['team.*'] }");
    add("Quota", "user", "{ limit: 2, unit: calls, window: month, per: principal, tools: ['user.*'] }");
    add("Quota", "one", "{ limit: 1, unit: calls, window: month, tools: ['one.echo'], principals: [ann] }");
    add("Quota", "talk", "{ limit: 2, unit: calls, window: month, per: workflow, tools: ['talk.*'] }");
    add("Quota", "rate", "{ limit: 1, unit: calls, window: second, tools: ['rate.*'] }");
    add("Quota", "money", "{ limit: 1000, unit: cost-micro, window: month, tools: ['paid.*'] }");
    add("Quota", "model", "{ limit: 2, unit: calls, window: month, tools: ['tiny-chat'] }");
    add("Price", "paid", "{ currency: EUR, tools: ['paid.*'], perCallMicro: 400 }");
    add("Price", "tiny", "{ currency: EUR, models: ['tiny-*'], perMillionInputTokensMicro: 1000000 }");
    Dev::start(Some(&yaml.join("---\n")), &["--models", models.to_str().unwrap()])
}

fn token(dev: &Dev, principal: &str) -> String {
    let made = dev.cli(&["token", "create", "--principal", principal, "--json"]);
    assert!(made.status.success(), "{}", text(&made));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

fn send(url: &str, headers: &[(&str, &str)], body: &Value) -> (u16, HeaderMap, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(START_LIMIT).build().unwrap();
        let mut request = client.post(url).header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.json(body).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.json().await.unwrap())
    })
}

fn call(dev: &Dev, token: &str, tool: &str, workflow: &str) -> (u16, HeaderMap, Value) {
    let body = modern("tools/call", json!({ "name": tool, "arguments": { "text": "x" } }));
    let bearer = format!("Bearer {token}");
    let mut headers = vec![
        ("authorization", bearer.as_str()),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", tool),
    ];
    if !workflow.is_empty() {
        headers.push(("x-provost-workflow", workflow));
    }
    send(dev.mcp(), &headers, &body)
}

fn chat(dev: &Dev, token: &str) -> (u16, HeaderMap, Value) {
    let body = json!({ "model": "tiny-chat", "max_tokens": 4, "temperature": 0,
                       "messages": [{ "role": "user", "content": "hello" }] });
    let bearer = format!("Bearer {token}");
    send(&format!("{}/v1/chat/completions", dev.base()), &[("authorization", &bearer)], &body)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[test]
fn each_level_counts_for_itself_and_the_refused_are_told_what_and_until_when() {
    let models = models_dir();
    let dev = start(models.path());
    let (ann, bob) = (token(&dev, "ann"), token(&dev, "bob"));
    // Who calls which tool in which conversation, and how many of ten calls run.
    let table = [
        (&ann, "user.echo", "", 2),
        (&bob, "user.echo", "", 2),
        (&ann, "one.echo", "", 1),
        (&bob, "one.echo", "", 10),
        (&ann, "talk.echo", "w1", 2),
        (&ann, "talk.echo", "w2", 2),
        (&bob, "talk.echo", "w1", 2),
        (&bob, "talk.echo", "", 2),
        (&ann, "team.echo", "", 3),
        // The team's are used up by ann.
        (&bob, "team.echo", "", 0),
        (&bob, "paid.echo", "", 2),
        (&ann, "paid.echo", "", 0),
    ];
    for (token, tool, workflow, expect) in table {
        let ran = (0..10).filter(|_| call(&dev, token, tool, workflow).2["result"].is_object()).count();
        assert_eq!(ran, expect, "{tool} {workflow}");
    }

    let month = month_end_of(&call(&dev, &ann, "team.echo", ""), "acme/team", "calls", 3);
    let money = call(&dev, &ann, "paid.echo", "");
    assert_eq!(month_end_of(&money, "acme/money", "cost-micro", 1_000), month);
    let said = money.2["error"]["message"].as_str().unwrap();
    assert!(said.contains("this call may use 400") && said.contains("at most 200 are left"), "{said}");

    // A rate is another thing: it comes back at once.
    let limited = (0..20).map(|_| call(&dev, &ann, "rate.echo", "")).find(|(status, ..)| *status == 429);
    let (_, headers, body) = limited.expect("more than one call ran in a second");
    assert_eq!(body["error"]["data"]["kind"], "rate", "{body}");
    assert_eq!(header(&headers, "retry-after"), "1");

    // What a call cost stands in the log.
    let audit = dev.cli(&["audit", "query", "--json", "--tool", "paid.echo", "--status", "ok"]);
    let records = String::from_utf8_lossy(&audit.stdout).into_owned();
    let costs: Vec<Value> = records
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["record"]["cost_micro"].clone())
        .collect();
    assert_eq!(costs, [400, 400], "{records}");
}

/// Checks an MCP refusal by a calendar quota; returns when it resets.
fn month_end_of(refused: &(u16, HeaderMap, Value), quota: &str, unit: &str, limit: u64) -> String {
    let (status, headers, body) = refused;
    assert_eq!((*status, &body["error"]["code"]), (429, &json!(4290)), "{body}");
    let data = &body["error"]["data"];
    assert_eq!(data["code"], "PV-QUOTA-EXCEEDED");
    assert_eq!(
        (&data["quota"], &data["unit"], &data["limit"], &data["kind"], &data["window"]),
        (&json!(quota), &json!(unit), &json!(limit), &json!("consumable"), &json!("month"))
    );
    let seconds: u64 = header(headers, "retry-after").parse().unwrap();
    assert!(seconds > 0 && seconds.abs_diff(data["retryAfterMs"].as_u64().unwrap() / 1_000) <= 1, "{seconds} {data}");
    let resets = data["resetsAt"].as_str().unwrap();
    assert!(body["error"]["message"].as_str().unwrap().contains("it begins anew at "), "{body}");
    // The first of a month at midnight, UTC, and whoever waits as long as is said is not early.
    assert!(resets.ends_with("-01T00:00:00Z"), "{resets}");
    let resets = time::OffsetDateTime::parse(resets, &time::format_description::well_known::Rfc3339).unwrap();
    let waited = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds.cast_signed());
    assert!(waited >= resets, "{waited} {resets}");
    resets.date().to_string()
}

#[test]
fn openai_clients_are_told_in_openais_words() {
    let models = models_dir();
    let dev = start(models.path());
    let ann = token(&dev, "ann");
    for left in ["1", "0"] {
        let (status, headers, body) = chat(&dev, &ann);
        assert_eq!(status, 200, "{body}");
        assert_eq!(header(&headers, "x-ratelimit-limit-requests"), "2");
        assert_eq!(header(&headers, "x-ratelimit-remaining-requests"), left);
        assert!(header(&headers, "x-ratelimit-reset-requests").ends_with('s'));
    }
    let (status, headers, body) = chat(&dev, &ann);
    assert_eq!(status, 429, "{body}");
    let error = &body["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("insufficient_quota"), &json!("PV-QUOTA-EXCEEDED")));
    assert_eq!((&error["limit"]["quota"], &error["limit"]["limit"]), (&json!("acme/model"), &json!(2)));
    assert!(error["limit"]["resetsAt"].is_string() && error["message"].as_str().unwrap().contains("acme/model"));
    assert!(header(&headers, "retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(header(&headers, "x-ratelimit-remaining-requests"), "0");
    // A model's price is for what it read.
    let audit = dev.cli(&["audit", "query", "--json", "--tool", "tiny-chat", "--status", "ok"]);
    let records = String::from_utf8_lossy(&audit.stdout).into_owned();
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2, "{records:?}");
    for record in records {
        let record = &record["record"];
        assert_eq!(record["cost_micro"], record["gen_ai.usage.input_tokens"], "{record}");
        assert!(record["cost_micro"].as_u64().unwrap() > 0, "{record}");
    }
}
