//! Row `loss`: what calls on one connection do to each other where packets are lost, over HTTP/2 and over QUIC.
//!
//! HTTP/2 has one order for all that it carries, so a packet that is missing holds up every call behind it; QUIC has one
//! for each stream. Many calls share a connection at fixed send times, in turn over both, without loss and with it.
//!
//! Losing packets takes [a network of its own](super::network): the suite starts itself again in one (`provost bench loss`,
//! hidden), with an upstream and a node, and takes over the row that comes out.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args;
use indicatif::ProgressBar;
use provost_client::Transport;

use super::{
    documents::PLUGIN,
    judge::{self, Bar},
    load::{Measured, Run, Side, all_of, interleaved, join_round, until_answered},
    network,
    program::Scratch,
    report::{Figure, Row},
    stage::{Effort, Stage},
};
use crate::bench::{
    Era,
    client::Target,
    plan::{Plan, parse_duration},
};

const ROW: &str = "loss";
/// The second is held against the first.
const NAMES: [&str; 2] = ["http2", "quic"];
const TRANSPORTS: [Transport; 2] = [Transport::Http, Transport::Quic];
/// Calls in flight on the connection, at most: a node takes more over both.
const STREAMS: usize = 64;
/// Rounds, and the measured part of each load: there are four to a round.
const MOST_ROUNDS: u32 = 3;
const MOST_MEASURED: Duration = Duration::from_secs(3);
/// Of the p99 of HTTP/2, with loss.
const MOST_RATIO: f64 = 0.5;

/// What `provost bench loss` is told.
#[derive(Args)]
pub struct LossArgs {
    /// Repetitions.
    #[arg(long)]
    rounds: u32,
    /// The measured part of each load.
    #[arg(long, value_parser = parse_duration)]
    measured: Duration,
    /// Load before it.
    #[arg(long, value_parser = parse_duration)]
    warmup: Duration,
    /// Where data and logs are kept. They are left there.
    #[arg(long)]
    dir: PathBuf,
}

/// Row `loss`, measured in a network of its own where there can be one.
pub async fn loss(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    stage.say("loss: a network of its own");
    if let Some(why) = network::missing().await {
        return Ok(vec![Row::skipped(ROW, "", why)]);
    }
    stage.say("loss: HTTP/2 and QUIC in turn, without loss and with it");
    let program = std::env::current_exe().context("PV-BENCH-START: the path of this program is not known")?;
    let folder = stage.scratch.folder(ROW)?;
    let mut inside = network::apart(program);
    inside.args(words(&stage.effort)).arg("--dir").arg(&folder);
    // Ended with us; what it has started ends with it.
    inside.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = inside.output().await.context("PV-BENCH-START: a network of its own cannot be entered")?;
    if !output.status.success() {
        anyhow::bail!("in a network of its own: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("PV-BENCH: what `bench loss` printed")
}

/// What the suite tells itself.
fn words(effort: &Effort) -> Vec<String> {
    let ms = |time: Duration| format!("{}ms", time.as_millis());
    let rounds = effort.rounds.min(MOST_ROUNDS).to_string();
    let (measured, warmup) = (ms(effort.measured.min(MOST_MEASURED)), ms(effort.warmup));
    ["bench", ROW, "--rounds", &rounds, "--measured", &measured, "--warmup", &warmup].map(str::to_owned).to_vec()
}

/// Measures, in the network that it was started in, and prints the row as JSON.
pub async fn run(args: LossArgs) -> anyhow::Result<()> {
    network::enter().await?;
    let scratch = Scratch::new(&args.dir, true)?;
    let effort = Effort { rounds: args.rounds, measured: args.measured, warmup: args.warmup, ..Effort::FULL };
    let mut stage = Box::pin(Stage::open(scratch, effort, None, 0, ProgressBar::hidden())).await?;
    let rows = Box::pin(measure(&mut stage)).await;
    Box::pin(stage.stop()).await;
    print(&rows?)
}

#[allow(clippy::print_stdout, reason = "the row is the command's output")]
fn print(rows: &[Row]) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(rows)?);
    Ok(())
}

async fn measure(stage: &mut Stage) -> anyhow::Result<Vec<Row>> {
    stage.start_one().await?;
    let one = stage.one()?;
    let tool = format!("{PLUGIN}.{}", stage.asked.tool);
    let (mut sides, mut port) = (Vec::new(), 0);
    for (name, transport) in NAMES.into_iter().zip(TRANSPORTS) {
        let connector = one.connector(0, transport, "/mcp")?;
        // All transports are served under one number.
        port = connector.endpoint().port();
        let target = Target::new(connector, Era::Modern, &tool, &stage.asked.arguments)?;
        let target = target.expecting(stage.asked.expect.clone()).over_one_connection();
        until_answered(&target).await?;
        sides.push(Side { name: name.to_owned(), target, transport, era: Era::Modern, watched: None });
    }
    let plan = Plan { connections: STREAMS, ..stage.effort.open() };
    let (mut whole, mut lossy) = (Vec::new(), Vec::new());
    for _ in 0..stage.effort.rounds {
        join_round(&mut whole, interleaved(&plan, &sides, 1, ROW, &stage.bar).await);
        network::lose(port).await?;
        let round = interleaved(&plan, &sides, 1, ROW, &stage.bar).await;
        network::lose_nothing(port).await?;
        join_round(&mut lossy, round);
    }
    let notes = vec![
        format!("{} calls/s, at most {STREAMS} in flight, all on one connection", stage.effort.rate),
        format!("{} % of packets are lost each way between generator and node", network::LOST * 100.0),
        "HTTP/2 is plain here and QUIC encrypted; nothing delays packets, so one that is missing is soon noticed"
            .to_owned(),
    ];
    Ok(vec![Row::measured(ROW, "", figures(&whole, &lossy)?, notes)])
}

fn figures(whole: &[Measured], lossy: &[Measured]) -> anyhow::Result<Vec<Figure>> {
    let [http2, quic] = all_of(whole, NAMES)?;
    let [lossy_http2, lossy_quic] = all_of(lossy, NAMES)?;
    let doubt = judge::doubt(&http2.each(|run| run.p50_us));
    let ratio = |own: &Run, plain: &Run| own.p99_us / plain.p99_us;
    let mut figures = vec![
        Figure::new("ratio", "QUIC / HTTP/2, p99 with loss", "x", lossy_quic.beside(lossy_http2, ratio))
            .against(Bar::at_most(MOST_RATIO), doubt.as_deref()),
        Figure::new("ratio-whole", "QUIC / HTTP/2, p99 without", "x", quic.beside(http2, ratio)),
    ];
    let sides = [
        ("http2", "HTTP/2", http2),
        ("quic", "QUIC", quic),
        ("http2-loss", "HTTP/2 with loss", lossy_http2),
        ("quic-loss", "QUIC with loss", lossy_quic),
    ];
    for (id, label, side) in sides {
        figures.push(Figure::new(&format!("{id}-p50"), format!("{label}, p50"), "us", side.each(|run| run.p50_us)));
        figures.push(Figure::new(&format!("{id}-p99"), format!("{label}, p99"), "us", side.each(|run| run.p99_us)));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::judge::Verdict;

    /// Latencies at p50; those at p99 are ten times as much.
    fn side(name: &str, p50s: &[f64]) -> Measured {
        let run = |p50_us: &f64| Run {
            throughput: 1.0,
            p50_us: *p50_us,
            p99_us: *p50_us * 10.0,
            cpu_us: None,
            rss_bytes: None,
        };
        Measured { name: name.to_owned(), runs: p50s.iter().map(run).collect(), failed: None }
    }

    fn judged(whole: &[f64], http2: &[f64], quic: &[f64]) -> Figure {
        let whole = [side("http2", whole), side("quic", whole)];
        figures(&whole, &[side("http2", http2), side("quic", quic)]).unwrap().swap_remove(0)
    }

    #[test]
    fn with_loss_quic_is_held_against_half_of_http2_in_the_same_round() {
        let steady = [100.0, 102.0];
        let held = judged(&steady, &[400.0, 4_000.0], &[200.0, 1_000.0]);
        assert_eq!((held.repetitions.as_slice(), held.verdict), (&[0.5, 0.25][..], Verdict::Held));
        assert_eq!(judged(&steady, &[400.0, 400.0], &[300.0, 300.0]).verdict, Verdict::Missed);
        // The ground moves: without loss HTTP/2 is not what it was.
        assert_eq!(judged(&[100.0, 150.0], &[400.0, 400.0], &[100.0, 100.0]).verdict, Verdict::Refused);
    }

    #[test]
    fn each_side_has_its_latencies_with_and_without_and_one_that_failed_fails_the_row() {
        let whole = [side("http2", &[1.0, 1.0]), side("quic", &[2.0, 2.0])];
        let mut lossy = [side("http2", &[3.0, 3.0]), side("quic", &[4.0, 4.0])];
        let found: Vec<(String, Option<f64>)> =
            figures(&whole, &lossy).unwrap().into_iter().skip(2).map(|figure| (figure.id, figure.median)).collect();
        let expect = [
            ("http2-p50", 1.0),
            ("http2-p99", 10.0),
            ("quic-p50", 2.0),
            ("quic-p99", 20.0),
            ("http2-loss-p50", 3.0),
            ("http2-loss-p99", 30.0),
            ("quic-loss-p50", 4.0),
            ("quic-loss-p99", 40.0),
        ];
        assert_eq!(found, expect.map(|(id, median)| (id.to_owned(), Some(median))));
        lossy[1].failed = Some("PV-BENCH-ERRORS: x".to_owned());
        let error = figures(&whole, &lossy).err().unwrap().to_string();
        assert_eq!(error, "quic: PV-BENCH-ERRORS: x");
    }

    #[test]
    fn the_suite_tells_itself_what_the_command_line_takes() {
        use clap::Parser;

        #[derive(Parser)]
        struct Told {
            #[command(flatten)]
            args: LossArgs,
        }
        for effort in [Effort::FULL, Effort::QUICK] {
            let words = words(&effort);
            assert_eq!(words[..2], ["bench", "loss"]);
            let told = words[1..].iter().map(String::as_str).chain(["--dir", "d"]);
            let args = Told::try_parse_from(told).unwrap_or_else(|wrong| panic!("{wrong}")).args;
            assert_eq!(args.rounds, effort.rounds.min(MOST_ROUNDS));
            assert_eq!((args.measured, args.warmup), (effort.measured.min(MOST_MEASURED), effort.warmup));
            assert_eq!(args.dir, PathBuf::from("d"));
        }
    }
}
