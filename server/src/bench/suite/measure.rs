//! Measuring the rows: in an order that starts and ends each set of nodes once, each within what is left of the time.
//!
//! What is reported keeps the order of the table. A group that fails, or is cut off, ends no other.

use std::{future::Future, path::Path};

use super::{
    audit,
    budget::Budget,
    calls,
    cluster::Cluster,
    component, hot, instructions, loss, models, nodes,
    program::on_path,
    report::Row,
    rows::{Group, TABLE, Wanted},
    scale,
    stage::Stage,
    thousand, tokens, transports, writes,
};

/// The store that writes are compared with.
const ETCD: &str = "etcd";

/// What three nodes are started for, whatever else there is.
const OF_THREE: [Group; 3] = [Group::AddedQuorum, Group::Commit, Group::CommitThousand];

/// Rows as they are measured.
struct Done {
    rows: Vec<Row>,
    budget: Budget,
}

impl Done {
    fn take(&mut self, group: Group, measured: anyhow::Result<Vec<Row>>) {
        match measured {
            Ok(rows) => self.rows.extend(rows),
            Err(cause) => {
                let of_group = TABLE.iter().filter(|spec| spec.group == group);
                self.rows.extend(of_group.map(|spec| Row::failed(spec.id, spec.title, format!("{cause:#}"))));
            }
        }
    }

    /// Measures a group, if there is time for it.
    async fn measure(&mut self, group: Group, measuring: impl Future<Output = anyhow::Result<Vec<Row>>>) {
        let measured = within(self.budget, measuring).await;
        self.take(group, measured);
    }

    /// The wanted rows in the order of the table, with their titles.
    fn in_order(mut self, wanted: &Wanted) -> Vec<Row> {
        let mut rows = Vec::new();
        for spec in TABLE.iter().filter(|spec| wanted.has(spec)) {
            if let Some(why) = spec.why {
                rows.push(Row::skipped(spec.id, spec.title, why()));
                continue;
            }
            let found = self.rows.iter().position(|row| row.id == spec.id).map(|at| self.rows.swap_remove(at));
            let row = found.unwrap_or_else(|| Row::failed(spec.id, spec.title, "PV-BENCH: nothing measured it"));
            rows.push(Row { title: spec.title.to_owned(), ..row });
        }
        rows
    }
}

/// What comes of something in the time that is left. What it has started is ended with it.
async fn within<T>(budget: Budget, doing: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let (left, total) = (budget.left(), budget.total());
    anyhow::ensure!(!left.is_zero(), "PV-BENCH: the {total:?} of --budget were over before it began");
    match tokio::time::timeout(left, doing).await {
        Ok(done) => done,
        Err(_) => anyhow::bail!("PV-BENCH: the {total:?} of --budget were over while it was measured"),
    }
}

/// Measures what is wanted.
pub async fn measure(stage: &mut Stage, wanted: &Wanted, budget: Budget) -> Vec<Row> {
    let mut done = Done { rows: Vec::new(), budget };
    // The short ones first: they need nothing, and are there whatever the others take.
    if wanted.group(Group::Quota) {
        stage.say("quota");
        done.take(Group::Quota, hot::quota(stage.effort));
    }
    if wanted.group(Group::Policy) {
        stage.say("policy");
        done.take(Group::Policy, hot::policy(stage.effort));
    }
    if wanted.group(Group::Wasm) {
        done.measure(Group::Wasm, Box::pin(component::wasm(stage))).await;
    }
    if wanted.group(Group::Instructions) {
        done.measure(Group::Instructions, Box::pin(instructions::instructions(stage))).await;
    }
    if wanted.group(Group::Saturated) {
        done.measure(Group::Saturated, Box::pin(calls::saturated(stage))).await;
    }
    if wanted.group(Group::AddedLocal) {
        done.measure(Group::AddedLocal, Box::pin(calls::added_local(stage))).await;
    }
    if wanted.group(Group::Transports) {
        done.measure(Group::Transports, Box::pin(transports::transports(stage))).await;
    }
    if wanted.group(Group::Sessions) {
        done.measure(Group::Sessions, Box::pin(transports::sessions(stage))).await;
    }
    if wanted.group(Group::Scale) {
        done.measure(Group::Scale, Box::pin(scale::scale(stage))).await;
    }
    stage.stop_one().await;
    if wanted.group(Group::Loss) {
        done.measure(Group::Loss, Box::pin(loss::loss(stage))).await;
    }
    if wanted.group(Group::Tokens) {
        done.measure(Group::Tokens, Box::pin(tokens::tokens(stage))).await;
    }
    if wanted.group(Group::Models) {
        done.measure(Group::Models, Box::pin(models::models(stage))).await;
    }
    if wanted.group(Group::Nodes) {
        done.measure(Group::Nodes, Box::pin(nodes::nodes(stage))).await;
    }
    let etcd = on_path(ETCD);
    if etcd.is_none() && wanted.group(Group::Writes) {
        done.take(Group::Writes, Ok(vec![Row::skipped("writes", "", format!("{ETCD} is not on PATH"))]));
    }
    let etcd = etcd.filter(|_| wanted.group(Group::Writes));
    if OF_THREE.iter().any(|group| wanted.group(*group)) || etcd.is_some() {
        Box::pin(of_three(stage, wanted, etcd.as_deref(), &mut done)).await;
    }
    if wanted.group(Group::Audit) {
        done.measure(Group::Audit, Box::pin(audit::append_and_verify(stage))).await;
    }
    done.in_order(wanted)
}

/// What three nodes are started for.
async fn of_three(stage: &Stage, wanted: &Wanted, etcd: Option<&Path>, done: &mut Done) {
    stage.say("starting three nodes");
    let starting = Box::pin(Cluster::start(&stage.scratch, "three", 3, &stage.upstream));
    let three = match within(done.budget, starting).await {
        Ok(three) => three,
        Err(cause) => {
            let text = format!("{cause:#}");
            for group in OF_THREE.into_iter().chain(etcd.map(|_| Group::Writes)) {
                done.take(group, Err(anyhow::anyhow!("{text}")));
            }
            return;
        }
    };
    if wanted.group(Group::AddedQuorum) {
        done.measure(Group::AddedQuorum, Box::pin(calls::added_quorum(stage, &three))).await;
    }
    if wanted.group(Group::Commit) {
        done.measure(Group::Commit, Box::pin(scale::commit(stage, &three))).await;
    }
    if let Some(program) = etcd {
        done.measure(Group::Writes, Box::pin(writes::writes(stage, &three, program))).await;
    }
    // The last: its nodes stay members.
    if wanted.group(Group::CommitThousand) {
        done.measure(Group::CommitThousand, Box::pin(thousand::commit_thousand(stage, &three))).await;
    }
    three.stop().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::suite::rows::word;

    fn done() -> Done {
        Done { rows: Vec::new(), budget: Budget::new(Duration::from_secs(60)) }
    }

    #[test]
    fn every_row_is_reported_and_one_that_is_not_measured_says_why() {
        let rows = done().in_order(&Wanted::new(&[]));
        assert_eq!(rows.len(), TABLE.len());
        for row in rows {
            assert!(row.why.is_some_and(|why| !why.is_empty()), "{}", row.id);
        }
    }

    #[test]
    fn only_what_is_wanted_is_reported_in_the_order_of_the_table() {
        let mut done = done();
        done.take(Group::Quota, Ok(vec![Row::measured("quota", "", Vec::new(), Vec::new())]));
        done.take(Group::Saturated, Err(anyhow::anyhow!("PV-BENCH-START: x")));
        let wanted = Wanted::new(&["quota".to_owned(), "cpu".to_owned(), "swap-in".to_owned()]);
        assert!(wanted.group(Group::Saturated) && !wanted.group(Group::Wasm));
        let rows = done.in_order(&wanted);
        let found: Vec<(&str, &str)> = rows.iter().map(|row| (row.id.as_str(), word(row))).collect();
        assert_eq!(found, [("cpu", "failed"), ("quota", "measured"), ("swap-in", "not here")]);
        assert!(rows.iter().all(|row| !row.title.is_empty()));
    }

    #[tokio::test]
    async fn what_takes_longer_than_what_is_left_is_cut_off_and_the_next_does_not_begin() {
        let mut done = Done { rows: Vec::new(), budget: Budget::new(Duration::from_millis(50)) };
        done.measure(Group::Scale, std::future::pending()).await;
        done.measure(Group::Commit, std::future::ready(Ok(Vec::new()))).await;
        let whys: Vec<&str> = done.rows.iter().filter_map(|row| row.why.as_deref()).collect();
        assert_eq!(whys.len(), 2, "{whys:?}");
        assert!(whys[0].ends_with("while it was measured") && whys[1].ends_with("before it began"), "{whys:?}");
    }
}
