//! What two looks at a node say of the time between them.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::scrape::Sample;

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeView {
    /// `HOST:PORT` of its metrics.
    pub node: String,
    /// Whether it answered.
    pub answers: bool,
    /// Calls that ended; `None`: it serves none.
    pub calls_per_second: Option<f64>,
    /// Of those, the median of the time from arrival to the last record.
    pub p50_ms: Option<f64>,
    /// Of those, the time that one in a hundred exceeds.
    pub p99_ms: Option<f64>,
    /// Refused before they ran.
    pub denied_per_second: Option<f64>,
    /// Ended with an error, out of time or unknown.
    pub errors_per_second: Option<f64>,
    /// Calls that run.
    pub running: Option<f64>,
    /// Calls that wait for a place at an upstream.
    pub waiting: Option<f64>,
    /// The revision that it runs; of a control-plane node alone, that of its state.
    pub revision: Option<f64>,
    /// Revisions behind the newest that any of these nodes has.
    pub lag: Option<f64>,
    /// Since a quorum confirmed its state; `None`: its control plane is in the process.
    pub state_age_seconds: Option<f64>,
    /// The Raft groups that it leads.
    pub leads: Vec<String>,
    /// Plugins whose breaker is open: `TENANT/PLUGIN`.
    pub open: Vec<String>,
    /// Share that is left of quotas near their limit, by `TENANT/QUOTA`.
    pub quotas_left: BTreeMap<String, f64>,
}

impl NodeView {
    /// A node that did not answer.
    pub fn gone(name: &str) -> Self {
        Self { node: name.to_owned(), ..Self::default() }
    }

    /// A node that did.
    pub fn new(name: &str, before: &[Sample], after: &[Sample], since: Duration) -> Self {
        let rate = |metric: &str, pick: &dyn Fn(&Sample) -> bool| {
            let now = total(after, metric, pick)?;
            let then = total(before, metric, pick).unwrap_or(0.0);
            // A process that has started again counts from 0.
            let grown = if now >= then { now - then } else { now };
            Some(if since.is_zero() { 0.0 } else { grown / since.as_secs_f64() })
        };
        let all = |_: &Sample| true;
        let bad = |s: &Sample| matches!(s.label("outcome"), "rpc_error" | "timeout" | "unknown");
        let denied = |s: &Sample| s.label("outcome") == "denied";
        let spread = spread(before, after);
        let named = |metric: &'static str| after.iter().filter(move |s| s.name == metric);
        let pair = |s: &Sample, second: &str| format!("{}/{}", s.label("tenant"), s.label(second));
        Self {
            node: name.to_owned(),
            answers: true,
            // A node that has served none prints none of them.
            calls_per_second: total(after, "provost_calls_running", &all)
                .map(|_| rate("provost_requests_total", &all).unwrap_or(0.0)),
            p50_ms: quantile(&spread, 0.5).map(|s| s * 1_000.0),
            p99_ms: quantile(&spread, 0.99).map(|s| s * 1_000.0),
            denied_per_second: rate("provost_calls_total", &denied),
            errors_per_second: rate("provost_calls_total", &bad),
            running: total(after, "provost_calls_running", &all),
            waiting: total(after, "provost_upstream_waiting", &all),
            revision: total(after, "provost_active_revision", &all)
                .or_else(|| total(after, "provost_control_revision", &all)),
            lag: None,
            state_age_seconds: total(after, "provost_state_age_seconds", &all),
            leads: named("provost_raft_is_leader")
                .filter(|s| s.value > 0.0)
                .map(|s| s.label("group").to_owned())
                .collect(),
            open: named("provost_upstream_open").filter(|s| s.value > 0.0).map(|s| pair(s, "plugin")).collect(),
            quotas_left: named("provost_quota_left_ratio").map(|s| (pair(s, "quota"), s.value)).collect(),
        }
    }
}

/// All nodes that were asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    /// Calls of all nodes.
    pub calls_per_second: f64,
    /// The newest revision that any node has.
    pub revision: Option<f64>,
    /// Each node.
    pub nodes: Vec<NodeView>,
}

impl Cluster {
    /// Nodes together: only then is known who is behind.
    pub fn new(mut nodes: Vec<NodeView>) -> Self {
        let revision = nodes.iter().filter_map(|node| node.revision).reduce(f64::max);
        for node in &mut nodes {
            node.lag = revision.zip(node.revision).map(|(newest, own)| newest - own);
        }
        Self { calls_per_second: nodes.iter().filter_map(|node| node.calls_per_second).sum(), revision, nodes }
    }
}

/// The sum of a metric's samples; `None`: there is none.
fn total(samples: &[Sample], metric: &str, pick: &dyn Fn(&Sample) -> bool) -> Option<f64> {
    samples.iter().filter(|&s| s.name == metric && pick(s)).map(|s| s.value).reduce(|a, b| a + b)
}

/// How many calls between two looks took at most so many seconds, by seconds.
fn spread(before: &[Sample], after: &[Sample]) -> Vec<(f64, f64)> {
    const BUCKETS: &str = "provost_call_duration_seconds_bucket";
    let of = |samples: &[Sample]| {
        let buckets = samples.iter().filter(|s| s.name == BUCKETS);
        let mut all: Vec<(f64, f64)> = buckets.filter_map(|s| Some((s.label("le").parse().ok()?, s.value))).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    };
    let (then, mut now) = (of(before), of(after));
    let grown = then.len() == now.len() && then.iter().zip(&now).all(|(then, now)| now.1 >= then.1);
    if grown {
        now.iter_mut().zip(&then).for_each(|(now, then)| now.1 -= then.1);
    }
    now
}

/// The time that this share of the calls did not exceed, with calls spread evenly in each bucket; `None`: there were none.
fn quantile(spread: &[(f64, f64)], share: f64) -> Option<f64> {
    let count = spread.last()?.1;
    if count <= 0.0 {
        return None;
    }
    let rank = share * count;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, cumulated) in spread {
        if *cumulated >= rank {
            if bound.is_infinite() || *cumulated <= below {
                return Some(lower);
            }
            return Some(lower + (bound - lower) * (rank - below) / (cumulated - below));
        }
        (lower, below) = (*bound, *cumulated);
    }
    Some(lower)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::scrape::parse, *};

    const BEFORE: &str = "provost_calls_running 1\nprovost_requests_total{method=\"tools/call\"} 10\n\
        provost_calls_total{outcome=\"denied\"} 1\nprovost_calls_total{outcome=\"timeout\"} 0\n\
        provost_call_duration_seconds_bucket{le=\"0.001\"} 10\nprovost_call_duration_seconds_bucket{le=\"0.01\"} 10\n\
        provost_call_duration_seconds_bucket{le=\"+Inf\"} 10\nprovost_active_revision 7\n";
    const AFTER: &str = "provost_calls_running 3\nprovost_requests_total{method=\"tools/call\"} 110\n\
        provost_calls_total{outcome=\"denied\"} 5\nprovost_calls_total{outcome=\"timeout\"} 2\n\
        provost_call_duration_seconds_bucket{le=\"0.001\"} 60\nprovost_call_duration_seconds_bucket{le=\"0.01\"} 110\n\
        provost_call_duration_seconds_bucket{le=\"+Inf\"} 110\nprovost_active_revision 7\n\
        provost_raft_is_leader{group=\"control\"} 1\nprovost_raft_is_leader{group=\"audit\"} 0\n\
        provost_upstream_open{tenant=\"acme\",plugin=\"crm\"} 1\nprovost_upstream_open{tenant=\"acme\",plugin=\"sql\"} 0\n\
        provost_quota_left_ratio{tenant=\"acme\",quota=\"calls\"} 0.03\n";

    #[test]
    fn rates_and_times_are_those_between_two_looks() {
        let node = NodeView::new("a:1", &parse(BEFORE), &parse(AFTER), Duration::from_secs(2));
        assert_eq!((node.calls_per_second, node.denied_per_second), (Some(50.0), Some(2.0)));
        assert_eq!((node.errors_per_second, node.running, node.waiting), (Some(1.0), Some(3.0), None));
        // Half of the hundred calls took a millisecond at most, the others up to ten.
        assert_eq!(node.p50_ms, Some(1.0));
        assert!((node.p99_ms.unwrap() - 9.82).abs() < 1e-9, "{:?}", node.p99_ms);
        assert_eq!((node.leads, node.open), (vec!["control".to_owned()], vec!["acme/crm".to_owned()]));
        assert_eq!(node.quotas_left.get("acme/calls"), Some(&0.03));
    }

    #[test]
    fn a_node_that_started_again_counts_from_its_beginning_and_one_alone_has_no_calls() {
        let node = NodeView::new("a:1", &parse(AFTER), &parse(BEFORE), Duration::from_secs(2));
        assert_eq!((node.calls_per_second, node.p50_ms), (Some(5.0), Some(0.5)));
        let control = parse("provost_control_revision 9\n");
        let alone = NodeView::new("b:1", &control, &control, Duration::from_secs(2));
        assert_eq!((alone.calls_per_second, alone.p99_ms, alone.revision), (None, None, Some(9.0)));
        let cluster = Cluster::new(vec![node, alone, NodeView::gone("c:1")]);
        let lags: Vec<_> = cluster.nodes.iter().map(|node| node.lag).collect();
        assert_eq!((lags, cluster.revision), (vec![Some(2.0), Some(0.0), None], Some(9.0)));
    }
}
