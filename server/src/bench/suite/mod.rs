//! `provost bench suite`: the table of figures that Provost is held to, measured in one run on this machine.
//!
//! Purpose: one command that starts what it needs (nodes of this program with data directories that are thrown away, an
//! upstream, nginx where it is there), measures every row that can be measured here beside direct calls and peers, and
//! leaves a report for programs and one for people. `compare` says what changed between two.
//!
//! Invariants: sides of a comparison run in turn, and what is compared ran in the same round; medians count; where the
//! direct side drifts no verdict is given; a row that is not measured says why; a row that fails ends no other.
//!
//! Left out: pinning to processors, other machines, figures that need sources or a debugger.

mod args;
mod audit;
mod budget;
mod calls;
mod cluster;
pub mod compare;
mod component;
mod documents;
mod etcd;
mod hot;
mod html;
mod instructions;
mod judge;
mod load;
pub mod loss;
mod machine;
mod measure;
mod model_files;
mod models;
mod network;
mod node_files;
mod nodes;
mod peers;
mod plot;
mod program;
mod report;
mod rows;
mod sample;
mod scale;
mod sides;
mod stage;
mod thousand;
mod tokens;
mod transports;
mod writes;

use std::{io::IsTerminal, path::Path, time::Instant};

use anyhow::Context;
use indicatif::ProgressBar;
use provost_client::{Endpoint, Transport};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use self::args::SuiteArgs;
use self::{
    budget::Budget,
    judge::Verdict,
    machine::Machine,
    peers::Peers,
    program::Scratch,
    report::{Conditions, SuiteReport, shown},
    rows::Wanted,
    stage::{Effort, Stage},
};
use crate::{dev::stop_signal, failure::Failure};

/// Between two moves of the sign that something is going on.
const TICK: std::time::Duration = std::time::Duration::from_millis(200);

/// Measures, writes both reports, and prints a summary.
pub async fn run(args: SuiteArgs) -> anyhow::Result<()> {
    args::check(&args)?;
    let given = args.upstream.clone().map(|url| args::asked(&args).map(|asked| (url, asked))).transpose()?;
    // Before anything is measured: minutes later it would be too late to say that nothing can be kept.
    std::fs::create_dir_all(&args.out).with_context(|| unwritable(&args.out))?;
    let wanted = Wanted::new(&args.rows).beside_llama(tokens::offered(&args.peer).is_some());
    let budget = Budget::new(args.budget);
    let full = if args.quick { Effort::QUICK } else { Effort::FULL };
    // As if every peer were there: what cannot be done at all is said before anything is started.
    budget.fit(full, &wanted, peers::count(&args.peer))?;
    let began = (Instant::now(), OffsetDateTime::now_utc());
    let machine = Machine::here();
    // From here on the folder is removed and what was started is ended, also where the suite is told to stop.
    let stop = stop_signal()?;
    let scratch = Scratch::new(&args.dir, args.keep)?;
    if args.keep {
        eprintln!("data and logs are kept in {}", scratch.path().display());
    }
    let file_system = machine::file_system(scratch.path());
    let bar = progress_bar();
    let mut stage = Box::pin(Stage::open(scratch, full, given, args.upstream_port, bar.clone())).await?;
    let measuring = async {
        stage.say("looking for peers");
        let strict = args.strict;
        stage.peers = Peers::find(&stage.scratch, &args.peer, &stage.upstream, &stage.asked, strict).await?;
        for why in &stage.peers.left_out {
            eprintln!("{why}");
        }
        stage.effort = budget.fit(full, &wanted, stage.peers.sides.len())?;
        anyhow::Ok(measure::measure(&mut stage, &wanted, budget).await)
    };
    let rows = tokio::select! {
        rows = Box::pin(measuring) => Some(rows),
        () = stop => None,
    };
    bar.finish_and_clear();
    let (peers, effort) = (std::mem::take(&mut stage.peers.facts), stage.effort);
    Box::pin(stage.stop()).await;
    let Some(rows) = rows else {
        return Err(Failure::new("PV-BENCH", "the suite was stopped", "run it again; nothing was written").into());
    };
    let mut report = SuiteReport {
        schema: report::SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: began.1.format(&Rfc3339).unwrap_or_default(),
        took_s: began.0.elapsed().as_secs_f64(),
        machine: Machine { load_after: machine::load(), ..machine },
        conditions: conditions(&args, effort, file_system),
        peers,
        rows: rows?,
    };
    if cfg!(debug_assertions) {
        report.refuse("a debug build: nothing in it is as fast as it will be");
    }
    write(&args.out, &report)?;
    match args.json {
        true => print_json(&report)?,
        false => print(&report, &args.out),
    }
    verdict(&report, args.strict)
}

fn conditions(args: &SuiteArgs, effort: Effort, file_system: String) -> Conditions {
    let own = "the suite's own, in a process of its own: the least that answers MCP".to_owned();
    let mut notes = vec!["generator, upstream, nodes and peers share this machine; nothing is pinned".to_owned()];
    let full = if effort.quick { Effort::QUICK } else { Effort::FULL };
    if (effort.rounds, effort.measured) != (full.rounds, full.measured) {
        let text = format!(
            "{} rounds of {} s in place of {} of {} s: more do not fit into --budget",
            effort.rounds,
            effort.measured.as_secs_f64(),
            full.rounds,
            full.measured.as_secs_f64()
        );
        notes.push(text);
    }
    if file_system == "tmpfs" {
        notes
            .push("the data lies in memory: syncing it costs nothing, and figures with records mean little".to_owned());
    }
    Conditions {
        quick: effort.quick,
        rounds: effort.rounds,
        seconds: effort.measured.as_secs_f64(),
        warmup_s: effort.warmup.as_secs_f64(),
        connections: effort.connections,
        rate: effort.rate,
        // Of its own without the port, which is another each time.
        upstream: args.upstream.as_ref().map_or(own, |url| format!("{}, tool {}", shown_url(url), args.tool)),
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        file_system,
        budget_s: args.budget.as_secs_f64(),
        commit: args.commit.clone().unwrap_or_default(),
        notes,
    }
}

/// A URL as it may be kept: without a query, which may hold a secret.
fn shown_url(url: &str) -> String {
    let endpoint = Endpoint::parse(url, Some(Transport::Http));
    let path = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
    endpoint
        .map_or_else(|_| String::new(), |endpoint| format!("http at {}{}", endpoint.authority(), path(endpoint.path())))
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(TICK);
    bar
}

fn unwritable(path: &Path) -> String {
    format!("PV-BENCH-FILE: {} cannot be written", path.display())
}

fn write(folder: &Path, report: &SuiteReport) -> anyhow::Result<()> {
    let (json, page) = (folder.join("report.json"), folder.join("report.html"));
    std::fs::write(&json, serde_json::to_vec_pretty(report)?).with_context(|| unwritable(&json))?;
    std::fs::write(&page, html::page(report)).with_context(|| unwritable(&page))
}

#[allow(clippy::print_stdout, reason = "the report is the command's output")]
fn print_json(report: &SuiteReport) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the figures are the command's output")]
fn print(report: &SuiteReport, out: &Path) {
    for row in &report.rows {
        println!("{:<14} {:<9} {}", row.id, rows::word(row), row.why.as_deref().unwrap_or(&row.title));
        // Its figures say something together only.
        let is_whole = row.id == models::ROW;
        for figure in row.figures.iter().filter(|figure| is_whole || figure.bar.is_some()) {
            let median = figure.median.map_or_else(|| "-".to_owned(), shown);
            let bar = figure.bar.map_or_else(String::new, |bar| format!("{} {}", bar.sign(), shown(bar.value)));
            let why = figure.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
            println!(
                "  {:<44} {median:>10} {:<9} {bar:<12} {}{why}",
                figure.label,
                figure.unit,
                figure.verdict.as_str()
            );
        }
    }
    println!(
        "bars: {} held, {} missed, {} without a verdict; {:.0} s; {}",
        report.count(Verdict::Held),
        report.count(Verdict::Missed),
        report.count(Verdict::Refused),
        report.took_s,
        out.join("report.html").display()
    );
}

fn verdict(report: &SuiteReport, strict: bool) -> anyhow::Result<()> {
    let failed: Vec<String> =
        report.failed().iter().map(|row| format!("{}: {}", row.id, row.why.as_deref().unwrap_or_default())).collect();
    if !failed.is_empty() {
        let text = format!("{} rows could not be measured: {}", failed.len(), failed.join("; "));
        let hint = "remove the cause and measure them again with --rows; --keep leaves the logs";
        return Err(Failure::new("PV-BENCH-FAILED", text, hint).into());
    }
    let missed = report.count(Verdict::Missed);
    if strict && missed > 0 {
        let text = format!("{missed} bars are missed");
        return Err(
            Failure::new("PV-BENCH-BARS", text, "the report names them; leave --strict out to let them be").into()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_of_a_url_is_kept() {
        assert_eq!(shown_url("https://h:1/mcp?key=secret"), "http at h:1/mcp");
        assert_eq!(shown_url("nonsense"), "");
    }
}
