//! The open loop: a write begins at every tick through the next endpoint, and what counts is the longest
//! time between two acknowledgements. A closed loop would measure its own patience with a dead node.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::store::{Connection, Refusal, Store};

/// Keys in turn.
const KEYS: u64 = 64;
/// Writes under way; beyond it a tick is left out and counted as an error.
const MAX_IN_FLIGHT: usize = 4_096;

/// The figures of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    target: String,
    mode: &'static str,
    seconds: f64,
    rate: u32,
    pub writes: u64,
    /// The longest time without an acknowledged write.
    outage_ms: f64,
    /// When it began, from the start of the run.
    outage_at_s: f64,
    /// What was not acknowledged, by reason.
    errors: BTreeMap<String, u64>,
}

/// One connection an endpoint, made when needed and forgotten when it fails.
struct Pool {
    store: Store,
    connections: Vec<Mutex<Option<Connection>>>,
}

impl Pool {
    async fn put(&self, number: u64) -> Result<(), Refusal> {
        let nth = usize::try_from(number).unwrap_or(usize::MAX) % self.connections.len();
        let slot = &self.connections[nth];
        let known = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = match known {
            Some(connection) => connection,
            None => {
                let made = self.store.connect(nth).await?;
                slot.lock().unwrap_or_else(PoisonError::into_inner).insert(made).clone()
            }
        };
        let outcome = self.store.put(&mut connection, &self.store.key(0, number % KEYS), number).await;
        if outcome.is_err() {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        outcome
    }
}

/// Writes at `rate` for `measured`.
pub async fn run(store: &Store, rate: u32, measured: Duration) -> anyhow::Result<Report> {
    let connections = store.endpoints.iter().map(|_| Mutex::default()).collect();
    let pool = Arc::new(Pool { store: store.clone(), connections });
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut writes = JoinSet::new();
    let mut acknowledged = Vec::new();
    let mut errors = BTreeMap::new();
    let mut take = |outcome: Result<Duration, Refusal>| match outcome {
        Ok(at) => acknowledged.push(at),
        Err(refusal) => *errors.entry(refusal).or_default() += 1,
    };
    for number in 0_u64.. {
        tick.tick().await;
        if began.elapsed() >= measured {
            break;
        }
        while let Some(done) = writes.try_join_next() {
            take(done?);
        }
        if writes.len() >= MAX_IN_FLIGHT {
            take(Err("left-out".to_owned()));
            continue;
        }
        let pool = pool.clone();
        writes.spawn(async move { pool.put(number).await.map(|()| began.elapsed()) });
    }
    while let Some(done) = writes.join_next().await {
        take(done?);
    }
    let count = acknowledged.len() as u64;
    let (outage, at) = longest_gap(acknowledged, measured);
    Ok(Report {
        target: format!("{:?}", store.target).to_lowercase(),
        mode: "outage",
        seconds: measured.as_secs_f64(),
        rate,
        writes: count,
        outage_ms: outage.as_secs_f64() * 1e3,
        outage_at_s: at.as_secs_f64(),
        errors,
    })
}

/// The longest gap and where it begins. The time before the first acknowledgement is the connection's;
/// the time after the last one counts, up to the end.
fn longest_gap(mut times: Vec<Duration>, end: Duration) -> (Duration, Duration) {
    times.retain(|t| *t < end);
    times.push(end);
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
    gaps.max().unwrap_or((end, Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found_between_acknowledgements_and_up_to_the_end() {
        let s = Duration::from_secs;
        let table: [(&[u64], u64, u64); 5] = [
            (&[], 20, 0),
            (&[1, 2, 3, 19], 16, 3),
            (&[3, 1, 2], 17, 3),
            (&[5, 12, 19], 7, 12),
            // What is answered after the end does not shorten the gap.
            (&[10, 25], 10, 10),
        ];
        for (times, gap, at) in table {
            let found = longest_gap(times.iter().map(|t| s(*t)).collect(), s(20));
            assert_eq!(found, (s(gap), s(at)), "{times:?}");
        }
    }
}
