//! `provost audit`: all of it reads files, so it works on a copy as well as on the directory of a
//! running node. One file a command; `place`, `filter` and `render` are what they share.

mod export;
mod filter;
mod hold;
mod index;
mod place;
mod prune;
mod query;
mod render;
mod show;
mod tail;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use provost_audit_verify::{Exit, VerifyOptions, verify};

pub use place::time_text;
use place::{Place, log_id, now_ns, parse_moment};

use super::secrets::parse_duration;

#[derive(Subcommand)]
pub enum AuditCommand {
    /// List records.
    #[command(after_help = "Example: provost audit query --tool sql.query --status denied --since 1h")]
    Query(query::QueryArgs),
    /// Print one record with its proof of inclusion.
    #[command(after_help = "Example: provost audit show 12 --tenant acme")]
    Show(show::ShowArgs),
    /// Print the newest records, and go on as they come.
    #[command(after_help = "Example: provost audit tail --follow --tenant acme --status denied")]
    Tail(tail::TailArgs),
    /// Write records for other programs.
    #[command(after_help = "Example: provost audit export --format ocsf --since 24h -o audit.ocsf.jsonl")]
    Export(export::ExportArgs),
    /// Keep records that a policy would prune, or that somebody might erase.
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Prune old records of one log now; a rule of [[audit.retention]] does so by itself.
    #[command(after_help = "Example: provost audit prune --tenant acme --keep 400d --dry-run")]
    Prune(prune::PruneArgs),
    /// Make the indexes that queries of a copy go by, or check them against the records.
    #[command(after_help = "Example: provost audit index ./copy --check")]
    Index(index::IndexArgs),
    /// Verify a log offline. Exit codes: 0 proven, 1 tampered, 2 consistent but unanchored,
    /// 3 stale, 4 incomplete input, 5 usage.
    #[command(after_help = "Example: provost audit verify ./data/audit --against checkpoint.txt")]
    Verify(VerifyArgs),
}

#[derive(Args)]
pub struct VerifyArgs {
    /// The audit directory. Default: that of the running `provost dev`.
    path: Option<PathBuf>,
    /// A checkpoint that you kept or got from elsewhere: what makes a proof of it.
    #[arg(long, value_name = "CHECKPOINT")]
    against: Option<PathBuf>,
    /// The verifier key (C2SP vkey) that checkpoints must be signed with, got from elsewhere.
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,
    /// Read only records from this time on in full: RFC 3339, or how long ago.
    #[arg(long, value_parser = parse_moment)]
    since: Option<u64>,
    /// Only this tenant's log; `cluster` is the cluster's own.
    #[arg(long)]
    tenant: Option<String>,
    /// Also prove that this record is covered by the latest checkpoint.
    #[arg(long, value_name = "INDEX")]
    proof: Option<u64>,
    /// The newest checkpoint must not be older than this (`15m`, `24h`).
    #[arg(long, value_parser = parse_duration)]
    max_age: Option<std::time::Duration>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    let command = match command {
        AuditCommand::Hold(command) => return hold::run(command).await,
        AuditCommand::Prune(args) => return prune::run(args).await,
        command => command,
    };
    // Reading files blocks: it has a thread of its own.
    tokio::task::spawn_blocking(move || match command {
        AuditCommand::Query(args) => query::run(&args),
        AuditCommand::Show(args) => show::run(&args),
        AuditCommand::Tail(args) => tail::run(&args),
        AuditCommand::Export(args) => export::run(&args),
        AuditCommand::Index(args) => index::run(&args),
        AuditCommand::Verify(args) => run_verify(&args),
        // Answered above.
        AuditCommand::Hold(_) | AuditCommand::Prune(_) => Ok(ExitCode::SUCCESS),
    })
    .await?
}

fn run_verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let path = match &args.path {
        Some(path) => path.clone(),
        None => Place { dir: None, data_dir: std::env::var_os("PROVOST_DATA_DIR").map(PathBuf::from) }.resolve()?,
    };
    let options = VerifyOptions {
        against: args.against.clone(),
        since_ns: args.since,
        log: args.tenant.as_deref().map(log_id).transpose()?,
        proof: args.proof,
        trusted_key: args.key.clone(),
        max_age_ns: args.max_age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
        now_ns: Some(now_ns()),
    };
    match verify(&path, &options) {
        Ok(report) => {
            if args.json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                println!("{}", report.to_string().trim_end());
            }
            Ok(ExitCode::from(report.exit_code()))
        }
        Err(usage) => {
            eprintln!("error: {usage}");
            Ok(ExitCode::from(Exit::Usage.code()))
        }
    }
}
