//! Agents at work: a fixed rate of tool calls through the data plane, every one of which must succeed
//! whatever happens to the control plane.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::{cluster::Place, harness::modern};

/// Calls a second.
const RATE: u32 = 50;
/// Calls in flight; more means that the data plane stands still.
const MAX_IN_FLIGHT: usize = 500;
/// Patience with one call.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Failures kept word for word.
const MAX_KEPT: usize = 5;

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Report {
    pub succeeded: u64,
    pub failed: u64,
    /// The first failures.
    pub failures: Vec<String>,
    pub slowest: Duration,
}

impl Report {
    fn take(&mut self, outcome: Result<Duration, String>) {
        match outcome {
            Ok(took) => {
                self.succeeded += 1;
                self.slowest = self.slowest.max(took);
            }
            Err(why) => {
                self.failed += 1;
                if self.failures.len() < MAX_KEPT {
                    self.failures.push(why);
                }
            }
        }
    }

    /// Prints the figures and fails the test if one call failed.
    pub fn expect_no_failure(&self) {
        println!("tool calls: {} succeeded, {} failed, slowest {:?}", self.succeeded, self.failed, self.slowest);
        assert_eq!(self.failed, 0, "tool calls failed: {:#?}", self.failures);
        assert!(self.succeeded > 0, "no tool was called");
    }
}

/// Calls until [`ToolCalls::stop`].
pub struct ToolCalls {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Report>,
}

impl ToolCalls {
    pub fn start(place: &Place) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(call_until(place.clone(), stop.clone()));
        Self { stop, task }
    }

    /// Waits for the calls in flight.
    pub async fn stop(self) -> Report {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

async fn call_until(place: Place, stop: Arc<AtomicBool>) -> Report {
    let client = client();
    let mut report = Report::default();
    let mut calls = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    while !stop.load(Ordering::SeqCst) {
        tick.tick().await;
        while let Some(done) = calls.try_join_next() {
            report.take(done.unwrap());
        }
        if calls.len() >= MAX_IN_FLIGHT {
            report.take(Err(format!("{MAX_IN_FLIGHT} calls wait for their answer")));
            continue;
        }
        let (client, place) = (client.clone(), place.clone());
        calls.spawn(async move { call(&client, &place).await });
    }
    while let Some(done) = calls.join_next().await {
        report.take(done.unwrap());
    }
    report
}

/// What calls are made with.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// One call: how long it took, or the answer that is none.
pub async fn call(client: &reqwest::Client, place: &Place) -> Result<Duration, String> {
    let began = Instant::now();
    let body = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
    let sent = client
        .post(&place.mcp)
        .bearer_auth(&place.token)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "echo.echo")
        .json(&body)
        .timeout(CALL_LIMIT)
        .send();
    let response = sent.await.map_err(|e| format!("{e:?}"))?;
    let status = response.status();
    let text = response.text().await.map_err(|e| format!("{e:?}"))?;
    let message: Value = serde_json::from_str(&text).unwrap_or_default();
    let answered = message["result"]["content"].is_array() && message["result"]["isError"] != true;
    if status.is_success() && answered { Ok(began.elapsed()) } else { Err(format!("{status}: {text}")) }
}
