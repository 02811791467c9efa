//! The run: one task a connection, each taking the next call that is due.
//!
//! A free connection takes the next permit of the pacer. When all are busy, permits pile up and the
//! calls go out late; their latency still counts from when they were due. What is still unsent when the
//! drain limit is over is counted as unsent, never dropped.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    client::{CallError, Connection, Target},
    plan::{Load, Plan},
    process::{Cost, Watched},
};

/// Between everything being ready and the first send.
const HEAD_START: Duration = Duration::from_millis(20);
/// Between two tries to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Latencies are kept from a microsecond up to this, with three significant digits.
const MAX_LATENCY: Duration = Duration::from_secs(120);
const LOWEST_NS: u64 = 1_000;

/// What one connection, or all of them together, saw in the measured part.
pub struct Tally {
    /// Nanoseconds from when the call was due (or sent, when saturated) to its checked answer.
    pub latency: Histogram<u64>,
    /// Nanoseconds by which a free connection picked a call up late: the generator's own fault.
    pub lag: Histogram<u64>,
    /// Failed calls by kind.
    pub errors: BTreeMap<String, u64>,
    /// When the last measured call ended.
    pub last_end: Option<Instant>,
}

/// A finished run.
pub struct Outcome {
    /// All connections together.
    pub tally: Tally,
    /// From the start of the measurement to its last answer.
    pub elapsed: Duration,
    /// Calls that were due and never sent.
    pub unsent: u64,
    /// What it cost the server's process, where that can be read.
    pub cost: Option<Cost>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(LOWEST_NS, MAX_LATENCY.as_nanos() as u64, 3);
        Ok(Self { latency: histogram()?, lag: histogram()?, errors: BTreeMap::new(), last_end: None })
    }

    fn record(&mut self, began: Instant, outcome: Result<(), CallError>) {
        let end = Instant::now();
        self.last_end = self.last_end.max(Some(end));
        match outcome {
            Ok(()) => self.latency.saturating_record(end.duration_since(began).as_nanos() as u64),
            Err(error) => *self.errors.entry(error.kind()).or_default() += 1,
        }
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latency.add(&other.latency).context("PV-BENCH: histograms of one run differ")?;
        self.lag.add(&other.lag).context("PV-BENCH: histograms of one run differ")?;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.last_end = self.last_end.max(other.last_end);
        Ok(())
    }
}

/// What the connections of a run share.
struct Run {
    plan: Plan,
    target: Target,
    start: Instant,
    /// One for each call that is due.
    permits: Arc<Semaphore>,
    next: AtomicU64,
}

/// Drives the load of `plan` against `target`.
pub async fn drive(plan: &Plan, target: &Target, watched: Option<Watched>) -> anyhow::Result<Outcome> {
    let connections = connect(plan, target).await?;
    let run = Arc::new(Run {
        plan: plan.clone(),
        target: target.clone(),
        start: Instant::now() + HEAD_START,
        permits: Arc::new(Semaphore::new(0)),
        next: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(run.clone().work(connection));
    }
    let pacer = match plan.load {
        Load::Open { .. } => Some(plan.pace(run.start, run.permits.clone()).context("PV-BENCH: no thread")?),
        Load::Saturated => None,
    };

    let measured_from = run.start + plan.warmup;
    tokio::time::sleep_until(measured_from.into()).await;
    let before = watched.and_then(Watched::read);

    let mut tally = Tally::new()?;
    while let Some(part) = tasks.join_next().await {
        tally.add(&part.context("PV-BENCH: a connection's task ended early")??)?;
    }
    let after = watched.and_then(Watched::read);
    if let Some(pacer) = pacer {
        // It has given its last permit: every task has ended on one.
        let _ = pacer.join();
    }
    let finished = tally.latency.len() + tally.errors.values().sum::<u64>();
    let cost = match (watched, before, after) {
        (Some(watched), Some(before), Some(after)) => Some(watched.cost(before, after, finished)),
        _ => None,
    };
    let elapsed = tally.last_end.map_or(plan.duration, |end| end.duration_since(measured_from));
    Ok(Outcome { unsent: run.unsent(finished), elapsed, tally, cost })
}

async fn connect(plan: &Plan, target: &Target) -> anyhow::Result<Vec<Connection>> {
    let mut connections: Vec<Connection> = Vec::with_capacity(plan.connections);
    for number in 1..=plan.connections {
        let shared = connections.first().and_then(|first| first.beside(target));
        if let Some(shared) = shared {
            connections.push(shared);
            continue;
        }
        let connection = Connection::open(target).await.map_err(|error| {
            crate::failure::Failure::new(
                "PV-BENCH-CONNECT",
                format!("connection {number} of {} failed ({})", plan.connections, error.kind()),
                "use fewer --connections, or raise the limits of the server",
            )
        })?;
        connections.push(connection);
    }
    Ok(connections)
}

impl Run {
    async fn work(self: Arc<Self>, connection: Connection) -> anyhow::Result<Tally> {
        let mut tally = Tally::new()?;
        let mut connection = Some(connection);
        match self.plan.load {
            Load::Open { .. } => self.open_loop(&mut connection, &mut tally).await,
            Load::Saturated => self.closed_loop(&mut connection, &mut tally).await,
        }
        Ok(tally)
    }

    async fn open_loop(&self, connection: &mut Option<Connection>, tally: &mut Tally) {
        let offered = self.plan.offered().unwrap_or(0);
        let give_up = self.start + self.plan.total() + self.plan.drain;
        loop {
            let waited = match self.permits.try_acquire() {
                Ok(permit) => {
                    permit.forget();
                    false
                }
                Err(_) => match self.permits.acquire().await {
                    Ok(permit) => {
                        permit.forget();
                        true
                    }
                    Err(_) => return,
                },
            };
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= offered || Instant::now() > give_up {
                return;
            }
            let due = self.start + self.plan.due(index);
            let is_measured = self.plan.due(index) >= self.plan.warmup;
            if waited && is_measured {
                tally.lag.saturating_record(due.elapsed().as_nanos() as u64);
            }
            let outcome = self.call(connection, index + 1).await;
            if is_measured {
                tally.record(due, outcome);
            }
        }
    }

    async fn closed_loop(&self, connection: &mut Option<Connection>, tally: &mut Tally) {
        tokio::time::sleep_until(self.start.into()).await;
        let measured_from = self.start + self.plan.warmup;
        let end = self.start + self.plan.total();
        loop {
            let began = Instant::now();
            if began >= end {
                return;
            }
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let outcome = self.call(connection, index + 1).await;
            if began >= measured_from {
                tally.record(began, outcome);
            }
        }
    }

    /// One call, over a new connection if the last one broke.
    async fn call(&self, connection: &mut Option<Connection>, id: u64) -> Result<(), CallError> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match Connection::open(&self.target).await {
                Ok(open) => open,
                Err(error) => {
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    return Err(error);
                }
            },
        };
        let outcome = open.call(&self.target, id).await;
        if open.is_open() && !outcome.as_ref().is_err_and(CallError::ends_connection) {
            *connection = Some(open);
        }
        outcome
    }

    /// Measured calls that were offered and did not finish. Zero when saturated: nothing is offered.
    fn unsent(&self, finished: u64) -> u64 {
        let Some(offered) = self.plan.offered() else { return 0 };
        let measured = (0..offered).rev().take_while(|i| self.plan.due(*i) >= self.plan.warmup).count();
        (measured as u64).saturating_sub(finished)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::atomic::AtomicU64};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::{
        body::Incoming,
        server::conn::{http1, http2},
        service::service_fn,
    };
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use provost_client::{Connector, Endpoint, Options};
    use serde_json::{Value, json};

    use super::*;
    use crate::bench::Era;

    /// A server that answers every call, but holds call number `stalled` for `stall`.
    async fn server(stalled: u64, stall: Duration, answer: Value) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let count = Arc::new(AtomicU64::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, answer) = (count.clone(), answer.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (count, mut answer) = (count.clone(), answer.clone());
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let call: Value = serde_json::from_slice(&body).unwrap();
                        if count.fetch_add(1, Ordering::SeqCst) == stalled {
                            tokio::time::sleep(stall).await;
                        }
                        answer["id"] = call["id"].clone();
                        let response = Response::new(Full::new(Bytes::from(answer.to_string())));
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        url
    }

    fn target(url: &str) -> Target {
        let endpoint = Endpoint::parse(url, None).unwrap();
        let connector = Connector::new(endpoint, Options::default()).unwrap();
        Target::new(connector, Era::Modern, "echo", &json!({})).unwrap()
    }

    #[tokio::test]
    async fn a_stall_counts_for_every_call_it_delays() {
        let url = server(20, Duration::from_millis(300), json!({"result": {}})).await;
        let plan = Plan {
            load: Load::Open { rate: 200.0 },
            connections: 1,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
            drain: Duration::from_secs(30),
        };
        let outcome = drive(&plan, &target(&url), None).await.unwrap();
        assert_eq!(outcome.tally.latency.len() + outcome.unsent, 200);
        assert_eq!(outcome.unsent, 0);
        // 300 ms at 200 calls/s delay 60 calls; those due in its first 200 ms wait 100 ms or more.
        let slow = outcome.tally.latency.count_between(100_000_000, u64::MAX);
        assert!(slow >= 40, "only {slow} calls saw the stall");
    }

    #[tokio::test]
    async fn calls_that_share_a_connection_are_in_flight_on_it_together() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        // Two at a time are answered, and one connection is served.
        let pair = Arc::new(tokio::sync::Barrier::new(2));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| {
                let pair = pair.clone();
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let call: Value = serde_json::from_slice(&body).unwrap();
                    pair.wait().await;
                    let answer = json!({ "id": call["id"], "result": {} });
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer.to_string()))))
                }
            });
            let serving = http2::Builder::new(TokioExecutor::new());
            let _ = serving.serve_connection(TokioIo::new(stream), service).await;
        });
        let plan = Plan {
            load: Load::Open { rate: 100.0 },
            connections: 2,
            warmup: Duration::ZERO,
            duration: Duration::from_millis(100),
            drain: Duration::from_secs(30),
        };
        let outcome = drive(&plan, &target(&url).over_one_connection(), None).await.unwrap();
        assert_eq!((outcome.tally.latency.len(), outcome.tally.errors.len()), (10, 0));
    }

    #[tokio::test]
    async fn errors_are_counted_by_kind_and_never_as_latency() {
        let url = server(0, Duration::ZERO, json!({"error": {"code": -32602, "message": "no"}})).await;
        let plan = Plan {
            load: Load::Saturated,
            connections: 2,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
            drain: Duration::ZERO,
        };
        let outcome = drive(&plan, &target(&url), None).await.unwrap();
        assert!(outcome.tally.latency.is_empty());
        assert_eq!(outcome.tally.errors.keys().collect::<Vec<_>>(), ["JSON-RPC -32602"]);
        assert!(target(&url).probe().await.unwrap_err().to_string().contains("PV-BENCH-PROBE"));
    }

    #[tokio::test]
    async fn what_is_never_sent_is_said() {
        let url = server(0, Duration::from_secs(2), json!({"result": {}})).await;
        let plan = Plan {
            load: Load::Open { rate: 100.0 },
            connections: 1,
            warmup: Duration::ZERO,
            duration: Duration::from_millis(500),
            drain: Duration::ZERO,
        };
        let outcome = drive(&plan, &target(&url), None).await.unwrap();
        assert_eq!((outcome.tally.latency.len(), outcome.unsent), (1, 49));
    }
}
