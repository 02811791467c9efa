//! The process, the control plane and Raft's groups.

use std::time::{SystemTime, UNIX_EPOCH};

use provost_audit_store::GroupMetrics;
use provost_control_api::SubscriberStatus;
use provost_types::Revision;

use super::{Sample, float, label};

fn gauge(name: &'static str, help: &'static str, labels: String, value: f64) -> Sample {
    Sample { name, labels, help, is_counter: false, value }
}

/// The build, since when the process runs, and its memory.
pub(super) fn of_process(started: SystemTime) -> Vec<Sample> {
    let since = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let mut samples = vec![
        gauge("provost_build_info", "1; the build is in the label.", version, 1.0),
        gauge("process_start_time_seconds", "Unix time at which the process began to serve.", String::new(), since),
    ];
    samples.extend(resident_bytes().map(|bytes| {
        gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", String::new(), float(bytes))
    }));
    samples
}

/// By what Linux says (proc(5), `status`); elsewhere unknown.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The control plane's revision.
pub(super) fn of_revision(revision: Revision) -> Sample {
    gauge(
        "provost_control_revision",
        "The revision of this control-plane node's state.",
        String::new(),
        float(revision.0),
    )
}

/// The nodes that take configuration from this control-plane node.
pub(super) fn of_subscribers(all: &[SubscriberStatus]) -> Vec<Sample> {
    let each = |name, help, value: fn(&SubscriberStatus) -> f64| {
        all.iter()
            .map(move |s| gauge(name, help, format!("{{node=\"{}\"}}", label(&s.node)), value(s)))
            .collect::<Vec<_>>()
    };
    let mut samples = each(
        "provost_subscriber_lag_revisions",
        "Revisions that a node which takes its configuration from this one is behind.",
        |s| float(s.lag),
    );
    samples.extend(each(
        "provost_subscriber_silent_seconds",
        "Since a node which takes its configuration from this one was last heard.",
        |s| s.silent.as_secs_f64(),
    ));
    samples
}

/// Name, help, and the value of a group.
type GroupGauge = (&'static str, &'static str, fn(&GroupMetrics) -> Option<f64>);

/// The groups that this process has a replica of, each by its name.
pub(super) fn of_raft(groups: &[(&'static str, &GroupMetrics)]) -> Vec<Sample> {
    let gauges: [GroupGauge; 10] = [
        ("provost_raft_term", "Raft's term.", |g| Some(float(g.term))),
        ("provost_raft_leader", "The number of the node that leads; 0: none is known.", |g| {
            Some(float(g.leader.unwrap_or_default()))
        }),
        ("provost_raft_is_leader", "1 where this node leads.", |g| {
            Some(if g.leader == Some(g.node_id) { 1.0 } else { 0.0 })
        }),
        ("provost_raft_voters", "Voters, as this node sees them.", |g| Some(float(g.voters.len() as u64))),
        ("provost_raft_learners", "Replicas that do not vote yet, as this node sees them.", |g| {
            Some(float(g.learners.len() as u64))
        }),
        ("provost_raft_last_log_index", "The last entry of this node's log.", |g| g.last_log.map(float)),
        ("provost_raft_committed_index", "The last entry that this node knows to be committed.", |g| {
            g.committed.map(float)
        }),
        ("provost_raft_applied_index", "The last entry that is applied here.", |g| g.applied.map(float)),
        (
            "provost_raft_purged_index",
            "The last entry that is gone from this node's log, because a snapshot has it.",
            |g| g.purged.map(float),
        ),
        (
            "provost_raft_quorum_acked_seconds",
            "On the leader: since it sent the last message that a quorum answered.",
            |g| g.quorum_acked_ago.map(|ago| ago.as_secs_f64()),
        ),
    ];
    let mut samples = Vec::new();
    for (name, help, value) in gauges {
        let each = groups
            .iter()
            .filter_map(|(group, metrics)| Some(gauge(name, help, format!("{{group=\"{group}\"}}"), value(metrics)?)));
        samples.extend(each);
    }
    for (group, metrics) in groups {
        samples.extend(metrics.followers.iter().map(|(peer, follower)| {
            let labels = format!("{{group=\"{group}\",peer=\"{peer}\"}}");
            let help = "On the leader: entries that another member lacks.";
            gauge("provost_raft_follower_lag_entries", help, labels, float(follower.lag))
        }));
    }
    samples
}
