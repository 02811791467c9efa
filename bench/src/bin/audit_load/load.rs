//! Records, at a rate or as many as there is room for.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use provost_audit_store::AuditWriter;
use provost_bench::event;
use provost_types::AuditSink;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(1);

/// What was measured.
pub struct Measured {
    took: Duration,
    micros: Histogram<u64>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |quantile: f64| {
            let micros = u32::try_from(self.micros.value_at_quantile(quantile)).unwrap_or(u32::MAX);
            f64::from(micros) / 1_000.0
        };
        let count = u32::try_from(self.micros.len()).unwrap_or(u32::MAX);
        write!(
            f,
            "{count} records in {:.1} s, {:.0} records/s; p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
            self.took.as_secs_f64(),
            f64::from(count) / self.took.as_secs_f64(),
            millis(0.5),
            millis(0.99),
            millis(0.999),
            millis(1.0),
        )
    }
}

/// So many records a second, whatever becomes of the earlier ones. Latency counts from when each was due.
pub async fn at_rate(writers: &[AuditWriter], rate: u32, time: Duration) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut records = JoinSet::new();
    let mut micros = Histogram::new(3)?;
    let mut sent = 0_u32;
    loop {
        tick.tick().await;
        let now = began.elapsed().min(time);
        while Duration::from_secs(1) * sent / rate < now {
            let due = began + Duration::from_secs(1) * sent / rate;
            let writer = writers[sent as usize % writers.len()].clone();
            let event = event(u128::from(next_id(sent)));
            records.spawn(async move {
                let done = writer.record(event).await;
                (due.elapsed(), done)
            });
            sent += 1;
        }
        while let Some(done) = records.try_join_next() {
            note(&mut micros, done?)?;
        }
        if now >= time {
            break;
        }
    }
    while let Some(done) = records.join_next().await {
        note(&mut micros, done?)?;
    }
    Ok(Measured { took: began.elapsed(), micros })
}

/// Call ids that differ.
fn next_id(n: u32) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) ^ (u64::from(n) << 40)
}

type Done = (Duration, Result<provost_types::AuditReceipt, provost_types::AuditUnavailable>);

fn note(micros: &mut Histogram<u64>, (took, done): Done) -> anyhow::Result<()> {
    done.map_err(|e| anyhow::anyhow!("a record was refused: {}", e.0))?;
    micros.record(u64::try_from(took.as_micros())?)?;
    Ok(())
}

/// As many as `in_flight` callers at each writer bring about.
pub async fn sustained(writers: &[AuditWriter], in_flight: usize, time: Duration) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let ids = Arc::new(AtomicU64::new(1 << 50));
    let mut callers = JoinSet::new();
    for writer in writers {
        for _ in 0..in_flight {
            let (writer, ids) = (writer.clone(), ids.clone());
            callers.spawn(async move {
                let mut micros = Histogram::<u64>::new(3)?;
                while began.elapsed() < time {
                    let event = event(u128::from(ids.fetch_add(1, Ordering::Relaxed)));
                    let sent = Instant::now();
                    let done = writer.record(event).await;
                    note(&mut micros, (sent.elapsed(), done))?;
                }
                anyhow::Ok(micros)
            });
        }
    }
    let mut micros = Histogram::new(3)?;
    while let Some(done) = callers.join_next().await {
        micros.add(&done??)?;
    }
    Ok(Measured { took: began.elapsed(), micros })
}
