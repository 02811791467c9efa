//! Row `nodes`: what three data-plane nodes do beside one, by the processor time that a call costs each of them.
//!
//! Three nodes share this machine's processors with each other, the generator and the upstream, so what they serve together says
//! how the machine is shared. What a call costs says whether nodes get into each other's way: a node with a processor of its
//! own serves as many calls a second as their cost leaves room for. The figure is the sum of that over three nodes that are
//! loaded together, over the same of one that is loaded alone.
//!
//! One further node keeps the control state and the audit log for the three and is not called. Its cost is a figure of its
//! own: it is what the three share.

use std::time::Instant;

use futures::future::join_all;

use super::{
    cluster::Cluster,
    judge::{self, Bar},
    load::{Measured, Run, Side, interleaved},
    report::{Figure, Row},
    stage::Stage,
};
use crate::bench::plan::Plan;

/// Over the calls of one node.
const LEAST_TIMES: f64 = 2.7;
/// Nodes that serve.
const SERVING: usize = 3;
/// Of rounds, each of which loads one node and then all.
const MAX_ROUNDS: u32 = 3;
const US_A_SECOND: f64 = 1e6;

/// A load on one node, or on several together.
#[derive(Debug)]
struct Loaded {
    /// Processor time of a call at each node, microseconds.
    costs: Vec<f64>,
    /// Calls a second of all of them.
    throughput: f64,
    /// Processor time of the node that keeps, for a call of any of them; `None`: it cannot be read.
    keeper: Option<f64>,
}

impl Loaded {
    fn of(runs: &[Run], keeper_cpu_a_second: Option<f64>) -> Self {
        let throughput: f64 = runs.iter().map(|run| run.throughput).sum();
        Self {
            costs: runs.iter().filter_map(|run| run.cpu_us).collect(),
            throughput,
            keeper: keeper_cpu_a_second.map(|cpu| cpu * US_A_SECOND / throughput),
        }
    }

    /// Calls a second of nodes that have a processor each.
    fn served(&self) -> f64 {
        self.costs.iter().map(|cost| US_A_SECOND / cost).sum()
    }

    fn mean_cost(&self) -> f64 {
        self.costs.iter().sum::<f64>() / self.costs.len() as f64
    }
}

/// Row `nodes`.
pub async fn nodes(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    stage.say("nodes: starting one that keeps, and three that serve");
    let starting = Cluster::start_serving(&stage.scratch, "serving", SERVING, &stage.upstream);
    let cluster = Box::pin(starting).await?;
    let outcome = Box::pin(under_load(stage, &cluster)).await;
    cluster.stop().await;
    outcome
}

async fn under_load(stage: &Stage, cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    let mut sides = Vec::with_capacity(SERVING);
    for node in 1..=SERVING {
        let mut side = Box::pin(stage.governed(cluster, node)).await?;
        side.name = format!("node {node}");
        sides.push(side);
    }
    let plan = stage.effort.saturated();
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for round in 0..stage.effort.rounds.min(MAX_ROUNDS) {
        // Another one each time: which of them is alone must not matter.
        let one: Vec<Side> = sides.get(round as usize % SERVING).cloned().into_iter().collect();
        alone.push(Box::pin(load(stage, cluster, &plan, &one)).await?);
        together.push(Box::pin(load(stage, cluster, &plan, &sides)).await?);
    }
    let note = format!(
        "{SERVING} nodes that only serve, and one that keeps the control state and the audit log for them; all share this machine \
         with generator and upstream"
    );
    Ok(vec![Row::measured("nodes", "", figures(&alone, &together), vec![note])])
}

/// Loads these nodes at the same time.
async fn load(stage: &Stage, cluster: &Cluster, plan: &Plan, sides: &[Side]) -> anyhow::Result<Loaded> {
    let keeper = cluster.watched(0);
    let (began, before) = (Instant::now(), keeper.and_then(|keeper| keeper.read()));
    let row = format!("nodes, {} of {SERVING}", sides.len());
    let loads = sides.iter().map(|side| interleaved(plan, std::slice::from_ref(side), 1, &row, &stage.bar));
    let measured: Vec<Measured> = join_all(loads).await.into_iter().flatten().collect();
    let after = keeper.and_then(|keeper| keeper.read());
    if let Some((side, cause)) = measured.iter().find_map(|side| Some((&side.name, side.failed.as_ref()?))) {
        anyhow::bail!("{side}: {cause}");
    }
    let cpu_seconds = before.zip(after).map(|(before, after)| after.cpu_seconds - before.cpu_seconds);
    let runs: Vec<Run> = measured.iter().flat_map(|side| side.runs.iter().copied()).collect();
    Ok(Loaded::of(&runs, cpu_seconds.map(|cpu| cpu / began.elapsed().as_secs_f64())))
}

fn figures(alone: &[Loaded], together: &[Loaded]) -> Vec<Figure> {
    let each = |loads: &[Loaded], of: fn(&Loaded) -> f64| loads.iter().map(of).collect::<Vec<f64>>();
    let doubt = judge::doubt(&each(alone, Loaded::mean_cost));
    let times = alone.iter().zip(together).map(|(alone, together)| together.served() / alone.served()).collect();
    let keeper = together.iter().filter_map(|loaded| loaded.keeper).collect();
    vec![
        Figure::new("times", "three nodes / one, a processor for each", "x", times)
            .against(Bar::at_least(LEAST_TIMES), doubt.as_deref()),
        Figure::new("alone-cpu", "CPU time of a node that is loaded alone", "us/call", each(alone, Loaded::mean_cost)),
        Figure::new(
            "together-cpu",
            "CPU time of nodes that are loaded together",
            "us/call",
            each(together, Loaded::mean_cost),
        ),
        Figure::new("keeper-cpu", "CPU time of the node that keeps for them", "us/call", keeper),
        Figure::new("alone", "one node, on this machine", "calls/s", each(alone, |loaded| loaded.throughput)),
        Figure::new("together", "three nodes, on this machine", "calls/s", each(together, |loaded| loaded.throughput)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::judge::Verdict;

    fn loaded(costs: &[f64], throughput: f64) -> Loaded {
        let run = |cost: &f64| Run {
            throughput: throughput / costs.len() as f64,
            p50_us: 0.0,
            p99_us: 0.0,
            cpu_us: Some(*cost),
            rss_bytes: None,
        };
        Loaded::of(&costs.iter().map(run).collect::<Vec<Run>>(), Some(0.5))
    }

    fn times(alone: &[Loaded], together: &[Loaded]) -> Figure {
        figures(alone, together).swap_remove(0)
    }

    #[test]
    fn nodes_that_do_not_disturb_each_other_serve_three_times_as_much() {
        let alone = [loaded(&[50.0], 10_000.0), loaded(&[50.0], 10_000.0)];
        // What this machine gave to all of them together does not count.
        let together = [loaded(&[50.0; 3], 12_000.0), loaded(&[50.0; 3], 9_000.0)];
        let figure = times(&alone, &together);
        assert_eq!((figure.median, figure.verdict), (Some(3.0), Verdict::Held));
        assert_eq!(together[0].keeper, Some(0.5 * US_A_SECOND / 12_000.0));
    }

    #[test]
    fn calls_that_cost_more_beside_others_miss_the_bar_and_a_moving_ground_bears_no_verdict() {
        let alone = [loaded(&[50.0], 1.0), loaded(&[50.0], 1.0)];
        let together = [loaded(&[50.0, 100.0, 100.0], 3.0), loaded(&[50.0, 100.0, 100.0], 3.0)];
        let figure = times(&alone, &together);
        assert_eq!((figure.median, figure.verdict), (Some(2.0), Verdict::Missed));
        let moving = [loaded(&[50.0], 1.0), loaded(&[80.0], 1.0)];
        assert_eq!(times(&moving, &together).verdict, Verdict::Refused);
    }

    #[test]
    fn where_no_processor_time_can_be_read_there_is_no_figure() {
        let blind = || Loaded::of(&[], None);
        assert_eq!(times(&[blind(), blind()], &[blind(), blind()]).median, None);
    }
}
