//! The calls of a data plane.

use provost_data_serve::{
    node::Node,
    observe::{BOUNDS_NS, Buckets},
};

use super::{Sample, float, label};

/// [`BOUNDS_NS`] in seconds, as text.
const BOUNDS: [&str; BOUNDS_NS.len()] = [
    "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
    "0.5", "1", "2.5", "5", "10", "60",
];
const NS_PER_S: f64 = 1e9;
const MICRO: f64 = 1e6;

/// Requests, durations, refusals, errors, limits, what models used, and traces.
pub(super) fn of_calls(node: &Node) -> Vec<Sample> {
    let counter =
        |name, help, labels: String, value: u64| Sample { name, labels, help, is_counter: true, value: float(value) };
    let mut samples = Vec::with_capacity(320);
    samples.extend(node.requests().into_iter().map(|(method, transport, count)| {
        let labels = format!("{{method=\"{method}\",transport=\"{transport}\"}}");
        counter("provost_requests_total", "Calls by method and transport, recorded or not.", labels, count)
    }));
    let durations = node.durations();
    let total = [
        "provost_call_duration_seconds_bucket",
        "provost_call_duration_seconds_sum",
        "provost_call_duration_seconds_count",
    ];
    histogram(&mut samples, total, "From a call's arrival to its last record.", "", &durations.total);
    let stages = [
        "provost_stage_duration_seconds_bucket",
        "provost_stage_duration_seconds_sum",
        "provost_stage_duration_seconds_count",
    ];
    for (stage, buckets) in &durations.stages {
        let labels = format!("stage=\"{}\"", stage.as_str());
        histogram(&mut samples, stages, "How long calls were in each stage.", &labels, buckets);
    }
    samples.extend(node.refusals().into_iter().map(|(reason, count)| {
        counter(
            "provost_refusals_total",
            "Calls refused before they ran, by why.",
            format!("{{reason=\"{reason}\"}}"),
            count,
        )
    }));
    samples.extend(node.errors().into_iter().map(|(code, count)| {
        counter(
            "provost_errors_total",
            "Refusals and errors by stable code.",
            format!("{{code=\"{}\"}}", label(&code)),
            count,
        )
    }));
    samples.extend(node.limit_hits().into_iter().map(|(quota, count)| {
        counter("provost_limit_hits_total", "Calls refused because a quota was used up.", of_quota(&quota), count)
    }));
    samples.extend(node.near_limits().into_iter().map(|near| Sample {
        name: "provost_quota_left_ratio",
        labels: of_quota(&near.quota),
        help: "Share that is left of quotas that calls of the last minute found below a fifth.",
        is_counter: false,
        value: if near.limit == 0 { 0.0 } else { float(near.remaining) / float(near.limit) },
    }));
    samples.extend(of_tenants(node));
    if let Some(counts) = node.tracing_counts() {
        let states =
            [("queued", counts.queued), ("sent", counts.sent), ("dropped", counts.dropped), ("lost", counts.lost)];
        samples.extend(states.map(|(state, count)| {
            let help =
                "Traces of calls: put into the queue, taken by the receiver, dropped as the queue was full, given up.";
            counter("provost_traces_total", help, format!("{{state=\"{state}\"}}"), count)
        }));
    }
    samples
}

fn of_tenants(node: &Node) -> Vec<Sample> {
    let mut samples = Vec::new();
    let used = node.tenant_use();
    for (tenant, used) in &used {
        let tenant = label(tenant);
        for (direction, tokens) in [("in", used.tokens_in), ("out", used.tokens_out)] {
            samples.push(Sample {
                name: "provost_tokens_total",
                labels: format!("{{tenant=\"{tenant}\",direction=\"{direction}\"}}"),
                help: "Model tokens read and made, by tenant.",
                is_counter: true,
                value: float(tokens),
            });
        }
    }
    samples.extend(used.iter().map(|(tenant, used)| Sample {
        name: "provost_cost_total",
        labels: format!("{{tenant=\"{}\"}}", label(tenant)),
        help: "What calls cost by the tenant's prices, in units of its currency.",
        is_counter: true,
        value: float(used.cost_micro) / MICRO,
    }));
    samples
}

/// The labels of `TENANT/QUOTA`.
fn of_quota(name: &str) -> String {
    let (tenant, quota) = name.split_once('/').unwrap_or(("", name));
    format!("{{tenant=\"{}\",quota=\"{}\"}}", label(tenant), label(quota))
}

/// Buckets as Prometheus has them: each with all that fits below its bound. `labels`: without braces.
fn histogram(
    samples: &mut Vec<Sample>,
    [bucket, sum, count]: [&'static str; 3],
    help: &'static str,
    labels: &str,
    buckets: &Buckets,
) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut below = 0;
    for (bound, in_bucket) in BOUNDS.into_iter().chain(["+Inf"]).zip(buckets.counts) {
        below += in_bucket;
        let labels = format!("{{{labels}{comma}le=\"{bound}\"}}");
        samples.push(Sample { name: bucket, labels, help, is_counter: true, value: float(below) });
    }
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let seconds = float(buckets.sum_ns) / NS_PER_S;
    samples.push(Sample { name: sum, labels: braced.clone(), help, is_counter: true, value: seconds });
    samples.push(Sample { name: count, labels: braced, help, is_counter: true, value: float(below) });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_told_in_seconds() {
        for (text, ns) in BOUNDS.into_iter().zip(BOUNDS_NS) {
            assert!((text.parse::<f64>().unwrap() * NS_PER_S - float(ns)).abs() < 0.5, "{text}");
        }
    }

    #[test]
    fn a_bucket_holds_what_is_below_it_too() {
        let mut buckets = Buckets { sum_ns: 1_500_000_000, ..Buckets::default() };
        (buckets.counts[0], buckets.counts[13], buckets.counts[18]) = (2, 1, 1);
        let mut samples = Vec::new();
        histogram(&mut samples, ["x_bucket", "x_sum", "x_count"], "X.", "stage=\"s\"", &buckets);
        let of = |labels: &str| samples.iter().find(|s| s.labels == labels).map(|s| s.value);
        assert_eq!(of("{stage=\"s\",le=\"0.00005\"}"), Some(2.0));
        assert_eq!(of("{stage=\"s\",le=\"0.5\"}"), Some(2.0));
        assert_eq!(of("{stage=\"s\",le=\"1\"}"), Some(3.0));
        assert_eq!(of("{stage=\"s\",le=\"+Inf\"}"), Some(4.0));
        let last: Vec<_> = samples.iter().rev().take(2).map(|s| (s.name, s.value)).collect();
        assert_eq!(last, [("x_count", 4.0), ("x_sum", 1.5)]);
    }

    #[test]
    fn a_quota_is_its_tenants() {
        assert_eq!(of_quota("acme/calls"), "{tenant=\"acme\",quota=\"calls\"}");
        assert_eq!(of_quota("other"), "{tenant=\"\",quota=\"other\"}");
    }
}
