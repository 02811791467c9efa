//! The closed loop: each client writes, waits for the acknowledgement, writes again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::store::{Connection, Store};

/// After a failure, before the next endpoint is tried.
const PAUSE: Duration = Duration::from_millis(10);
/// Digits of a latency that are exact.
const DIGITS: u8 = 3;

/// The figures of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    target: String,
    mode: &'static str,
    clients: usize,
    keys_per_client: u64,
    seconds: f64,
    pub writes: u64,
    writes_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// What was not acknowledged, by reason.
    errors: BTreeMap<String, u64>,
}

/// What one client saw while it was measured.
struct Tally {
    latency: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// How much load, and when it counts.
#[derive(Clone, Copy)]
pub struct Plan {
    pub clients: usize,
    /// Keys of one client, in turn.
    pub keys: u64,
    pub warmup: Duration,
    pub measured: Duration,
}

/// Runs the clients for the warm-up and the measured time.
pub async fn run(store: &Store, plan: Plan) -> anyhow::Result<Report> {
    let Plan { clients, keys, warmup, measured } = plan;
    let from = Instant::now() + warmup;
    let to = from + measured;
    let mut running = JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        running.spawn(async move { write_until(&store, client, keys, from, to).await });
    }
    let mut latency = Histogram::<u64>::new(DIGITS)?;
    let mut errors = BTreeMap::new();
    while let Some(tally) = running.join_next().await {
        let tally = tally??;
        latency.add(tally.latency)?;
        for (word, count) in tally.errors {
            *errors.entry(word).or_default() += count;
        }
    }
    let ms = |ns: u64| ns as f64 / 1e6;
    Ok(Report {
        target: format!("{:?}", store.target).to_lowercase(),
        mode: "load",
        clients,
        keys_per_client: keys,
        seconds: measured.as_secs_f64(),
        writes: latency.len(),
        writes_per_second: latency.len() as f64 / measured.as_secs_f64(),
        p50_ms: ms(latency.value_at_quantile(0.5)),
        p99_ms: ms(latency.value_at_quantile(0.99)),
        max_ms: ms(latency.max()),
        errors,
    })
}

/// Writes counted are those that begin after `from` and are acknowledged before `to`.
async fn write_until(store: &Store, client: usize, keys: u64, from: Instant, to: Instant) -> anyhow::Result<Tally> {
    let mut tally = Tally { latency: Histogram::new(DIGITS)?, errors: BTreeMap::new() };
    let mut endpoint = client;
    let mut connection: Option<Connection> = None;
    let mut last = None;
    for number in 0_u64.. {
        let began = Instant::now();
        if began >= to {
            break;
        }
        let key = store.key(client, number % keys);
        let outcome = match &mut connection {
            Some(connection) => store.put(connection, &key, number).await,
            None => match store.connect(endpoint).await {
                // Measured from here on: a connection is no part of a write.
                Ok(made) => {
                    connection = Some(made);
                    continue;
                }
                Err(refusal) => Err(refusal),
            },
        };
        let ended = Instant::now();
        let counts = began >= from && ended < to;
        match outcome {
            Ok(()) => {
                last = Some((key, number));
                if counts {
                    let took = ended.duration_since(began).as_nanos();
                    tally.latency.record(u64::try_from(took).context("a write took centuries")?)?;
                }
            }
            Err(refusal) => {
                // The key's value is unknown now: nothing to read back.
                last = None;
                if counts {
                    *tally.errors.entry(refusal).or_default() += 1;
                }
                connection = None;
                endpoint += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if let (Some(connection), Some((key, value))) = (&mut connection, last) {
        store.verify(connection, &key, value).await.context("read back after the load")?;
    }
    Ok(tally)
}
