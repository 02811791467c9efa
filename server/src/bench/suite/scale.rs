//! A node with a large state beside one with little, and a node's changes: what reaches it, and when.

use std::time::Duration;

use provost_client::Transport;
use tokio::time::Instant;

use super::{
    cluster::{Cluster, apply_over},
    documents::{self, Size},
    judge::{self, Bar},
    load::{all_of, interleaved},
    program::START_LIMIT,
    report::{Figure, Row},
    stage::{Stage, start_upstream},
};
use crate::cli::{endpoint::EndpointContext, using::every_tool};

const MOST_SLOWER: f64 = 1.10;
/// Tools that the upstream of the large state lists.
const TOOLS_EACH: usize = 1_000;
/// 10,000 tools, 1,000 tenants and 5,000 policies, with what every node has.
const LARGE: Size = Size { plugins: 10, tenants: 999, policies: 4_999 };
/// What a quick run makes of it.
const LARGE_QUICK: Size = Size { plugins: 2, tenants: 50, policies: 250 };
/// From the acknowledgement of a change to the last of three nodes that runs it.
const MOST_COMMIT_MS: f64 = 50.0;
/// Changes of a round.
const CHANGES: u64 = 30;
/// Between two looks at a node.
const POLL: Duration = Duration::from_millis(1);

/// Row `scale`.
pub async fn scale(stage: &mut Stage) -> anyhow::Result<Vec<Row>> {
    stage.start_one().await?;
    let size = if stage.effort.quick { LARGE_QUICK } else { LARGE };
    stage.say("scale: a node with a large state");
    let (many, url) = start_upstream(&stage.scratch, "many", 0, TOOLS_EACH).await?;
    let large = Cluster::start(&stage.scratch, "large", 1, &stage.upstream).await?;
    let outcome = beside_large(stage, &large, size, &url).await;
    large.stop().await;
    many.stop().await;
    outcome
}

async fn beside_large(stage: &Stage, large: &Cluster, size: Size, upstream: &str) -> anyhow::Result<Vec<Row>> {
    let began = Instant::now();
    let mut revision = 0;
    for file in documents::more(size, upstream, TOOLS_EACH) {
        revision = large.apply(&file).await?;
    }
    large.until_active(revision).await?;
    let applied = began.elapsed();
    // The merged list has all tools: they are fetched and pinned before anything is measured.
    let listed = until_listed(large, size.plugins * TOOLS_EACH).await?;
    let mut small = stage.governed(stage.one()?, 0).await?;
    small.name = "small".to_owned();
    let mut big = stage.governed(large, 0).await?;
    big.name = "large".to_owned();
    let effort = stage.effort;
    let measured = interleaved(&effort.open(), &[small, big], effort.rounds, "scale", &stage.bar).await;
    let [small, big] = all_of(&measured, ["small", "large"])?;
    let doubt = match effort.quick {
        true => Some("a quick run has a smaller state than the bar is for".to_owned()),
        false => judge::doubt(&small.each(|run| run.p50_us)),
    };
    let ratio = big.beside(small, |own, plain| own.p50_us / plain.p50_us);
    let ratio_p99 = big.beside(small, |own, plain| own.p99_us / plain.p99_us);
    let figures = vec![
        Figure::new("p50-ratio", "p50, large / small", "x", ratio).against(Bar::at_most(MOST_SLOWER), doubt.as_deref()),
        Figure::new("p99-ratio", "p99, large / small", "x", ratio_p99),
        Figure::new("small-p50", "small, p50", "us", small.each(|run| run.p50_us)),
        Figure::new("large-p50", "large, p50", "us", big.each(|run| run.p50_us)),
        Figure::new("small-cpu", "small, CPU time of the node", "us/call", small.each_known(|run| run.cpu_us)),
        Figure::new("large-cpu", "large, CPU time of the node", "us/call", big.each_known(|run| run.cpu_us)),
        Figure::new("applied", "applying the large state, until it is active", "s", vec![applied.as_secs_f64()]),
    ];
    let note = format!("large: {listed} tools, {} tenants, {} policies", size.tenants + 1, size.policies + 1);
    Ok(vec![Row::measured("scale", "", figures, vec![note])])
}

/// How many tools the node lists, once they are at least so many.
async fn until_listed(cluster: &Cluster, least: usize) -> anyhow::Result<usize> {
    let (url, _) = cluster.mcp(0)?;
    let context = EndpointContext { url, connector: cluster.connector(0, Transport::Http, "/mcp")? };
    let began = Instant::now();
    loop {
        let listed = every_tool(&context).await?.len();
        if listed >= least {
            return Ok(listed);
        }
        anyhow::ensure!(
            began.elapsed() < START_LIMIT,
            "PV-BENCH-START: {listed} of {least} tools are listed after {START_LIMIT:?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Row `commit`.
pub async fn commit(stage: &Stage, three: &Cluster) -> anyhow::Result<Vec<Row>> {
    let mut client = three.admin_connection(0).await?;
    let (mut all_p50, mut all_p99, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    let mut number = 0;
    for round in 1..=stage.effort.rounds {
        stage.say(&format!("commit, round {round} of {}", stage.effort.rounds));
        let (mut active, mut written) = (Vec::new(), Vec::new());
        for _ in 0..CHANGES {
            number += 1;
            let began = Instant::now();
            let revision = apply_over(&mut client, &documents::small_change(number)).await?;
            let committed = Instant::now();
            written.push(millis(committed - began));
            let nodes = (0..three.count()).map(|node| until_active(three, node, revision, committed));
            let each = futures::future::try_join_all(nodes).await?;
            active.push(each.into_iter().map(millis).fold(0.0, f64::max));
        }
        all_p50.extend(quantile(&mut active, 0.5));
        all_p99.extend(quantile(&mut active, 0.99));
        writes.extend(quantile(&mut written, 0.5));
    }
    let figures = vec![
        Figure::new("p99", "acknowledged until active on all three nodes, p99", "ms", all_p99)
            .against(Bar::at_most(MOST_COMMIT_MS), None),
        Figure::new("p50", "acknowledged until active on all three nodes, p50", "ms", all_p50),
        Figure::new("write-p50", "a write until it is acknowledged, p50", "ms", writes),
    ];
    let note =
        format!("{CHANGES} changes a round, one after the other; nodes are asked every {POLL:?} for their revision");
    Ok(vec![Row::measured("commit", "", figures, vec![note])])
}

/// Waits until a node runs a revision; gives how long after `since` it was seen to.
pub async fn until_active(cluster: &Cluster, node: usize, revision: u64, since: Instant) -> anyhow::Result<Duration> {
    loop {
        if cluster.active_revision(node).await.is_some_and(|active| active >= revision) {
            return Ok(since.elapsed());
        }
        anyhow::ensure!(
            since.elapsed() < START_LIMIT,
            "PV-BENCH-START: node {node} does not run revision {revision} after {START_LIMIT:?}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The least value that so large a share of all do not exceed.
pub fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.5), Some(50.0));
        assert_eq!(quantile(&mut values, 0.99), Some(99.0));
        assert_eq!(quantile(&mut [7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&mut [], 0.99), None);
    }
}
