//! `kill -9` in the middle of calls: what was answered is recorded, what is open becomes unknown.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Dev, START_LIMIT, modern, text};

/// Calls that are answered in all rounds together, at least.
const LEAST: usize = 51;

/// Ten kills unless `PROVOST_CRASH_ROUNDS` says otherwise.
fn rounds() -> u32 {
    std::env::var("PROVOST_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

#[test]
fn every_answered_call_survives_kill_9_and_every_orphan_becomes_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let answered: Arc<Mutex<BTreeSet<(String, u64)>>> = Arc::default();
    for round in 0..rounds() {
        let mut dev = Dev::start_in(&data, None, &[]);
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (url, token) = (dev.mcp().to_owned(), dev.token().to_owned());
                let (stop, answered) = (stop.clone(), answered.clone());
                std::thread::spawn(move || call_until(&url, &token, &stop, &answered))
            })
            .collect();
        // A different moment in each round, when enough was answered to be lost.
        std::thread::sleep(Duration::from_millis(400 + u64::from(round) * 37));
        let (began, wanted) = (Instant::now(), LEAST.div_ceil(rounds() as usize) * (round as usize + 1));
        while answered.lock().unwrap().len() < wanted {
            assert!(began.elapsed() < START_LIMIT, "calls are not answered: {}", dev.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
        dev.kill_9();
        stop.store(true, Ordering::SeqCst);
        for worker in workers {
            worker.join().unwrap();
        }
    }

    let mut dev = Dev::start_in(&data, None, &[]);
    let query = dev.cli(&["audit", "query", "--tool", "echo.echo", "--json", "--limit", "1000000"]);
    assert!(query.status.success(), "{}", text(&query));
    let mut intents: BTreeSet<String> = BTreeSet::new();
    let mut outcomes: BTreeMap<String, String> = BTreeMap::new();
    let mut outcome_leaves: BTreeSet<(String, u64)> = BTreeSet::new();
    for line in String::from_utf8_lossy(&query.stdout).lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let record = &row["record"];
        let call = record["call_id"].as_str().unwrap().to_owned();
        match record["phase"].as_str().unwrap() {
            "intent" => assert!(intents.insert(call), "two intents of one call"),
            "outcome" => {
                let status = record["status"].as_str().unwrap().to_owned();
                assert!(outcomes.insert(call, status).is_none(), "two outcomes of one call");
                let log = row["log"].as_str().unwrap().to_owned();
                outcome_leaves.insert((log, row["index"].as_u64().unwrap()));
            }
            other => panic!("unexpected phase {other}"),
        }
    }
    let answered = answered.lock().unwrap();
    assert!(answered.len() >= LEAST, "only {} calls were answered", answered.len());
    for receipt in answered.iter() {
        assert!(outcome_leaves.contains(receipt), "answered call lost its outcome: {receipt:?}");
    }
    for call in &intents {
        assert!(outcomes.contains_key(call), "intent {call} has no outcome after recovery");
    }
    for call in outcomes.keys() {
        assert!(intents.contains(call), "outcome {call} has no intent");
    }
    let ok = outcomes.values().filter(|s| *s == "ok").count();
    assert!(ok >= answered.len(), "{ok} ok outcomes for {} answers", answered.len());

    assert!(dev.terminate().1, "{}", dev.stderr());
    let verify = dev.cli(&["audit", "verify", data.join("audit").to_str().unwrap()]);
    assert_eq!(verify.status.code(), Some(2), "{}", text(&verify));
}

/// About 50 calls a second until told to stop; keeps the receipts of those that were answered.
fn call_until(url: &str, token: &str, stop: &AtomicBool, answered: &Mutex<BTreeSet<(String, u64)>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
    runtime.block_on(async {
        while !stop.load(Ordering::SeqCst) {
            let sent = client
                .post(url)
                .bearer_auth(token)
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", "tools/call")
                .header("mcp-name", "echo.echo")
                .json(&body)
                .timeout(Duration::from_secs(5))
                .send()
                .await;
            let Ok(response) = sent else { continue };
            let Ok(value) = response.json::<Value>().await else { continue };
            let receipt = &value["result"]["_meta"]["io.provost/audit"];
            if let (Some(log), Some(index)) = (receipt["log"].as_str(), receipt["index"].as_u64()) {
                // The receipt names the log by its origin, `cluster/tenant`.
                let log = log.rsplit('/').next().unwrap_or(log);
                answered.lock().unwrap().insert((log.to_owned(), index));
            }
            tokio::time::sleep(Duration::from_millis(18)).await;
        }
    });
}
