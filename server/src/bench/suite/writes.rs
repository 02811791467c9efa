//! Writes to the control plane beside writes to etcd: three members of each, closed-loop clients with a connection of
//! their own, each store in turn.
//!
//! Both sync a write on a majority before they acknowledge it, and get the same bytes. What they do with them differs:
//! etcd stores them; Provost reads, checks and records a document, and pushes it to its nodes.

use std::{path::Path, time::Duration};

use anyhow::Context;
use hdrhistogram::Histogram;
use provost_wire::AdminConnection;
use tokio::{task::JoinSet, time::Instant};

use super::{
    cluster::{Cluster, apply_over},
    etcd::{Etcd, Put},
    judge::{self, Bar},
    report::{Figure, Row},
    stage::Stage,
};

const CLIENTS: &[usize] = &[1, 16, 64];
const CLIENTS_QUICK: &[usize] = &[16];
/// With fewer clients than this there is no bar.
const LEAST_CLIENTS: usize = 16;
const LEAST_RATIO: f64 = 1.0;
/// Rounds of this row, and seconds of each load: it has many.
const MOST_ROUNDS: u32 = 3;
const MOST_MEASURED: Duration = Duration::from_secs(3);
/// Digits of a latency that are exact.
const DIGITS: u8 = 3;

/// A client's connection.
enum Writer {
    Etcd(Put),
    Provost(Box<AdminConnection>),
}

impl Writer {
    async fn write(&mut self, key: &str, number: u64) -> anyhow::Result<()> {
        let text = document(key, number);
        match self {
            Self::Etcd(put) => put.put(key, &text).await,
            Self::Provost(admin) => apply_over(admin, &text).await.map(drop),
        }
    }
}

/// What both stores are given: always of one length.
fn document(key: &str, number: u64) -> String {
    format!(
        "{{\"apiVersion\":\"provost/v1\",\"kind\":\"Tenant\",\"metadata\":{{\"name\":\"{key}\"}},\"spec\":{{\"displayName\":\
         \"value {number:020}\"}}}}"
    )
}

/// What one load saw.
struct Load {
    per_second: f64,
    p99_ms: f64,
}

/// Row `writes`.
pub async fn writes(stage: &Stage, three: &Cluster, program: &Path) -> anyhow::Result<Vec<Row>> {
    stage.say("starting etcd");
    let etcd = Etcd::start(&stage.scratch, program).await?;
    let outcome = compare(stage, three, &etcd).await;
    let note = format!("{}; all members of both share one disk", etcd.version());
    etcd.stop().await;
    Ok(vec![Row::measured("writes", "", outcome?, vec![note])])
}

async fn compare(stage: &Stage, three: &Cluster, etcd: &Etcd) -> anyhow::Result<Vec<Figure>> {
    let effort = stage.effort;
    let time = effort.measured.min(MOST_MEASURED);
    let mut figures = Vec::new();
    let counts = if effort.quick { CLIENTS_QUICK } else { CLIENTS };
    for &clients in counts {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for round in 1..=effort.rounds.min(MOST_ROUNDS) {
            stage.say(&format!("writes: {clients} clients, round {round}"));
            let mut writers = Vec::with_capacity(clients);
            for client in 0..clients {
                writers.push(Writer::Etcd(etcd.connect(client).await?));
            }
            theirs.push(load(writers, effort.warmup, time).await?);
            let mut writers = Vec::with_capacity(clients);
            for client in 0..clients {
                writers.push(Writer::Provost(Box::new(three.admin_connection(client % three.count()).await?)));
            }
            ours.push(load(writers, effort.warmup, time).await?);
        }
        figures.extend(figures_of(clients, &theirs, &ours));
    }
    Ok(figures)
}

fn figures_of(clients: usize, theirs: &[Load], ours: &[Load]) -> Vec<Figure> {
    let rates = |loads: &[Load]| loads.iter().map(|load| load.per_second).collect::<Vec<_>>();
    let p99s = |loads: &[Load]| loads.iter().map(|load| load.p99_ms).collect::<Vec<_>>();
    let doubt = judge::doubt(&rates(theirs));
    let ratios = ours.iter().zip(theirs).map(|(own, other)| own.per_second / other.per_second).collect();
    let ratio = Figure::new(&format!("ratio-{clients}"), format!("Provost / etcd, {clients} clients"), "x", ratios);
    let ratio = match clients >= LEAST_CLIENTS {
        true => ratio.against(Bar::at_least(LEAST_RATIO), doubt.as_deref()),
        false => ratio,
    };
    let figure = |store: &str, what: &str, unit: &str, values: Vec<f64>| {
        let id = format!("{}-{what}-{clients}", store.to_lowercase());
        Figure::new(&id, format!("{store}, {what}, {clients} clients"), unit, values)
    };
    vec![
        ratio,
        figure("etcd", "writes", "writes/s", rates(theirs)),
        figure("Provost", "writes", "writes/s", rates(ours)),
        figure("etcd", "p99", "ms", p99s(theirs)),
        figure("Provost", "p99", "ms", p99s(ours)),
    ]
}

/// Writes that begin after the warm-up and are acknowledged before the end.
async fn load(writers: Vec<Writer>, warmup: Duration, time: Duration) -> anyhow::Result<Load> {
    let from = Instant::now() + warmup;
    let to = from + time;
    let mut clients = JoinSet::new();
    for (client, writer) in writers.into_iter().enumerate() {
        clients.spawn(write_until(writer, format!("load-{client}"), from, to));
    }
    let mut latency = Histogram::<u64>::new(DIGITS).context("PV-BENCH: no histogram")?;
    while let Some(done) = clients.join_next().await {
        let own = done.context("PV-BENCH: a client ended early")??;
        latency.add(own).context("PV-BENCH: histograms of one run differ")?;
    }
    Ok(Load {
        per_second: latency.len() as f64 / time.as_secs_f64(),
        p99_ms: latency.value_at_quantile(0.99) as f64 / 1e6,
    })
}

/// Nanoseconds of each write.
async fn write_until(mut writer: Writer, key: String, from: Instant, to: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut latency = Histogram::<u64>::new(DIGITS).context("PV-BENCH: no histogram")?;
    for number in 0_u64.. {
        let began = Instant::now();
        if began >= to {
            break;
        }
        writer.write(&key, number).await?;
        let ended = Instant::now();
        if began >= from && ended < to {
            let took = u64::try_from((ended - began).as_nanos()).unwrap_or(u64::MAX);
            latency.record(took).context("PV-BENCH: a write took longer than can be counted")?;
        }
    }
    Ok(latency)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::judge::Verdict;

    fn loads(rates: &[f64]) -> Vec<Load> {
        rates.iter().map(|per_second| Load { per_second: *per_second, p99_ms: 1.0 }).collect()
    }

    #[test]
    fn both_stores_get_documents_of_one_length() {
        let (one, two) = (document("load-0", 1), document("load-0", u64::MAX));
        assert_eq!(one.len(), two.len());
        let read: serde_json::Value = serde_json::from_str(&one).unwrap();
        assert_eq!(read["spec"]["displayName"], "value 00000000000000000001");
    }

    #[test]
    fn a_single_client_has_no_bar_and_a_store_that_drifts_bears_no_verdict() {
        let verdict = |clients, theirs: &[f64]| figures_of(clients, &loads(theirs), &loads(&[110.0, 110.0]))[0].verdict;
        assert_eq!(verdict(1, &[100.0, 100.0]), Verdict::None);
        assert_eq!(verdict(16, &[100.0, 100.0]), Verdict::Held);
        assert_eq!(verdict(64, &[120.0, 120.0]), Verdict::Missed);
        assert_eq!(verdict(64, &[100.0, 150.0]), Verdict::Refused);
    }
}
