//! The table: every row, what measures it, and why a row cannot be measured here.

use std::path::Path;

use super::report::{Row, State};

/// What measures a row. Rows of one group come of the same runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Saturated,
    AddedLocal,
    Transports,
    Loss,
    Sessions,
    Scale,
    Nodes,
    AddedQuorum,
    Commit,
    CommitThousand,
    Writes,
    Models,
    Audit,
    Quota,
    Policy,
    Wasm,
    Instructions,
    Tokens,
    Elsewhere,
}

/// Everything that takes time.
pub const GROUPS: [Group; 18] = [
    Group::Saturated,
    Group::AddedLocal,
    Group::Transports,
    Group::Loss,
    Group::Sessions,
    Group::Scale,
    Group::Nodes,
    Group::AddedQuorum,
    Group::Commit,
    Group::CommitThousand,
    Group::Writes,
    Group::Models,
    Group::Audit,
    Group::Quota,
    Group::Policy,
    Group::Wasm,
    Group::Instructions,
    Group::Tokens,
];

/// A row of the table.
pub struct Spec {
    /// Its name on the command line.
    pub id: &'static str,
    /// What it measures.
    pub title: &'static str,
    /// What measures it.
    pub group: Group,
    /// Of a row that nothing here measures.
    pub why: Option<fn() -> String>,
}

const fn row(id: &'static str, title: &'static str, group: Group) -> Spec {
    Spec { id, title, group, why: None }
}

const fn elsewhere(id: &'static str, title: &'static str, why: fn() -> String) -> Spec {
    Spec { id, title, group: Group::Elsewhere, why: Some(why) }
}

/// Every row, in the order of the report.
pub const TABLE: &[Spec] = &[
    row("throughput", "Governed calls beside direct ones and peers, 16 connections, saturated", Group::Saturated),
    row("cpu", "CPU time of a governed call, saturated", Group::Saturated),
    row("memory", "Resident memory of a node, idle and under load", Group::Saturated),
    row("added-local", "Latency that one node adds at 500 calls/s, records on its own disk", Group::AddedLocal),
    row("added-quorum", "Latency that a node of three adds at 500 calls/s, records on a quorum", Group::AddedQuorum),
    row("instructions", "Instructions of the hot paths of a governed call", Group::Instructions),
    row("sessions", "Memory of a live session", Group::Sessions),
    row("scale", "Latency with 10,000 tools, 1,000 tenants and 5,000 policies beside little of each", Group::Scale),
    row("nodes", "Three data-plane nodes beside one, by the processor time of a call", Group::Nodes),
    row("transports", "WebSocket, HTTP/3 and QUIC beside Streamable HTTP, saturated", Group::Transports),
    row("loss", "QUIC beside HTTP/2 with 1 % of packets lost, many calls on one connection", Group::Loss),
    row("writes", "Writes to the control plane beside etcd, three members of each", Group::Writes),
    row("commit", "From a change's acknowledgement until three nodes run it", Group::Commit),
    row("commit-1000", "From a change's acknowledgement until 1,000 nodes have it", Group::CommitThousand),
    row("audit-append", "Records made durable in the audit log", Group::Audit),
    row("audit-verify", "Records of the audit log verified", Group::Audit),
    row("quota", "Decision of a quota, on the node", Group::Quota),
    row("policy", "Decision of policy, on the node", Group::Policy),
    row("wasm", "A WebAssembly component in a fresh instance above the same function built in", Group::Wasm),
    row("models", "Three models in the memory of two, chats and embeddings mixed", Group::Models),
    row("tokens", "Tokens a second on the CPU beside llama.cpp", Group::Tokens),
    elsewhere("swap-in", "Loading a model onto a GPU beside the rate of a pinned copy", swap_in),
];

fn swap_in() -> String {
    match Path::new("/dev/nvidiactl").exists() {
        true => "this build runs models on the CPU".to_owned(),
        false => "no GPU".to_owned(),
    }
}

/// Whether there is such a row.
pub fn is_row(id: &str) -> bool {
    TABLE.iter().any(|spec| spec.id == id)
}

/// The names of all rows.
pub fn names() -> String {
    TABLE.iter().map(|spec| spec.id).collect::<Vec<_>>().join(", ")
}

/// What is wanted of the table; nothing named is everything.
pub struct Wanted {
    rows: Vec<String>,
    /// Whether there is a llama.cpp to measure beside.
    llama: bool,
}

impl Wanted {
    /// These rows.
    pub fn new(rows: &[String]) -> Self {
        Self { rows: rows.to_vec(), llama: false }
    }

    /// The same, where llama.cpp is or is not there.
    #[must_use]
    pub fn beside_llama(self, llama: bool) -> Self {
        Self { llama, ..self }
    }

    /// Whether this row is wanted.
    pub fn has(&self, spec: &Spec) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|id| id == spec.id)
    }

    /// Whether a row of this group is wanted.
    pub fn group(&self, group: Group) -> bool {
        TABLE.iter().any(|spec| spec.group == group && self.has(spec))
    }

    /// Whether a row of this group is wanted, and what it cannot be measured without is there.
    pub fn takes_time(&self, group: Group) -> bool {
        self.group(group) && (self.llama || group != Group::Tokens)
    }
}

/// How a row ended, in a word.
pub fn word(row: &Row) -> &'static str {
    match row.state {
        State::Measured => "measured",
        State::Skipped => "not here",
        State::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own() {
        let mut ids: Vec<&str> = TABLE.iter().map(|spec| spec.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TABLE.len());
    }

    #[test]
    fn a_row_is_measured_by_a_group_or_says_why_not() {
        for spec in TABLE {
            assert_eq!(GROUPS.contains(&spec.group), spec.why.is_none(), "{}", spec.id);
        }
    }
}
