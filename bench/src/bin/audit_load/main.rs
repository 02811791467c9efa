//! Load on an audit log of three voters: sustained records a second, and how long a record takes at a
//! fixed rate.
//!
//! Three replicas and the writers in one process, over real gRPC, mutual TLS and fsync, all on one
//! disk: `cargo run --release -p provost-bench --bin audit_load -- --dir /disk`. Latencies count from
//! when a record was due (open loop), so that a stall shows in every record that waited for it.
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

/// The one that `provost` runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod load;
mod pki;
mod replicas;

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// What is measured.
#[derive(Parser)]
struct Args {
    /// Where the replicas' files go; a folder in it is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Seconds of each measurement, after one of warming up.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Processes that write, each with an epoch and chains of its own.
    #[arg(long, default_value_t = 2)]
    writers: usize,
    /// Records in flight at each writer, for the sustained rate.
    #[arg(long, default_value_t = 2_048)]
    in_flight: usize,
    /// Records a second, for the latency.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // The only error is that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(&args.dir)?;
    let pki = pki::Pki::new()?;
    let group = replicas::Replicas::start(dir.path(), &pki).await?;
    let mut writers = Vec::new();
    for n in 0..args.writers.max(1) {
        writers.push(group.writer(&pki, &format!("dp-{n}")).await?);
    }
    let time = Duration::from_secs(args.seconds);
    load::at_rate(&writers, args.rate, Duration::from_secs(1)).await?;
    let quiet = load::at_rate(&writers, args.rate, time).await?;
    println!("open loop at {}/s: {quiet}", args.rate);
    let full = load::sustained(&writers, args.in_flight, time).await?;
    println!("sustained, {} writers with {} in flight each: {full}", writers.len(), args.in_flight);
    for writer in &writers {
        writer.close(Duration::from_secs(5)).await?;
    }
    group.close().await
}
