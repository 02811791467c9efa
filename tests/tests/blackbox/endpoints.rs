//! A plugin with two endpoints, each a process of its own, of which one is killed under load and comes back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Dev, Process, call_tool, modern, post, text, until, upstream_yaml};

const CALLERS: usize = 6;

fn get(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
}

/// What the metrics say of an endpoint.
fn gauge(dev: &Dev, name: &str, endpoint: &str) -> Option<String> {
    let line = format!("{name}{{tenant=\"acme\",plugin=\"up\",endpoint=\"{endpoint}\"}} ");
    get(dev.info["metrics"].as_str().unwrap()).lines().find_map(|l| l.strip_prefix(&line).map(str::to_owned))
}

#[test]
fn an_endpoint_killed_under_load_costs_no_safe_call_and_comes_back() {
    let (first, second) = (Process::everything("modern"), Process::everything("modern"));
    let yaml = upstream_yaml(&first.url)
        .replace(&format!("url: '{}'", first.url), &format!("url: '{}', moreUrls: ['{}']", first.url, second.url))
        .replace(
            "timeoutMs: 5000",
            "timeoutMs: 30000\n  resilience: { retry: { tools: ['*'] }, outliers: { ejectMs: 200, maxEjectMs: 1000 } }",
        );
    let dev = Dev::start(Some(&yaml), &[]);
    until(|| call_tool(&dev, "up.test_simple_text", json!({}))["result"].is_object().then_some(()));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let failed: Arc<Mutex<Vec<Value>>> = Arc::default();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (stop, done, failed) = (stop.clone(), done.clone(), failed.clone());
            let (url, token) = (dev.mcp().to_owned(), dev.token().to_owned());
            let call = modern("tools/call", json!({ "name": "up.test_simple_text", "arguments": {} }));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let (_, answer) = post(&url, &token, &call);
                    if !answer["result"]["content"][0]["text"].is_string() {
                        failed.lock().unwrap().push(answer);
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let more = |n: usize| {
        let enough = done.load(Ordering::SeqCst) + n;
        until(|| (done.load(Ordering::SeqCst) >= enough).then_some(()));
    };
    more(60);
    let (url, address) = (second.url.clone(), second.url["http://".len()..].trim_end_matches("/mcp").to_owned());
    drop(second);
    until(|| (gauge(&dev, "provost_upstream_endpoint_ejected", &url)? == "1").then_some(()));
    more(60);
    assert_eq!(gauge(&dev, "provost_upstream_endpoint_ejected", &first.url).as_deref(), Some("0"));
    let third = Process::everything_at(&address);
    until(|| (gauge(&dev, "provost_upstream_endpoint_ejected", &url)? == "0").then_some(()));
    more(60);
    stop.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let failed = failed.lock().unwrap();
    let all = done.load(Ordering::SeqCst);
    println!("{all} calls, {} failed", failed.len());
    assert!(failed.is_empty(), "{} of {all} failed: {:?}", failed.len(), failed.first());
    // The one that came back does work: its process has counted calls.
    drop(first);
    until(|| {
        std::thread::sleep(Duration::from_millis(20));
        call_tool(&dev, "up.test_simple_text", json!({}))["result"].is_object().then_some(())
    });
    drop(third);
    let log = dev.stderr();
    assert!(log.contains("an endpoint fails") && log.contains("gets calls again"), "{log}");
}

#[test]
fn endpoints_that_cannot_be_are_refused_with_their_place() {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let file = dev.data.join("wrong.yaml");
    let more = (0..14).map(|n| format!("'https://{n}.example.com/mcp'")).collect::<Vec<_>>().join(", ");
    let document = format!(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: x, tenant: acme }}\n\
         spec:\n  resilience: {{ outliers: {{ ejectMs: 90000 }} }}\n  source:\n    mcp-http:\n      url: 'https://a.example.com/mcp'\n\
         \x20     moreUrls: ['https://a.example.com/mcp', 'http://b.example.com/mcp', {more}]\n"
    );
    std::fs::write(&file, document).unwrap();
    let refused = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    for said in ["moreUrls[0]", "a second time", "moreUrls[1]", "https://", "at most 15", "outliers.ejectMs"] {
        assert!(text(&refused).contains(said), "{said}: {}", text(&refused));
    }
    assert!(text(&dev.cli(&["explain", "Plugin"])).contains("moreUrls"));
}
