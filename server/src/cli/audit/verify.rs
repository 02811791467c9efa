//! `provost audit verify`: what a directory proves, as text, JSON or a page.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use provost_audit_verify::{Exit, HtmlContext, Report, VerifyOptions, verify};

use super::{
    copy::SourceArgs,
    place::{Place, log_id, now_ns, parse_moment, time_text},
    receipt,
};
use crate::{cli::secrets::parse_duration, failure::Failure};

#[derive(Args)]
pub struct VerifyArgs {
    /// The audit directory. Default: that of the running `provost dev`.
    path: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
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
    /// A witness policy (C2SP tlog-policy): checkpoints of the cluster's log that enough of its
    /// witnesses cosigned make a proof of it.
    #[arg(long, value_name = "FILE")]
    witness_policy: Option<PathBuf>,
    /// A caller's receipt, or a whole result or refusal that carries one, as JSON (`-`: stdin): its
    /// record must be in the log. May be given again.
    #[arg(long, value_name = "FILE")]
    receipt: Vec<PathBuf>,
    /// Print the report as JSON; `docs/auditing.md` describes it.
    #[arg(long)]
    json: bool,
    /// Also write the report as one page for people to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Whether these are the arguments of `provost audit verify`.
pub fn is_asked_for(args: impl Iterator<Item = String>) -> bool {
    let plain: Vec<String> = args.skip(1).filter(|arg| !arg.starts_with('-')).take(2).collect();
    plain == ["audit", "verify"]
}

/// Any failure to do what was asked is exit code 5: 1 means tampered here.
pub async fn run(args: VerifyArgs) -> ExitCode {
    match copy_and_verify(args).await {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            crate::failure::print(&error);
            ExitCode::from(Exit::Usage.code())
        }
    }
}

async fn copy_and_verify(mut args: VerifyArgs) -> anyhow::Result<Exit> {
    let copied = args.source.copy(args.tenant.as_deref()).await?;
    if let Some(copied) = &copied {
        args.path = Some(copied.dir.clone());
    }
    // Reading files blocks: it has a thread of its own.
    let exit = tokio::task::spawn_blocking(move || verify_and_print(&args)).await?;
    if let Some(copied) = copied {
        copied.end(matches!(exit, Ok(Exit::Tampered)));
    }
    exit
}

fn verify_and_print(args: &VerifyArgs) -> anyhow::Result<Exit> {
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
        witness_policy: args.witness_policy.clone(),
        receipts: receipt::read_all(&args.receipt)?,
    };
    let mut report = verify(&path, &options)?;
    if let Some(url) = args.source.url() {
        report.path = PathBuf::from(url);
    }
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { report.to_string() };
    // A reader that leaves early (`| head`) must not turn the verdict into another exit code.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    if let Some(file) = &args.html {
        write_page(file, args, &report)?;
    }
    Ok(report.exit)
}

fn write_page(file: &Path, args: &VerifyArgs, report: &Report) -> anyhow::Result<()> {
    // It was read before: what is shown is what was compared, unless the file changed meanwhile.
    let anchor = args.against.as_ref().map(|path| {
        let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (path.display().to_string(), text.unwrap_or_default())
    });
    let context = HtmlContext {
        anchor,
        trusted_key: args.key.clone(),
        since: args.since.map(time_text),
        verified_at: time_text(now_ns()),
        program: format!("provost {}", env!("CARGO_PKG_VERSION")),
    };
    std::fs::write(file, report.to_html(&context)).map_err(|e| {
        Failure::new(
            "PV-CLI-AUDIT-HTML",
            format!("the page cannot be written to {}: {e}", file.display()),
            "name a file in a folder that you may write to; the verdict is that of the same command without --html",
        )
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::is_asked_for;

    #[test]
    fn its_usage_errors_are_told_from_others() {
        let asked = |line: &str| is_asked_for(line.split(' ').map(str::to_owned));
        assert!(asked("provost audit verify --bogus") && asked("provost --verbose audit verify"));
        assert!(!asked("provost audit query verify") && !asked("provost verify") && !asked("provost"));
    }
}
