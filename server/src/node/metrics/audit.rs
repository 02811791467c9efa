//! The audit log.

use provost_audit_store::{AuditStatus, GroupMetrics};

use super::{Sample, float};

/// The logs of this replica.
pub(super) fn of_logs(status: &[AuditStatus]) -> Vec<Sample> {
    let mut samples: Vec<Sample> = status
        .iter()
        .map(|log| Sample {
            name: "provost_audit_records",
            labels: format!("{{log=\"{}\"}}", log.origin),
            help: "Records in each audit log.",
            is_counter: false,
            value: float(log.size),
        })
        .collect();
    samples.extend(status.iter().map(|log| Sample {
        name: "provost_audit_signed_records",
        labels: format!("{{log=\"{}\"}}", log.origin),
        help: "Records of each audit log that a checkpoint covers.",
        is_counter: false,
        value: float(log.signed_size),
    }));
    samples.extend(status.iter().map(|log| Sample {
        name: "provost_audit_held_records",
        labels: format!("{{log=\"{}\"}}", log.origin),
        help: "Records of each audit log whose checkpoint the control plane holds, as the leader knows it.",
        is_counter: false,
        value: float(log.held_size),
    }));
    samples.extend(status.iter().filter(|log| log.cosigned_size > 0).map(|log| Sample {
        name: "provost_audit_cosigned_records",
        labels: format!("{{log=\"{}\"}}", log.origin),
        help: "Records of the audit log whose checkpoint a witness has cosigned.",
        is_counter: false,
        value: float(log.cosigned_size),
    }));
    samples
}

/// Their group.
pub(super) fn of_group(group: &GroupMetrics) -> Vec<Sample> {
    let gauge =
        |name, help, value: u64| Sample { name, labels: String::new(), help, is_counter: false, value: float(value) };
    let count = |ids: &std::collections::BTreeSet<u64>| ids.len() as u64;
    vec![
        gauge("provost_audit_voters", "Voters of the audit log's group, as this node sees it.", count(&group.voters)),
        gauge(
            "provost_audit_learners",
            "Replicas of the audit log that do not vote yet, as this node sees it.",
            count(&group.learners),
        ),
        gauge(
            "provost_audit_leader",
            "The number of the node that leads the audit log's group; 0: none is known.",
            group.leader.unwrap_or_default(),
        ),
    ]
}
