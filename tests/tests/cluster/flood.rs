//! Agents that call one tool at every data-plane node until nobody is let through any more.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::modern;

/// Callers of each node.
const CALLERS: usize = 4;
/// Patience with one call: a frozen node answers late.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// After a refusal a caller waits so long.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// When nothing was admitted for so long, the quota is used up: longer than nodes keep units that
/// they do not use, and than they wait before they ask the ledger again.
const QUIET: Duration = Duration::from_secs(8);

/// What a node answered to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Admitted,
    /// The quota is used up.
    Exceeded,
    /// Whether it is used up is not known to the node now.
    Unknown,
    /// No answer: the node is down, or died while it ran the call.
    Lost,
}

/// What became of the calls.
#[derive(Debug)]
pub struct Flooded {
    pub admitted: u64,
    pub exceeded: u64,
    pub unknown: u64,
    pub lost: u64,
    /// From the first call to the last admission.
    pub took: Duration,
    /// Answers that no test expects, with how often they came.
    pub strange: BTreeMap<String, u64>,
}

struct Flood {
    token: String,
    /// Between two calls of a caller.
    pause: Duration,
    began: Instant,
    /// Milliseconds after the beginning.
    last_admitted_ms: AtomicU64,
    counts: [AtomicU64; 4],
    strange: Mutex<BTreeMap<String, u64>>,
}

/// Calls `echo.echo` at all of `urls` until the quota is used up, or for `limit`.
pub async fn flood(urls: &[String], token: &str, pause: Duration, limit: Duration) -> Flooded {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let flood = Arc::new(Flood {
        token: token.to_owned(),
        pause,
        began: Instant::now(),
        last_admitted_ms: AtomicU64::new(0),
        counts: Default::default(),
        strange: Mutex::default(),
    });
    let client = Client::builder().no_proxy().timeout(CALL_LIMIT).build().unwrap();
    let mut callers = JoinSet::new();
    for url in urls {
        for _ in 0..CALLERS {
            callers.spawn(call_until_quiet(flood.clone(), client.clone(), url.clone(), limit));
        }
    }
    callers.join_all().await;
    let [admitted, exceeded, unknown, lost] = [0, 1, 2, 3].map(|i: usize| flood.counts[i].load(Ordering::SeqCst));
    let took = Duration::from_millis(flood.last_admitted_ms.load(Ordering::SeqCst));
    let strange = std::mem::take(&mut *flood.strange.lock().unwrap());
    Flooded { admitted, exceeded, unknown, lost, took, strange }
}

async fn call_until_quiet(flood: Arc<Flood>, client: Client, url: String, limit: Duration) {
    loop {
        let since = flood.began.elapsed();
        let last = Duration::from_millis(flood.last_admitted_ms.load(Ordering::SeqCst));
        if since.saturating_sub(last) > QUIET || since > limit {
            return;
        }
        let outcome = flood.call(&client, &url).await;
        flood.counts[outcome as usize].fetch_add(1, Ordering::SeqCst);
        if outcome == Outcome::Admitted {
            let now = u64::try_from(flood.began.elapsed().as_millis()).unwrap();
            flood.last_admitted_ms.fetch_max(now, Ordering::SeqCst);
        }
        tokio::time::sleep(if outcome == Outcome::Admitted { flood.pause } else { REFUSED_PAUSE }).await;
    }
}

impl Flood {
    async fn call(&self, client: &Client, url: &str) -> Outcome {
        let body = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
        let Ok((status, answer)) = post(client, url, &self.token, "tools/call", &body).await else {
            return Outcome::Lost;
        };
        let message: Value = serde_json::from_str(&answer).unwrap_or_default();
        match message["error"]["data"]["code"].as_str() {
            Some("PV-QUOTA-EXCEEDED") => Outcome::Exceeded,
            Some("PV-QUOTA-UNREACHABLE") => Outcome::Unknown,
            None if message["result"]["content"].is_array() && message["result"]["isError"] != true => {
                Outcome::Admitted
            }
            _ => {
                *self.strange.lock().unwrap().entry(format!("{status}: {answer}")).or_default() += 1;
                Outcome::Lost
            }
        }
    }
}

/// Whether the node knows the token: it then runs the revision that the token came with.
pub async fn knows(url: &str, token: &str) -> bool {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::builder().no_proxy().timeout(CALL_LIMIT).build().unwrap();
    let body = modern("tools/list", json!({}));
    matches!(post(&client, url, token, "tools/list", &body).await, Ok((200, _)))
}

async fn post(
    client: &Client,
    url: &str,
    token: &str,
    method: &str,
    body: &Value,
) -> Result<(u16, String), reqwest::Error> {
    let mut request = client
        .post(url)
        .bearer_auth(token)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method);
    if let Some(name) = body["params"]["name"].as_str() {
        request = request.header("mcp-name", name);
    }
    let response = request.json(body).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}
