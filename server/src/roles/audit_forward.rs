//! Starts the forwarders that the configuration names, and shows how they stand.

use std::{collections::BTreeMap, sync::Arc};

use provost_audit_core::LogId;
use provost_audit_store::{AuditNode, ForwardHandle, Forwarder};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::ServerConfig,
    node::metrics::{Sample, Sampler},
};

/// Folder of the cursors, below the data directory; no part of what an auditor copies.
const CURSORS: &str = "audit-forward";

/// Starts them; gives the sampler that also speaks of them. They read files: what the replica here
/// does not have yet is sent when it has it.
pub fn start(
    config: &ServerConfig,
    replica: impl Fn() -> Option<AuditNode> + Send + Sync + 'static,
    sampler: Sampler,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Sampler> {
    let (audit_dir, cursors) = (config.data_dir.join("audit"), config.data_dir.join(CURSORS));
    let mut handles = Vec::new();
    for forward in config.audit.forwards() {
        let only = forward.logs.clone();
        let forwarder = Forwarder::open(forward, &audit_dir, &cursors)?;
        handles.push((forwarder.handle(), only));
        super::until(forwarder.run(), tasks, stop);
    }
    if handles.is_empty() {
        return Ok(sampler);
    }
    Ok(Arc::new(move || {
        let mut samples = sampler();
        let status = replica().map(|node| node.status()).unwrap_or_default();
        let sizes = status.into_iter().filter_map(|s| Some((LogId::from_origin(&s.origin)?, s.size)));
        samples.extend(of(&handles, &sizes.collect()));
        samples
    }))
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floats (Prometheus text format)")]
fn of(handles: &[(ForwardHandle, Vec<LogId>)], sizes: &BTreeMap<LogId, u64>) -> Vec<Sample> {
    let status: Vec<_> = handles.iter().map(|(handle, only)| (handle.name(), handle.status(), only)).collect();
    let sample = |name: &'static str, help: &'static str, is_counter: bool, value: &dyn Fn(usize) -> Option<f64>| {
        let each = status.iter().enumerate().filter_map(|(n, (forward, ..))| {
            let labels = format!("{{forward=\"{forward}\"}}");
            Some(Sample { name, labels, help, is_counter, value: value(n)? })
        });
        each.collect::<Vec<_>>()
    };
    let lag = |n: usize| {
        let (_, status, only) = status.get(n)?;
        let wanted = sizes.iter().filter(|(log, _)| only.is_empty() || only.contains(log));
        let behind = |(log, size): (&LogId, &u64)| size.saturating_sub(status.positions.get(log).copied().unwrap_or(0));
        Some(wanted.map(behind).sum::<u64>() as f64)
    };
    let count = |pick: fn(&provost_audit_store::ForwardStatus) -> u64| {
        let status = &status;
        move |n: usize| status.get(n).map(|(_, s, _)| pick(s) as f64)
    };
    let idle = |n: usize| status.get(n)?.1.last_taken.map(|at| at.elapsed().as_secs_f64());
    [
        sample("provost_audit_forward_lag_records", "Records that a receiver has not taken yet.", false, &lag),
        sample("provost_audit_forward_sent_total", "Records that a receiver took.", true, &count(|s| s.sent)),
        sample("provost_audit_forward_failures_total", "Deliveries that failed.", true, &count(|s| s.failures)),
        sample(
            "provost_audit_forward_rejected_total",
            "Records that a receiver took and rejected for good.",
            true,
            &count(|s| s.rejected),
        ),
        sample(
            "provost_audit_forward_pruned_total",
            "Records that were pruned before they could be sent.",
            true,
            &count(|s| s.pruned),
        ),
        sample("provost_audit_forward_last_taken_seconds", "Since a receiver last took records.", false, &idle),
    ]
    .into_iter()
    .flatten()
    .collect()
}
