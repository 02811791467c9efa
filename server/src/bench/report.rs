//! The figures of a run, as text and as JSON, and whether the run may be trusted.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use provost_client::Transport;
use serde::Serialize;

use super::{
    Era,
    plan::{Load, Plan},
    process::Cost,
    worker::Outcome,
};
use crate::failure::Failure;

/// A generator this late at p99 measured itself.
const MAX_LAG: Duration = Duration::from_millis(5);

/// The figures of one run. Times are microseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    url: String,
    tool: String,
    era: &'static str,
    transport: &'static str,
    connections: usize,
    /// Calls offered a second; absent when saturated.
    offered_per_second: Option<f64>,
    duration_s: f64,
    answered: u64,
    throughput_per_second: f64,
    latency_us: Quantiles,
    /// How late the generator itself was; absent when saturated.
    generator_lag_us: Option<Quantiles>,
    unsent: u64,
    errors: BTreeMap<String, u64>,
    server: Option<Cost>,
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
    mean: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let us = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p999: us(0.999),
            max: histogram.max() as f64 / 1e3,
            mean: histogram.mean() / 1e3,
        }
    }
}

impl Report {
    /// Sums a run up.
    pub fn new(url: &str, transport: Transport, tool: &str, plan: &Plan, era: Era, outcome: &Outcome) -> Self {
        let answered = outcome.tally.latency.len();
        let rate = match plan.load {
            Load::Open { rate } => Some(rate),
            Load::Saturated => None,
        };
        Self {
            url: url.to_owned(),
            tool: tool.to_owned(),
            era: if era == Era::Modern { "2026-07-28" } else { "2025-11-25" },
            transport: transport.as_str(),
            connections: plan.connections,
            offered_per_second: rate,
            duration_s: outcome.elapsed.as_secs_f64(),
            answered,
            throughput_per_second: answered as f64 / outcome.elapsed.as_secs_f64().max(1e-9),
            latency_us: Quantiles::of(&outcome.tally.latency),
            generator_lag_us: rate.map(|_| Quantiles::of(&outcome.tally.lag)),
            unsent: outcome.unsent,
            errors: outcome.tally.errors.clone(),
            server: outcome.cost,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// A run with errors, unsent calls or a late generator is no measurement.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let failed: u64 = self.errors.values().sum();
        if failed > 0 {
            let kinds = self.errors.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("{failed} calls failed ({kinds}): the figures are not comparable");
            return Err(Failure::new("PV-BENCH-ERRORS", message, "see the server's log and the audit log").into());
        }
        if self.unsent > 0 {
            let message = format!("{} calls were due and never sent: the server cannot hold this rate", self.unsent);
            return Err(Failure::new("PV-BENCH-RATE", message, "lower --rate, or use --saturate to find it").into());
        }
        let lag = self.generator_lag_us.as_ref().map_or(0.0, |lag| lag.p99);
        if lag > MAX_LAG.as_secs_f64() * 1e6 {
            let message = format!("the generator was {lag:.0} us late at p99: it measured itself");
            return Err(Failure::new("PV-BENCH-LAG", message, "lower --rate, or leave this machine more CPU").into());
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = match self.offered_per_second {
            Some(rate) => format!("open loop, {rate} calls/s"),
            None => "saturated".to_owned(),
        };
        writeln!(
            f,
            "{} at {}: {load}, {} connections over {}, {}",
            self.tool, self.url, self.connections, self.transport, self.era
        )?;
        writeln!(
            f,
            "  throughput  {:.1} calls/s ({} answers in {:.2} s)",
            self.throughput_per_second, self.answered, self.duration_s
        )?;
        line(f, "latency", &self.latency_us)?;
        if let Some(lag) = &self.generator_lag_us {
            line(f, "generator", lag)?;
        }
        if let Some(server) = &self.server {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "  server      {:.1} CPU us/call ({:.2} CPU s), RSS {:.1} -> {:.1} MiB (pid {})",
                server.cpu_us_per_call,
                server.cpu_seconds,
                mib(server.rss_bytes_before),
                mib(server.rss_bytes_after),
                server.pid
            )?;
        }
        write!(f, "  errors      {}", self.errors.values().sum::<u64>())?;
        for (kind, count) in &self.errors {
            write!(f, "\n              {count} x {kind}")?;
        }
        if self.unsent > 0 {
            write!(f, "\n  unsent      {}", self.unsent)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, q: &Quantiles) -> fmt::Result {
    writeln!(
        f,
        "  {name:<10}  p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0} us",
        q.p50, q.p90, q.p99, q.p999, q.max
    )
}
