//! Slow, failing and busy upstreams, and a flooded node, as callers, operators and auditors meet them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    harness::{Dev, Process, call_tool, modern, post, text, until, upstream_yaml},
    upstreams::Broken,
};

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}, tenant: acme }}\nspec: {spec}\n")
}

fn code(answer: &Value) -> &str {
    answer["error"]["data"]["code"].as_str().unwrap_or_default()
}

/// The last outcome or denial of a tool.
fn record(dev: &Dev, tool: &str, phase: &str) -> Value {
    let output = dev.cli(&["audit", "query", "--json", "--tool", tool]);
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.rfind(|r| r["record"]["phase"] == phase).unwrap_or_else(|| panic!("no {phase} of {tool}"))["record"].clone()
}

fn get(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
}

#[test]
fn an_upstream_that_dies_is_left_alone_its_neighbour_is_not() {
    let (dying, fine) = (Broken::start("die"), Process::everything("modern"));
    let breaker = "resilience: { breaker: { consecutiveFailures: 4, openMs: 60000, maxOpenMs: 60000 } }";
    let yaml = upstream_yaml(&fine.url)
        + &document(
            "Plugin",
            "bad",
            &format!("{{ source: {{ mcp-http: {{ url: '{}', era: modern }} }}, {breaker} }}", dying.url()),
        );
    let dev = Dev::start(Some(&yaml), &[]);
    let refused = until(|| {
        let answer = call_tool(&dev, "bad.t", json!({}));
        (code(&answer) == "PV-UPSTREAM-OPEN").then_some(answer)
    });
    assert!(refused["error"]["data"]["retryAfterMs"].as_u64().unwrap() > 1_000, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("`bad`"), "{refused}");
    let outcome = record(&dev, "bad.t", "outcome");
    assert_eq!((&outcome["status"], outcome.get("attempt")), (&json!("rpc_error"), None), "{outcome}");
    let began = Instant::now();
    let answer = call_tool(&dev, "up.test_simple_text", json!({}));
    assert!(answer["result"]["content"][0]["text"].is_string(), "{answer}");
    let (_, tools) = post(dev.mcp(), dev.token(), &modern("tools/list", json!({})));
    assert!(tools["result"]["tools"].as_array().is_some_and(|t| !t.is_empty()), "{tools}");
    assert!(began.elapsed() < Duration::from_secs(15), "the neighbour took {:?}", began.elapsed());
    let metrics = get(dev.info["metrics"].as_str().unwrap());
    for line in [
        "provost_upstream_open{tenant=\"acme\",plugin=\"bad\"} 1\n",
        "provost_upstream_open{tenant=\"acme\",plugin=\"up\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(dev.stderr().contains("an upstream fails"), "{}", dev.stderr());
}

#[test]
fn a_caller_says_how_long_it_waits() {
    let up = Process::everything("legacy");
    let dev = Dev::start(Some(&upstream_yaml(&up.url)), &[]);
    call_tool(&dev, "up.test_simple_text", json!({}));
    let mut hurried = modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": 60_000 } }));
    hurried["params"]["_meta"]["io.provost/timeoutMs"] = json!(300);
    let began = Instant::now();
    let (_, answer) = post(dev.mcp(), dev.token(), &hurried);
    assert_eq!(code(&answer), "PV-UPSTREAM-TIMEOUT", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("the caller gave"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(4), "its plugin would have given 5 s: {:?}", began.elapsed());
    assert_eq!(record(&dev, "up.slow", "outcome")["status"], "timeout");
    // The upstream was told.
    until(|| {
        let count = |tool: &str| call_tool(&dev, tool, json!({}))["result"]["content"][0]["text"].clone();
        (count("up.count_cancelled") == "1").then_some(())
    });
}

#[test]
fn a_kept_answer_is_recorded_as_one() {
    let cache = "resilience: { cache: { tools: [now], ttlMs: 600000 } }";
    let yaml = upstream_yaml("http://127.0.0.1:9/mcp")
        + &document("Plugin", "clock", &format!("{{ source: {{ builtin: {{ name: time }} }}, {cache} }}"));
    let dev = Dev::start(Some(&yaml), &[]);
    let now = || call_tool(&dev, "clock.now", json!({}))["result"]["structuredContent"].clone();
    let first = now();
    assert!(first["unixMs"].is_number(), "{first}");
    let asked = record(&dev, "clock.now", "outcome");
    assert_eq!((&asked["attempt"], asked.get("reason")), (&json!(1), None), "{asked}");
    assert_eq!(now(), first);
    let kept = record(&dev, "clock.now", "outcome");
    assert_eq!((kept.get("attempt"), &kept["status"]), (None, &json!("ok")), "{kept}");
    assert!(kept["reason"].as_str().unwrap().starts_with("cached"), "{kept}");
    // Another policy: the answer is not the same any more, to be sure.
    let file = dev.data.join("more.yaml");
    std::fs::write(&file, document("Role", "more", "{ rules: [ { tools: ['x.*'] } ] }")).unwrap();
    let applied = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
    until(|| (now() != first).then_some(()));
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let file = dev.data.join("wrong.yaml");
    let bad = "{ source: { builtin: { name: echo } }, resilience: { retry: { attempts: 99 }, cache: { tools: [a] }, breaker: { openMs: 50000 } } }";
    std::fs::write(&file, document("Plugin", "x", bad)).unwrap();
    let refused = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    for field in ["spec.resilience.retry.attempts", "spec.resilience.cache.ttlMs", "spec.resilience.breaker.openMs"] {
        assert!(text(&refused).contains(field), "{field}: {}", text(&refused));
    }
    let explained = dev.cli(&["explain", "Plugin"]);
    assert!(text(&explained).contains("spec.resilience.breaker.consecutiveFailures"), "{}", text(&explained));
}

#[test]
fn a_flood_of_low_priority_leaves_room_for_high() {
    const FLOODERS: usize = 24;
    let up = Process::everything("modern");
    let yaml = upstream_yaml(&up.url)
        + &document("Principal", "batch", "{ type: service, priority: low }")
        + &document("Principal", "desk", "{ type: user, priority: high }")
        + &document("RoleBinding", "others", "{ role: all, principals: [batch, desk] }");
    let dev = Dev::start(Some(&yaml), &["--max-calls", "10"]);
    let token = |principal: &str| {
        let made = dev.cli(&["token", "create", "--principal", principal, "--json"]);
        assert!(made.status.success(), "{}", text(&made));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        made["token"].as_str().unwrap().to_owned()
    };
    let (low, high) = (token("batch"), token("desk"));
    let slow = modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": 300 } }));
    let quick = modern("tools/call", json!({ "name": "up.test_simple_text", "arguments": {} }));
    for token in [&low, &high] {
        until(|| post(dev.mcp(), token, &quick).1["result"].is_object().then_some(()));
    }
    let (stop, shed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let flooders: Vec<_> = (0..FLOODERS)
        .map(|_| {
            let (stop, shed, url, low, slow) =
                (stop.clone(), shed.clone(), dev.mcp().to_owned(), low.clone(), slow.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let (status, answer) = post(&url, &low, &slow);
                    match code(&answer) {
                        "" => assert!(answer["result"].is_object(), "{answer}"),
                        "PV-NODE-BUSY" => {
                            assert_eq!((status, &answer["error"]["code"]), (503, &json!(5030)), "{answer}");
                            assert_eq!(answer["error"]["data"]["retryAfterMs"], 1_000);
                            shed.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        other => panic!("{other}: {answer}"),
                    }
                }
            })
        })
        .collect();
    until(|| (shed.load(Ordering::SeqCst) > 20).then_some(()));
    for _ in 0..30 {
        let (_, answer) = post(dev.mcp(), &high, &quick);
        assert!(answer["result"].is_object(), "high priority is served: {answer}");
    }
    // What is no call is never refused.
    assert!(dev.cli(&["get", "Plugin"]).status.success());
    assert!(get(&format!("{}/healthz", dev.base())).len() < 1_000);
    stop.store(true, Ordering::SeqCst);
    for flooder in flooders {
        flooder.join().unwrap();
    }
    let denied = record(&dev, "up.slow", "denied");
    assert_eq!(denied["error.type"], "PV-NODE-BUSY", "{denied}");
    assert!(get(dev.info["metrics"].as_str().unwrap()).contains("provost_calls_running 0\n"));
}
