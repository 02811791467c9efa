//! `provost bench`: load on one MCP endpoint, measured without coordinated omission.
//!
//! Invariants: in an open loop every send time is fixed before the run starts and latency counts from
//! it, so a stall of the server shows as latency of every call it delayed; every answer is checked to
//! be a JSON-RPC result (an endpoint that answers errors quickly is not fast); a run with errors fails.
//! Any MCP endpoint will do, so the same command measures an upstream directly.
//!
//! [`suite`] is the table of many such runs, and of what else Provost is held to.

mod client;
mod found;
mod idle;
mod plan;
mod process;
mod report;
mod suite;
mod upstream;
mod worker;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use provost_client::Endpoint;
use serde::Serialize;

use self::{
    idle::Held,
    plan::{Load, Plan},
    process::Watched,
    report::Report,
};
use crate::{
    cli::endpoint::EndpointArgs,
    failure::{Failure, Usage},
};

/// The offered rate unless told otherwise, calls a second.
const DEFAULT_RATE: f64 = 500.0;
/// More connections than this measure the generator.
const MAX_CONNECTIONS: usize = 1_024;

/// Which protocol the generator speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Era {
    /// 2026-07-28: no session.
    Modern,
    /// 2025-11-25: one session a connection.
    Legacy,
}

/// What `provost bench` is told.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    // In a box: it is told more than any other command.
    #[command(subcommand)]
    command: Option<Box<BenchCommand>>,
    #[command(flatten)]
    load: LoadArgs,
}

impl BenchArgs {
    /// Whether it measures the whole table.
    pub fn is_suite(&self) -> bool {
        matches!(self.command.as_deref(), Some(BenchCommand::Suite(_)))
    }
}

/// What it does other than loading one endpoint.
#[derive(Subcommand)]
pub enum BenchCommand {
    /// Measure the whole table of figures on this machine, beside direct calls and peers, and write a report.
    #[command(
        after_help = "Examples:\n  provost bench suite --quick\n  provost bench suite --rows throughput,added-local\n  \
                            provost bench suite --upstream-port 9000 --peer agentgateway=http://127.0.0.1:3000/mcp\n\n\
                            It starts what it needs and removes it again. A peer's token is read from \
                            PROVOST_BENCH_TOKEN_NAME, its version from PROVOST_BENCH_VERSION_NAME."
    )]
    Suite(suite::SuiteArgs),
    /// Show what changed between two reports of the suite. Exits with 1 where a bar that held no longer holds.
    #[command(after_help = "Example: provost bench compare before/report.json after/report.json")]
    Compare(suite::compare::CompareArgs),
    /// Serve the tool that the suite calls, until stdin closes.
    #[command(after_help = "Example: provost bench upstream --http 127.0.0.1:9000")]
    Upstream(upstream::UpstreamArgs),
    /// Measure calls over HTTP/2 and QUIC where packets are lost: what the suite starts in a network of its own.
    #[command(
        hide = true,
        after_help = "Example: unshare --net -- provost bench loss --rounds 3 --measured 3s --warmup 1s --dir ."
    )]
    Loss(suite::loss::LossArgs),
}

/// One load.
#[derive(Args)]
pub struct LoadArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// The tool to call. Where there is none of a name without a plugin, `echo`, it is the one of the plugin of that
    /// name, `echo.echo`; an `echo` that is given no argument gets a text.
    #[arg(long, default_value = "echo")]
    tool: String,
    /// An argument of the tool, `name=value`; a value that is JSON is taken as JSON.
    #[arg(long = "arg", value_name = "K=V")]
    args: Vec<String>,
    /// All arguments as one JSON object.
    #[arg(long, value_name = "JSON", conflicts_with = "args")]
    json_args: Option<String>,
    /// Every answer must contain this text.
    #[arg(long, value_name = "TEXT")]
    expect: Option<String>,
    /// The protocol era to speak.
    #[arg(long, value_enum, default_value_t = Era::Modern)]
    era: Era,
    /// Connections, each with at most one call in flight.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Calls offered a second, at fixed times (open loop). Default 500.
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "saturate")]
    rate: Option<f64>,
    /// Each connection sends its next call when it has the last answer (closed loop).
    #[arg(long)]
    saturate: bool,
    /// Hold this many connections without calls and show the server's memory, instead of a load.
    #[arg(long, value_name = "CONNECTIONS", conflicts_with_all = ["rate", "saturate"])]
    idle: Option<usize>,
    /// How long to measure: `500ms`, `10s`, `2m`.
    #[arg(long, default_value = "10s", value_parser = plan::parse_duration)]
    duration: Duration,
    /// Load that is not measured, before.
    #[arg(long, default_value = "1s", value_parser = plan::parse_duration)]
    warmup: Duration,
    /// A call without an answer for this long is an error.
    #[arg(long, default_value = "10s", value_parser = plan::parse_duration)]
    timeout: Duration,
    /// The process whose CPU and memory are shown. Default: the running `provost dev`.
    #[arg(long)]
    pid: Option<u32>,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs a load, or what else was asked for.
pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    match args.command.map(|command| *command) {
        None => Box::pin(load(args.load)).await,
        Some(BenchCommand::Suite(args)) => Box::pin(suite::run(args)).await,
        Some(BenchCommand::Compare(args)) => suite::compare::run(&args),
        Some(BenchCommand::Upstream(args)) => upstream::run(args).await,
        Some(BenchCommand::Loss(args)) => Box::pin(suite::loss::run(args)).await,
    }
}

/// Runs the load, prints the figures, and fails if any call failed.
async fn load(args: LoadArgs) -> anyhow::Result<()> {
    let plan = plan(&args)?;
    let context = args.endpoint.resolve()?;
    // One call before the load: a wrong URL, token or tool is a clear error, not ten thousand of them.
    let (tool, target) = Box::pin(found::find(&args, &context.connector)).await?;

    let watched = watched_pid(&args, context.connector.endpoint()).and_then(Watched::open);
    let transport = context.connector.endpoint().transport();
    if let Some(count) = args.idle {
        let watched = watched.ok_or_else(no_process)?;
        let held = idle::hold(&target, context.connector.endpoint(), count, args.duration, watched).await?;
        return print_held(&held, &args);
    }
    let bar = progress_bar(&plan);
    let outcome = worker::drive(&plan, &target, watched).await?;
    bar.finish_and_clear();

    let report = Report::new(&context.url, transport, &tool, &plan, args.era, &outcome);
    print(&report);
    write_json(&report, &args)?;
    report.verdict()
}

fn write_json(figures: &impl Serialize, args: &LoadArgs) -> anyhow::Result<()> {
    let Some(path) = &args.json else { return Ok(()) };
    let text = serde_json::to_vec_pretty(figures)?;
    std::fs::write(path, text).with_context(|| format!("PV-BENCH-FILE: {} cannot be written", path.display()))
}

fn print_held(held: &Held, args: &LoadArgs) -> anyhow::Result<()> {
    print(held);
    write_json(held, args)?;
    held.verdict()
}

fn no_process() -> Failure {
    Failure::new(
        "PV-BENCH-PROCESS",
        "the memory of idle connections is that of the server's process, which is not known",
        "name it with --pid; it must run on this machine",
    )
}

fn plan(args: &LoadArgs) -> anyhow::Result<Plan> {
    let wrong = |message: String, hint: &str| anyhow::Error::from(Usage(Failure::new("PV-BENCH-PLAN", message, hint)));
    if args.idle.is_some_and(|count| !(1..=idle::MAX_CONNECTIONS).contains(&count)) {
        let message = format!("--idle is not between 1 and {}", idle::MAX_CONNECTIONS);
        return Err(wrong(message, "10000 is a good start"));
    }
    if !(1..=MAX_CONNECTIONS).contains(&args.connections) {
        let message = format!("--connections {} is not between 1 and {MAX_CONNECTIONS}", args.connections);
        return Err(wrong(message, "16 is a good start"));
    }
    if args.duration.is_zero() {
        return Err(wrong("--duration 0 measures nothing".to_owned(), "10s is a good start"));
    }
    let times = [("--duration", args.duration), ("--warmup", args.warmup), ("--timeout", args.timeout)];
    if let Some((flag, time)) = times.into_iter().find(|(_, time)| *time > plan::MAX_TIME) {
        let message = format!("{flag} of {} s is more than a day, {} s", time.as_secs(), plan::MAX_TIME.as_secs());
        return Err(wrong(message, "10s is a good start"));
    }
    let rate = args.rate.unwrap_or(DEFAULT_RATE);
    if !(plan::MIN_RATE..=plan::MAX_RATE).contains(&rate) {
        let message = format!("--rate {rate} is not between {} and {}", plan::MIN_RATE, plan::MAX_RATE);
        return Err(wrong(message, "use --saturate to find the highest rate"));
    }
    let load = if args.saturate { Load::Saturated } else { Load::Open { rate } };
    Ok(Plan { load, connections: args.connections, warmup: args.warmup, duration: args.duration, drain: args.timeout })
}

/// The given process, else that of the `provost dev` which serves exactly this address.
fn watched_pid(args: &LoadArgs, endpoint: &Endpoint) -> Option<u32> {
    args.pid.or_else(|| {
        let dev = args.endpoint.dev().ok()?;
        // All transports are served under one number.
        let served = Endpoint::parse(&dev.mcp, None).ok()?;
        (served.authority() == endpoint.authority()).then_some(dev.pid)
    })
}

/// Counts seconds on a terminal; draws nothing in a pipe.
fn progress_bar(plan: &Plan) -> ProgressBar {
    let total = (plan.warmup + plan.duration).as_secs();
    let bar = ProgressBar::new(total.max(1));
    if let Ok(style) = ProgressStyle::with_template("measuring {bar:40} {elapsed} of {len} s") {
        bar.set_style(style);
    }
    let ticking = bar.clone();
    tokio::spawn(async move {
        while !ticking.is_finished() {
            ticking.set_position(ticking.elapsed().as_secs());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    bar
}

#[allow(clippy::print_stdout, reason = "the figures are the command's output")]
fn print(figures: &impl std::fmt::Display) {
    println!("{figures}");
}
