//! The table: every row, what measures it, and why a row cannot be measured here.
//!
//! Rows of one group come of the same runs. Groups run in an order that starts and ends each set of nodes once; what is
//! reported keeps the order of the table.

use std::path::Path;

use super::{
    audit, calls,
    cluster::Cluster,
    component, hot,
    program::on_path,
    report::{Row, State},
    scale,
    stage::Stage,
    transports, writes,
};

/// The store that writes are compared with.
const ETCD: &str = "etcd";

/// What measures a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Saturated,
    AddedLocal,
    Transports,
    Sessions,
    Scale,
    AddedQuorum,
    Commit,
    Writes,
    Audit,
    Quota,
    Policy,
    Wasm,
    Elsewhere,
}

/// A row of the table.
pub struct Spec {
    /// Its name on the command line.
    pub id: &'static str,
    /// What it measures.
    pub title: &'static str,
    group: Group,
    /// Of a row that nothing here measures.
    why: Option<fn() -> String>,
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
    elsewhere("instructions", "Instructions of a governed call", instructions),
    row("sessions", "Memory of a live session", Group::Sessions),
    row("scale", "Latency with 10,000 tools, 1,000 tenants and 5,000 policies beside little of each", Group::Scale),
    elsewhere("nodes", "Throughput of three nodes beside one", nodes),
    row("transports", "WebSocket, HTTP/3 and QUIC beside Streamable HTTP, saturated", Group::Transports),
    elsewhere("loss", "QUIC beside HTTP/2 with 1 % of packets lost", loss),
    row("writes", "Writes to the control plane beside etcd, three members of each", Group::Writes),
    row("commit", "From a change's acknowledgement until three nodes run it", Group::Commit),
    elsewhere("commit-1000", "From a change's acknowledgement until 1,000 nodes run it", thousand),
    row("audit-append", "Records made durable in the audit log", Group::Audit),
    row("audit-verify", "Records of the audit log verified", Group::Audit),
    row("quota", "Decision of a quota, on the node", Group::Quota),
    row("policy", "Decision of policy, on the node", Group::Policy),
    row("wasm", "A WebAssembly component in a fresh instance above the same function built in", Group::Wasm),
    elsewhere("tokens", "Tokens a second on the CPU beside llama.cpp", tokens),
    elsewhere("swap-in", "Loading a model onto a GPU beside the rate of a pinned copy", swap_in),
];

fn missing(program: &str) -> Option<String> {
    on_path(program).is_none().then(|| format!("{program} is not on PATH"))
}

fn instructions() -> String {
    missing("valgrind").unwrap_or_else(|| "counting needs the programs of `bench`, under valgrind".to_owned())
}

fn nodes() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    format!(
        "three nodes need processors of their own beside generator and upstream, of which this machine has {cpus} in all; \
         the suite pins nothing"
    )
}

fn loss() -> String {
    "losing packets takes netem on a network of its own, and root".to_owned()
}

fn thousand() -> String {
    "a thousand nodes are simulated by a test of the control plane, `push_scale` (docs/performance.md)".to_owned()
}

fn tokens() -> String {
    missing("llama-bench").unwrap_or_else(|| "this version measures no models".to_owned())
}

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
pub struct Wanted(Vec<String>);

impl Wanted {
    /// These rows.
    pub fn new(rows: &[String]) -> Self {
        Self(rows.to_vec())
    }

    fn has(&self, spec: &Spec) -> bool {
        self.0.is_empty() || self.0.iter().any(|id| id == spec.id)
    }

    fn group(&self, group: Group) -> bool {
        TABLE.iter().any(|spec| spec.group == group && self.has(spec))
    }
}

/// Rows as they are measured.
#[derive(Default)]
struct Done(Vec<Row>);

impl Done {
    /// Takes the rows of a group, or the failure of all of them.
    fn take(&mut self, group: Group, measured: anyhow::Result<Vec<Row>>) {
        match measured {
            Ok(rows) => self.0.extend(rows),
            Err(cause) => {
                let of_group = TABLE.iter().filter(|spec| spec.group == group);
                self.0.extend(of_group.map(|spec| Row::failed(spec.id, spec.title, format!("{cause:#}"))));
            }
        }
    }

    /// The wanted rows in the order of the table, with their titles.
    fn in_order(mut self, wanted: &Wanted) -> Vec<Row> {
        let mut rows = Vec::new();
        for spec in TABLE.iter().filter(|spec| wanted.has(spec)) {
            if let Some(why) = spec.why {
                rows.push(Row::skipped(spec.id, spec.title, why()));
                continue;
            }
            let found = self.0.iter().position(|row| row.id == spec.id).map(|at| self.0.swap_remove(at));
            let row = found.unwrap_or_else(|| Row::failed(spec.id, spec.title, "PV-BENCH: nothing measured it"));
            rows.push(Row { title: spec.title.to_owned(), ..row });
        }
        rows
    }
}

/// Measures what is wanted. A group that fails does not end the others.
pub async fn measure(stage: &mut Stage, wanted: &Wanted) -> Vec<Row> {
    let mut done = Done::default();
    if wanted.group(Group::Saturated) {
        done.take(Group::Saturated, Box::pin(calls::saturated(stage)).await);
    }
    if wanted.group(Group::AddedLocal) {
        done.take(Group::AddedLocal, Box::pin(calls::added_local(stage)).await);
    }
    if wanted.group(Group::Transports) {
        done.take(Group::Transports, Box::pin(transports::transports(stage)).await);
    }
    if wanted.group(Group::Sessions) {
        done.take(Group::Sessions, Box::pin(transports::sessions(stage)).await);
    }
    if wanted.group(Group::Scale) {
        done.take(Group::Scale, Box::pin(scale::scale(stage)).await);
    }
    stage.stop_one().await;
    let etcd = on_path(ETCD);
    if etcd.is_none() && wanted.group(Group::Writes) {
        done.take(Group::Writes, Ok(vec![Row::skipped("writes", "", format!("{ETCD} is not on PATH"))]));
    }
    let etcd = etcd.filter(|_| wanted.group(Group::Writes));
    if wanted.group(Group::AddedQuorum) || wanted.group(Group::Commit) || etcd.is_some() {
        Box::pin(of_three(stage, wanted, etcd.as_deref(), &mut done)).await;
    }
    if wanted.group(Group::Audit) {
        done.take(Group::Audit, Box::pin(audit::append_and_verify(stage)).await);
    }
    if wanted.group(Group::Quota) {
        stage.say("quota");
        done.take(Group::Quota, hot::quota(stage.effort));
    }
    if wanted.group(Group::Policy) {
        stage.say("policy");
        done.take(Group::Policy, hot::policy(stage.effort));
    }
    if wanted.group(Group::Wasm) {
        done.take(Group::Wasm, Box::pin(component::wasm(stage)).await);
    }
    done.in_order(wanted)
}

/// What three nodes are started for.
async fn of_three(stage: &Stage, wanted: &Wanted, etcd: Option<&Path>, done: &mut Done) {
    stage.say("starting three nodes");
    let three = match Box::pin(Cluster::start(&stage.scratch, "three", 3, &stage.upstream)).await {
        Ok(three) => three,
        Err(cause) => {
            let text = format!("{cause:#}");
            let groups = [Some(Group::AddedQuorum), Some(Group::Commit), etcd.map(|_| Group::Writes)];
            for group in groups.into_iter().flatten() {
                done.take(group, Err(anyhow::anyhow!("{text}")));
            }
            return;
        }
    };
    if wanted.group(Group::AddedQuorum) {
        done.take(Group::AddedQuorum, Box::pin(calls::added_quorum(stage, &three)).await);
    }
    if wanted.group(Group::Commit) {
        done.take(Group::Commit, Box::pin(scale::commit(stage, &three)).await);
    }
    if let Some(program) = etcd {
        done.take(Group::Writes, Box::pin(writes::writes(stage, &three, program)).await);
    }
    three.stop().await;
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
    fn rows_have_names_of_their_own_and_those_that_are_not_measured_say_why() {
        let mut ids: Vec<&str> = TABLE.iter().map(|spec| spec.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TABLE.len());
        let rows = Done::default().in_order(&Wanted::new(&[]));
        assert_eq!(rows.len(), TABLE.len());
        for row in rows {
            assert!(row.why.is_some_and(|why| !why.is_empty()), "{}", row.id);
        }
    }

    #[test]
    fn only_what_is_wanted_is_reported_in_the_order_of_the_table() {
        let mut done = Done::default();
        done.take(Group::Quota, Ok(vec![Row::measured("quota", "", Vec::new(), Vec::new())]));
        done.take(Group::Saturated, Err(anyhow::anyhow!("PV-BENCH-START: x")));
        let wanted = Wanted::new(&["quota".to_owned(), "cpu".to_owned(), "swap-in".to_owned()]);
        assert!(wanted.group(Group::Saturated) && !wanted.group(Group::Wasm));
        let rows = done.in_order(&wanted);
        let found: Vec<(&str, &str)> = rows.iter().map(|row| (row.id.as_str(), word(row))).collect();
        assert_eq!(found, [("cpu", "failed"), ("quota", "measured"), ("swap-in", "not here")]);
        assert!(rows.iter().all(|row| !row.title.is_empty()));
    }
}
