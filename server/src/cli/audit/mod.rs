//! `provost audit`: all of it reads files, so it works on a copy as well as on the directory of a
//! running node. One file a command; `place`, `filter` and `render` are what they share.

mod body;
mod checkpoints;
mod copy;
mod erase;
mod export;
mod filter;
mod hold;
mod index;
mod place;
mod prove;
mod prune;
mod query;
mod reader_token;
mod receipt;
mod render;
mod rotate_key;
mod show;
mod tail;
mod tiles;
mod verify;
mod witness;

use std::process::ExitCode;

use clap::Subcommand;

pub use place::{now_ns, parse_moment, time_text};
pub use verify::is_asked_for as is_audit_verify;

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
    #[command(subcommand, after_help = "Example: provost audit hold list")]
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
    Verify(verify::VerifyArgs),
    /// Destroy the keys of a subject's bodies: nobody can read them from then on, and the log still
    /// verifies. Records stay; the erasure is one.
    #[command(after_help = "Example: provost audit erase --tenant acme --subject ana --reason 'request 4711'")]
    Erase(erase::EraseArgs),
    /// Write logs as C2SP tlog-tiles: files that tools of others read.
    #[command(after_help = "Example: provost audit tiles ./tiles --tenant acme")]
    Tiles(tiles::TilesArgs),
    /// Print a proof file: that a record is in its log (C2SP tlog-proof), or that one signed size
    /// extends another.
    #[command(after_help = "Example: provost audit prove 12 --tenant acme > 12.tlog-proof")]
    Prove(prove::ProveArgs),
    /// Check a proof file offline.
    #[command(after_help = "Example: provost audit check-proof 12.tlog-proof --key VKEY --receipt receipt.json")]
    CheckProof(prove::CheckProofArgs),
    /// Print the newest checkpoints that the control plane holds: an anchor for `verify --against`.
    #[command(
        after_help = "Example: provost audit checkpoints > anchor && provost audit verify ./audit --against anchor"
    )]
    Checkpoints(checkpoints::CheckpointsArgs),
    /// Make a token for reading one log's tiles and proofs over HTTP.
    #[command(after_help = "Example: provost audit reader-token --log acme")]
    ReaderToken(reader_token::ReaderTokenArgs),
    /// Replace the key that signs checkpoints; run it where the leader of the audit group runs.
    #[command(after_help = "Example: provost audit rotate-key --data-dir /var/lib/provost")]
    RotateKey(rotate_key::RotateKeyArgs),
    /// Run a witness: what an auditor has to trust nobody's copy but its own.
    #[command(subcommand, after_help = "Example: provost audit witness serve --help")]
    Witness(witness::WitnessCommand),
}

impl AuditCommand {
    /// Whether the command is a long-running server, which logs more.
    pub fn is_server(&self) -> bool {
        matches!(self, AuditCommand::Witness(witness::WitnessCommand::Serve(_)))
    }
}

pub async fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    let names = match &command {
        AuditCommand::Query(args) => {
            body::note_read("query", &args.place, args.filter.tenant(), args.filter.text()).await
        }
        AuditCommand::Export(args) => {
            body::note_read("export", &args.place, args.filter.tenant(), args.filter.text()).await
        }
        AuditCommand::Tail(args) => {
            body::note_read("tail", &args.place, args.filter.tenant(), args.filter.text()).await
        }
        AuditCommand::Show(args) if !args.body => {
            body::note_read("show", &args.place, args.tenant.as_deref(), format!("record={}", args.index)).await
        }
        _ => body::Names::default(),
    };
    let command = match command {
        AuditCommand::Hold(command) => return hold::run(command).await,
        AuditCommand::Prune(args) => return prune::run(args).await,
        AuditCommand::Witness(command) => return witness::run(command).await,
        AuditCommand::Checkpoints(args) => return checkpoints::run(args).await,
        AuditCommand::Erase(args) => return erase::run(&args).await,
        AuditCommand::Show(args) if args.body => return body::run(&args).await,
        AuditCommand::Verify(args) => return Ok(verify::run(args).await),
        other => other,
    };
    // Reading files blocks: it has a thread of its own.
    tokio::task::spawn_blocking(move || match command {
        AuditCommand::Query(args) => query::run(&args, &names),
        AuditCommand::Show(args) => show::run(&args, &names),
        AuditCommand::Tail(args) => tail::run(&args, &names),
        AuditCommand::Export(args) => export::run(&args),
        AuditCommand::Index(args) => index::run(&args),
        AuditCommand::Tiles(args) => tiles::run(&args),
        AuditCommand::Prove(args) => prove::run(&args),
        AuditCommand::CheckProof(args) => prove::run_check(&args),
        AuditCommand::ReaderToken(args) => reader_token::run(&args),
        AuditCommand::RotateKey(args) => rotate_key::run(&args),
        // Answered above.
        AuditCommand::Erase(_)
        | AuditCommand::Hold(_)
        | AuditCommand::Prune(_)
        | AuditCommand::Verify(_)
        | AuditCommand::Witness(_)
        | AuditCommand::Checkpoints(_) => Ok(ExitCode::SUCCESS),
    })
    .await?
}
