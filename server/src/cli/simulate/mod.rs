//! `provost simulate`: which recorded calls would be decided otherwise.

mod each_call;
mod outcome;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::ProgressBar;
use provost_wire::{
    admin::{ChangeKind, Document, ResourceChange, SimulatePart, SimulateRequest, simulate_part::Part},
    policy_over,
};

use super::{
    AdminArgs,
    admin::{dial, failed},
    audit::{now_ns, parse_moment},
    documents,
};
use each_call::EachCall;
use outcome::Outcome;

#[derive(Args)]
pub struct SimulateArgs {
    /// Files or directories of YAML or JSON, as for `apply`; `-` reads standard input.
    #[arg(short = 'f', long = "file", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Calls from this time on: RFC 3339, or how long ago (`15m`, `24h`).
    #[arg(long, default_value = "24h", value_parser = parse_moment)]
    since: u64,
    /// Calls before this time, likewise. Default: now.
    #[arg(long, value_parser = parse_moment)]
    until: Option<u64>,
    /// Only calls of this principal.
    #[arg(long)]
    principal: Option<String>,
    /// Only calls of this tool, prompt, resource or model.
    #[arg(long)]
    tool: Option<String>,
    /// Look at no more calls than so many, the oldest first.
    #[arg(long)]
    limit: Option<u64>,
    /// Print as JSON, every changed call with both decisions.
    #[arg(long)]
    json: bool,
    /// Exit with 1 if a call would be decided otherwise.
    #[arg(long)]
    fail_on_change: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let documents = documents::read(&args.files)?;
    let documents = documents.into_iter().map(|(path, text)| Document { path, text }).collect();
    let (channel, token, context) = dial(&args.admin).await?;
    let until_ns = args.until.unwrap_or_else(now_ns);
    let request = SimulateRequest {
        documents,
        since_ns: args.since,
        until_ns,
        tenant: context.tenant.unwrap_or_default(),
        principal: args.principal.clone().unwrap_or_default(),
        tool: args.tool.clone().unwrap_or_default(),
        limit: args.limit.unwrap_or_default(),
        each: args.json,
    };
    let mut parts = policy_over(channel, token).simulate(request).await.map_err(failed)?.into_inner();
    let progress = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    let mut out = Outcome::of((args.since, until_ns));
    let mut printer = args.json.then(EachCall::begin).transpose()?;
    while let Some(SimulatePart { part }) = parts.message().await.map_err(failed)? {
        match part {
            Some(Part::Begin(begin)) => out.begin = begin,
            Some(Part::Page(page)) => {
                if let Some(printer) = &mut printer {
                    printer.page(&page)?;
                }
                out.take(page);
                progress.set_message(format!("{} calls looked at", out.looked_at));
                progress.tick();
            }
            Some(Part::End(end)) => out.end = end,
            None => {}
        }
    }
    progress.finish_and_clear();
    let narrowed = args.principal.is_some() || args.tool.is_some();
    let is_empty = out.looked_at == 0 && !narrowed && !out.begin.tenants.is_empty();
    match printer {
        Some(printer) => printer.end(&out)?,
        None if is_empty => {}
        None => out.print(args.limit),
    }
    if is_empty {
        return Err(out.nothing_looked_at().into());
    }
    let failed = args.fail_on_change && out.changed > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn verb(change: &ResourceChange) -> &'static str {
    match change.kind() {
        ChangeKind::Created => "created",
        ChangeKind::Updated => "changed",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Unchanged | ChangeKind::Unspecified => "unchanged",
    }
}
