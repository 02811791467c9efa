//! The `provost` binary: parses the command line, runs the command, turns errors into exit codes.
// The future of a call nests every stage and executor: laying it out passes the default depth of 128.
#![recursion_limit = "512"]
#![allow(clippy::print_stdout, reason = "what commands print is their result")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod agent_tls;
mod audit_admin;
mod audit_caller;
mod audit_retention;
mod bench;
mod bridge;
mod cli;
mod compute_threads;
mod config;
mod dev;
mod failure;
#[cfg(target_os = "linux")]
mod huge_pages;
mod logins;
mod models;
mod node;
mod open_files;
mod roles;
mod simulate;
mod telemetry;
mod threads;
mod tiles;
mod witness;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;

fn main() -> ExitCode {
    // Before anything that could start a thread.
    if let Some(code) = provost_data_tools::launch_if_asked() {
        return code;
    }
    let args = match cli::Cli::try_parse() {
        Ok(args) => args,
        Err(refused) if refused.use_stderr() => {
            failure::print_refused(&refused);
            // Clap's own code for this, 2, means something else to who verifies: "holds, not anchored".
            return ExitCode::from(if cli::is_audit_verify(std::env::args()) { 5 } else { 2 });
        }
        Err(other) => other.exit(),
    };
    // One provider for TLS in the whole process. The only error is that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    init_tracing(&args);
    #[cfg(target_os = "linux")]
    if args.is_server() {
        huge_pages::use_for_a_server();
    }
    if args.computes() {
        compute_threads::set(args.compute_threads());
    }
    end_quietly_with_the_reader();
    let runtime = match threads::runtime() {
        Ok(runtime) => runtime,
        Err(cause) => {
            eprintln!("PV-RUNTIME: the async runtime cannot start: {cause}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(cli::run(args)) {
        Ok(code) => code,
        Err(error) => {
            failure::print(&error);
            failure::exit_code(&error)
        }
    };
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}

/// `provost get all | head` closes our stdout while we print: that is no failure of ours, and what
/// the command did stands. Other panics are reported as ever.
fn end_quietly_with_the_reader() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            std::process::exit(0);
        }
        report(panic);
    }));
}

/// What openraft may say: it narrates its engine at `info`, warns of stale messages at each start, and, on a leader, of every
/// heartbeat that a member does not answer, several a second for as long as it is away. What is sent to a group that has
/// ended is answered with an error anyway.
const RAFT_LOG: &str =
    "openraft=warn,openraft::core::raft_core=error,openraft::core::heartbeat=error,openraft::raft::raft_inner=off";

/// Logs go to stderr; `PROVOST_LOG` filters them (`info`, `provost_data_tools=debug`, …).
fn init_tracing(args: &cli::Cli) {
    // lopdf prints what it cannot read.
    // The ids of a call are in each line of it where lines are for machines: to keep them costs each call a microsecond.
    let is_json = args.log_json();
    let default = match (args.is_server(), is_json) {
        (true, true) => format!("info,{RAFT_LOG},lopdf=off"),
        (true, false) => format!("info,{RAFT_LOG},lopdf=off,provost_call=off"),
        (false, _) => "warn".to_owned(),
    };
    let wanted = std::env::var("PROVOST_LOG").ok().filter(|text| !text.trim().is_empty());
    let filter = wanted.and_then(|text| {
        let filter = tracing_subscriber::EnvFilter::try_new(&text);
        filter.inspect_err(|cause| eprintln!("PROVOST_LOG=`{text}` is no filter and is left out: {cause}")).ok()
    });
    let filter = filter.unwrap_or_else(|| tracing_subscriber::EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true);
    if is_json { builder.json().with_span_list(false).init() } else { builder.init() }
}
