//! Writes to a replicated store as fast as it acknowledges them: Provost's control plane or etcd, by the
//! same generator.
//!
//! Three modes:
//! - load (default): N clients, each with its own connection and always one write under way (closed
//!   loop): writes a second and how long one takes;
//! - `--outage`: writes begin at a fixed rate whatever became of the earlier ones; the longest time
//!   without an acknowledged write. Kill the leader meanwhile;
//! - `--leader`: prints the endpoint that leads, and ends.
//!
//! One JSON object on standard output. Writes are small and of equal size for both stores: one key, one
//! document of about 120 bytes. After a load each client reads its last key back, so that a store that
//! acknowledges and forgets is not measured.
//!
//! Left out: reads, mixes, TLS. `scripts/compare_etcd.sh` does the comparison.

mod load;
mod outage;
mod store;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};

use crate::store::Store;

/// etcd's public messages.
#[allow(missing_docs, clippy::all)]
mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// Most clients of one run.
const MAX_CLIENTS: usize = 4_096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// `KV.Put` of etcd's API.
    Etcd,
    /// `Admin.Apply` of one Tenant document.
    Provost,
}

/// Measures the writes of a replicated store.
#[derive(Parser)]
#[command(name = "write_load", max_term_width = 100)]
struct Arguments {
    /// Which store.
    #[arg(long, value_enum)]
    target: Target,
    /// Its nodes, `HOST:PORT` each; clients begin at different ones and fail over.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Provost's admin token.
    #[arg(long, env = "PROVOST_ADMIN_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// Clients, each with one write under way.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Keys of each client, written in turn; more make the stored state larger.
    #[arg(long, default_value_t = 1)]
    keys_per_client: u64,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long to write before measuring, in seconds.
    #[arg(long, default_value_t = 2)]
    warmup_seconds: u64,
    /// Patience with one write, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    timeout_ms: u64,
    /// Measure the longest time without an acknowledged write.
    #[arg(long)]
    outage: bool,
    /// Writes a second in the outage mode.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Print the endpoint that leads.
    #[arg(long, conflicts_with = "outage")]
    leader: bool,
    /// How keys begin.
    #[arg(long, default_value = "load")]
    prefix: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    ensure!((1..=MAX_CLIENTS).contains(&arguments.clients), "--clients is between 1 and {MAX_CLIENTS}");
    let Arguments { seconds, timeout_ms, rate, keys_per_client, .. } = arguments;
    ensure!(seconds > 0 && timeout_ms > 0 && rate > 0 && keys_per_client > 0, "0 measures nothing");
    let store = Store {
        target: arguments.target,
        endpoints: arguments.endpoints.clone(),
        token: arguments.token.clone(),
        prefix: arguments.prefix.clone(),
        limit: Duration::from_millis(arguments.timeout_ms),
    };
    if arguments.leader {
        let leader = store.leader().await.context("no endpoint names a leader among these endpoints")?;
        print(&leader);
        return Ok(ExitCode::SUCCESS);
    }
    let (report, writes) = if arguments.outage {
        let report = outage::run(&store, arguments.rate, Duration::from_secs(arguments.seconds)).await?;
        (serde_json::to_string(&report)?, report.writes)
    } else {
        let plan = load::Plan {
            clients: arguments.clients,
            keys: arguments.keys_per_client,
            warmup: Duration::from_secs(arguments.warmup_seconds),
            measured: Duration::from_secs(arguments.seconds),
        };
        let report = load::run(&store, plan).await?;
        (serde_json::to_string(&report)?, report.writes)
    };
    print(&report);
    Ok(if writes > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the result of the program")]
fn print(line: &str) {
    println!("{line}");
}
