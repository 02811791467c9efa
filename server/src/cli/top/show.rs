//! A look at the cluster, for people.

use super::view::{Cluster, NodeView};
use crate::cli::table;

const HEADINGS: [&str; 12] = [
    "NODE",
    "CALLS/S",
    "P50",
    "P99",
    "DENIED/S",
    "ERRORS/S",
    "RUNNING",
    "WAITING",
    "REVISION",
    "LAG",
    "STATE AGE",
    "LEADS",
];

/// Prints it.
pub fn print(cluster: &Cluster) {
    let there = cluster.nodes.iter().filter(|node| node.answers).count();
    let revision = cluster.revision.map_or(String::new(), |revision| format!(", revision {revision:.0}"));
    println!("{there} of {} nodes, {:.1} calls/s{revision}\n", cluster.nodes.len(), cluster.calls_per_second);
    table::print(&HEADINGS, &cluster.nodes.iter().map(row).collect::<Vec<_>>());
    for line in beside(cluster) {
        println!("{line}");
    }
}

fn row(node: &NodeView) -> Vec<String> {
    if !node.answers {
        return vec![node.node.clone(), "does not answer".to_owned()];
    }
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    vec![
        node.node.clone(),
        number(node.calls_per_second, 1),
        duration(node.p50_ms),
        duration(node.p99_ms),
        number(node.denied_per_second, 1),
        number(node.errors_per_second, 1),
        number(node.running, 0),
        number(node.waiting, 0),
        number(node.revision, 0),
        number(node.lag, 0),
        node.state_age_seconds.map_or("-".to_owned(), |age| format!("{age:.0} s")),
        node.leads.join(", "),
    ]
}

/// From milliseconds.
fn duration(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 1.0 => format!("{:.0} µs", ms * 1_000.0),
        Some(ms) if ms < 1_000.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{:.1} s", ms / 1_000.0),
    }
}

/// What needs somebody: breakers and quotas.
fn beside(cluster: &Cluster) -> Vec<String> {
    let mut lines = Vec::new();
    for node in &cluster.nodes {
        lines.extend(node.open.iter().map(|plugin| format!("breaker open: {plugin} on {}", node.node)));
        let quotas = node.quotas_left.iter();
        lines.extend(quotas.map(|(quota, left)| {
            format!("quota near its limit: {quota}, {:.0} % left on {}", left * 100.0, node.node)
        }));
    }
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_one_line_and_what_needs_somebody_stands_below() {
        let node = NodeView {
            node: "dp-1:8422".to_owned(),
            answers: true,
            calls_per_second: Some(12.34),
            p50_ms: Some(0.25),
            p99_ms: Some(12.5),
            open: vec!["acme/crm".to_owned()],
            quotas_left: [("acme/calls".to_owned(), 0.031)].into(),
            ..NodeView::default()
        };
        let cells = row(&node);
        assert_eq!(cells.len(), HEADINGS.len());
        assert_eq!(
            cells.get(..4).map(<[String]>::to_vec),
            Some(["dp-1:8422", "12.3", "250 µs", "12.5 ms"].map(str::to_owned).to_vec())
        );
        let cluster = Cluster::new(vec![node, NodeView::gone("dp-2:8422")]);
        let expect =
            ["", "breaker open: acme/crm on dp-1:8422", "quota near its limit: acme/calls, 3 % left on dp-1:8422"];
        assert_eq!(beside(&cluster), expect);
        assert_eq!(duration(Some(2_500.0)), "2.5 s");
    }
}
