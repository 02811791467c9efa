//! Calls through one node and through three, beside the same calls made directly and through peers.

use super::{
    cluster::Cluster,
    judge::{self, Bar},
    load::{Measured, Run, Side, all_of, interleaved, join_round},
    report::{Figure, Row},
    stage::Stage,
};
use crate::bench::{
    plan::{Load, Plan},
    process::Watched,
};

/// Of the throughput of direct calls.
const LEAST_RATIO: f64 = 0.5;
/// Times the throughput of a gateway without rules, and of one with a token and rules.
const LEAST_OVER: [(&str, f64); 2] = [("agentgateway", 1.3), ("agentgateway-rules", 3.0)];
const MOST_CPU_US: f64 = 60.0;
const MOST_IDLE_MB: f64 = 60.0;
const MOST_LOADED_MB: f64 = 150.0;
/// Added to p50 and p99 of direct calls, records synced to the node's disk.
const MOST_ADDED_LOCAL_US: (f64, f64) = (100.0, 250.0);
/// The same, records on a quorum of three.
const MOST_ADDED_QUORUM_US: (f64, f64) = (1_500.0, 8_000.0);
const BYTES_A_MB: f64 = 1e6;
/// Calls a second offered to a peer that does not hold those of the row, and for how many rounds.
const SLOW_RATE: f64 = 10.0;
const SLOW_ROUNDS: u32 = 3;
/// How a load ends that was more than the server holds.
const TOO_MUCH: &str = "PV-BENCH-RATE";

/// Rows `throughput`, `cpu` and `memory`, of the same runs.
pub async fn saturated(stage: &mut Stage) -> anyhow::Result<Vec<Row>> {
    stage.start_one().await?;
    let reading = stage.one()?.watched(0).and_then(Watched::read);
    let idle = reading.map(|reading| reading.rss_bytes as f64 / BYTES_A_MB);
    let sides = with_peers(stage).await?;
    let effort = stage.effort;
    let measured = interleaved(&effort.saturated(), &sides, effort.rounds, "throughput", &stage.bar).await;
    let [direct, governed] = all_of(&measured, ["direct", "governed"])?;
    let doubt = judge::doubt(&direct.each(|run| run.throughput));
    let doubt = doubt.as_deref();
    let loaded = |side: &Measured| side.each_known(|run| run.rss_bytes.map(|bytes| bytes as f64 / BYTES_A_MB));
    let mut memory = vec![
        Figure::new("idle", "resident, before any call", "MB", idle.into_iter().collect())
            .against(Bar::at_most(MOST_IDLE_MB), None),
        Figure::new("loaded", "resident, under load", "MB", loaded(governed))
            .against(Bar::at_most(MOST_LOADED_MB), None),
    ];
    for peer in measured.iter().filter(|side| side.failed.is_none() && is_peer(&side.name)) {
        let label = format!("{}, resident, under load", peer.name);
        let figure = Figure::new(&format!("loaded-{}", peer.name), label, "MB", loaded(peer));
        memory.extend(figure.median.map(|_| figure));
    }
    let cpu = measured.iter().filter(|side| side.failed.is_none()).filter_map(|side| {
        let figure =
            Figure::new(&side.name, format!("CPU time of {}", side.name), "us/call", side.each_known(|r| r.cpu_us));
        let figure = match side.name.as_str() {
            "governed" => figure.against(Bar::at_most(MOST_CPU_US), None),
            _ => figure,
        };
        figure.median.map(|_| figure)
    });
    Ok(vec![
        Row::measured("throughput", "", throughput(&measured, direct, governed, doubt), failures(stage, &measured)),
        Row::measured("cpu", "", cpu.collect(), Vec::new()),
        Row::measured("memory", "", memory, vec!["a node with all roles: control plane, audit log, data plane".into()]),
    ])
}

/// The direct side, the governed one, then the peers.
async fn with_peers(stage: &Stage) -> anyhow::Result<Vec<Side>> {
    let mut sides = vec![stage.direct()?, stage.governed(stage.one()?, 0).await?];
    sides.extend(stage.peers.sides.iter().cloned());
    Ok(sides)
}

fn is_peer(name: &str) -> bool {
    !["direct", "governed"].contains(&name)
}

fn throughput(measured: &[Measured], direct: &Measured, governed: &Measured, doubt: Option<&str>) -> Vec<Figure> {
    let there: Vec<&Measured> = measured.iter().filter(|side| side.failed.is_none()).collect();
    let rate = |run: &Run| run.throughput;
    let ratio = |own: &Run, plain: &Run| own.throughput / plain.throughput;
    let mut figures: Vec<Figure> =
        there.iter().map(|side| Figure::new(&side.name, side.name.clone(), "calls/s", side.each(rate))).collect();
    figures.push(
        Figure::new("ratio", "governed / direct", "x", governed.beside(direct, ratio))
            .against(Bar::at_least(LEAST_RATIO), doubt),
    );
    for peer in there.iter().filter(|side| is_peer(&side.name)) {
        let label = format!("{} / direct", peer.name);
        figures.push(Figure::new(&format!("ratio-{}", peer.name), label, "x", peer.beside(direct, ratio)));
        let over = Figure::new(
            &format!("over-{}", peer.name),
            format!("governed / {}", peer.name),
            "x",
            governed.beside(peer, ratio),
        );
        let bar = LEAST_OVER.iter().find(|(name, _)| *name == peer.name);
        figures.push(match bar {
            Some((_, least)) => over.against(Bar::at_least(*least), doubt),
            None => over,
        });
    }
    figures
}

/// What is to be said of peers that did not answer before, and of those that failed.
fn failures(stage: &Stage, measured: &[Measured]) -> Vec<String> {
    stage.peers.left_out.iter().cloned().chain(failed(measured)).collect()
}

fn failed(measured: &[Measured]) -> Vec<String> {
    let said = |side: &Measured| {
        // The first line: what to do about it is for who runs one load by hand.
        let why = side.failed.as_ref()?.lines().next().unwrap_or_default();
        Some(format!("{} is left out of this row: {why}", side.name))
    };
    measured.iter().filter_map(said).collect()
}

/// Row `added-local`.
pub async fn added_local(stage: &mut Stage) -> anyhow::Result<Vec<Row>> {
    stage.start_one().await?;
    let sides = with_peers(stage).await?;
    let effort = stage.effort;
    let measured = interleaved(&effort.open(), &sides, effort.rounds, "added-local", &stage.bar).await;
    let mut figures = added(&measured, MOST_ADDED_LOCAL_US)?;
    figures.extend(slower(stage, &sides, &measured).await);
    Ok(vec![Row::measured("added-local", "", figures, failures(stage, &measured))])
}

/// Latencies of the peers that did not hold the row's rate, at one that any of them should: beside nothing, since nothing else
/// is loaded as little.
async fn slower(stage: &Stage, sides: &[Side], measured: &[Measured]) -> Vec<Figure> {
    let slow: Vec<Side> = sides.iter().filter(|side| is_too_slow(measured, &side.name)).cloned().collect();
    let plan = Plan { load: Load::Open { rate: SLOW_RATE }, ..stage.effort.open() };
    let rounds = stage.effort.rounds.min(SLOW_ROUNDS);
    let measured = interleaved(&plan, &slow, rounds, "added-local, slower", &stage.bar).await;
    let mut figures = Vec::new();
    for side in measured.iter().filter(|side| side.failed.is_none()) {
        let label = |what: &str| format!("{} at {SLOW_RATE} calls/s, {what}", side.name);
        let p50s = side.each(|run| run.p50_us);
        figures.push(Figure::new(&format!("{}-slow-p50", side.name), label("p50"), "us", p50s));
        let p99s = side.each(|run| run.p99_us);
        figures.push(Figure::new(&format!("{}-slow-p99", side.name), label("p99"), "us", p99s));
    }
    figures
}

fn is_too_slow(measured: &[Measured], name: &str) -> bool {
    let why = measured.iter().find(|side| side.name == name).and_then(|side| side.failed.as_deref());
    is_peer(name) && why.is_some_and(|why| why.contains(TOO_MUCH))
}

/// Row `added-quorum`: each round through another of the three.
pub async fn added_quorum(stage: &Stage, three: &Cluster) -> anyhow::Result<Vec<Row>> {
    let plan: Plan = stage.effort.open();
    let mut all: Vec<Measured> = Vec::new();
    for round in 0..stage.effort.rounds {
        let node = round as usize % three.count();
        let sides = [stage.direct()?, stage.governed(three, node).await?];
        let row = format!("added-quorum, round {} of {}", round + 1, stage.effort.rounds);
        join_round(&mut all, interleaved(&plan, &sides, 1, &row, &stage.bar).await);
    }
    let figures = added(&all, MOST_ADDED_QUORUM_US)?;
    let note = "three nodes share this machine with generator and upstream; each round calls another one".to_owned();
    Ok(vec![Row::measured("added-quorum", "", figures, vec![note])])
}

/// Latencies of every side, and what governing adds, round by round.
fn added(measured: &[Measured], (most_p50, most_p99): (f64, f64)) -> anyhow::Result<Vec<Figure>> {
    let [direct, governed] = all_of(measured, ["direct", "governed"])?;
    let doubt = judge::doubt(&direct.each(|run| run.p50_us));
    let doubt = doubt.as_deref();
    let added_p50 = governed.beside(direct, |own, plain| own.p50_us - plain.p50_us);
    let added_p99 = governed.beside(direct, |own, plain| own.p99_us - plain.p99_us);
    let mut figures = vec![
        Figure::new("p50", "added to p50", "us", added_p50).against(Bar::at_most(most_p50), doubt),
        Figure::new("p99", "added to p99", "us", added_p99).against(Bar::at_most(most_p99), doubt),
    ];
    for side in measured.iter().filter(|side| side.failed.is_none()) {
        let name = &side.name;
        figures.push(Figure::new(&format!("{name}-p50"), format!("{name}, p50"), "us", side.each(|run| run.p50_us)));
        figures.push(Figure::new(&format!("{name}-p99"), format!("{name}, p99"), "us", side.each(|run| run.p99_us)));
        if is_peer(name) {
            let (id, label) = (format!("{name}-added-p50"), format!("{name}, added to p50"));
            let added = side.beside(direct, |own, plain| own.p50_us - plain.p50_us);
            figures.push(Figure::new(&id, label, "us", added));
        }
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::judge::Verdict;

    fn side(name: &str, throughputs: &[f64], p50s: &[f64]) -> Measured {
        let run = |(throughput, p50_us): (&f64, &f64)| Run {
            throughput: *throughput,
            p50_us: *p50_us,
            p99_us: *p50_us * 2.0,
            cpu_us: None,
            rss_bytes: None,
        };
        Measured { name: name.to_owned(), runs: throughputs.iter().zip(p50s).map(run).collect(), failed: None }
    }

    fn figure<'a>(figures: &'a [Figure], id: &str) -> &'a Figure {
        figures.iter().find(|figure| figure.id == id).unwrap_or_else(|| panic!("no figure {id}"))
    }

    #[test]
    fn each_peer_has_its_bar_and_a_failed_one_is_left_out() {
        let mut measured = vec![
            side("direct", &[100.0, 102.0], &[1.0, 1.0]),
            side("governed", &[60.0, 60.0], &[1.0, 1.0]),
            side("agentgateway", &[50.0, 50.0], &[1.0, 1.0]),
            side("other", &[10.0, 10.0], &[1.0, 1.0]),
            side("broken", &[1.0], &[1.0]),
        ];
        measured[4].failed = Some("gone\n  next: find it".to_owned());
        let figures = throughput(&measured, &measured[0], &measured[1], None);
        assert_eq!(figure(&figures, "ratio").verdict, Verdict::Held);
        assert_eq!(figure(&figures, "over-agentgateway").verdict, Verdict::Missed);
        assert_eq!(figure(&figures, "over-other").verdict, Verdict::None);
        assert!(!figures.iter().any(|figure| figure.id.contains("broken")));
        assert_eq!(failed(&measured), ["broken is left out of this row: gone"]);
    }

    #[test]
    fn only_a_peer_that_was_offered_too_much_is_offered_less() {
        let mut measured = [side("direct", &[], &[]), side("slow", &[], &[]), side("gone", &[], &[])];
        for (side, why) in
            measured.iter_mut().zip(["PV-BENCH-RATE: 9 calls", "PV-BENCH-RATE: 9 calls", "PV-BENCH-CONNECT: x"])
        {
            side.failed = Some(why.to_owned());
        }
        for (name, expect) in [("direct", false), ("slow", true), ("gone", false), ("other", false)] {
            assert_eq!(is_too_slow(&measured, name), expect, "{name}");
        }
    }

    #[test]
    fn what_is_added_is_judged_unless_direct_drifts() {
        let governed = side("governed", &[1.0, 1.0], &[180.0, 210.0]);
        let steady = [side("direct", &[1.0, 1.0], &[100.0, 104.0]), governed];
        let figures = added(&steady, (100.0, 100.0)).unwrap();
        assert_eq!(figure(&figures, "p50").repetitions, [80.0, 106.0]);
        assert_eq!(figure(&figures, "p50").verdict, Verdict::Held);
        assert_eq!(figure(&figures, "p99").verdict, Verdict::Missed);
        let [_, governed] = steady;
        let drifting = [side("direct", &[1.0, 1.0], &[100.0, 150.0]), governed];
        assert_eq!(figure(&added(&drifting, (100.0, 100.0)).unwrap(), "p50").verdict, Verdict::Refused);
    }
}
