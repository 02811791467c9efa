//! `provost audit query`.

use std::{
    collections::HashMap,
    io::{self, Write},
    process::ExitCode,
    sync::atomic::Ordering,
};

use clap::Args;
use provost_audit_core::LogId;
use provost_audit_store::{Found, Prover, Query, QueryError, query};
use serde_json::{Value, json};

use super::{
    body::Names,
    filter::Filter,
    place::{Place, tell_absent},
    render::{HEADINGS, record_json, row},
};
use crate::cli::table;

#[derive(Args)]
pub struct QueryArgs {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    pub(super) filter: Filter,
    /// Only the newest so many.
    #[arg(long, default_value = "1000")]
    limit: usize,
    /// One JSON object a line: log, index, leaf_hash, record.
    #[arg(long)]
    json: bool,
    /// With each record its inclusion proof and the checkpoint that covers it (implies --json).
    #[arg(long)]
    with_proofs: bool,
    /// Read every block instead of those that the indexes name.
    #[arg(long)]
    no_index: bool,
    /// Say on stderr how much was read.
    #[arg(long)]
    stats: bool,
}

pub fn run(args: &QueryArgs, names: &Names) -> anyhow::Result<ExitCode> {
    let dir = args.place.resolve()?;
    let mut wanted = Query { limit: Some(args.limit), no_index: args.no_index, ..args.filter.query()? };
    // A name behind pseudonyms is looked for by each of them.
    if let Some(pseudonym) = args.filter.principal().and_then(|name| names.pseudonym(name)) {
        wanted.principal = Some(pseudonym.to_owned());
    }
    tell_absent(&dir, wanted.log.as_ref());
    let found = query(&dir, wanted)?;
    let stats = found.stats();
    if args.json || args.with_proofs {
        let mut provers = args.with_proofs.then(|| Provers { dir: &dir, open: HashMap::new() });
        match print_json(found, names, provers.as_mut()) {
            // Whoever read us has gone.
            Err(e) if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {}
            printed => printed?,
        }
    } else {
        let rows = found.map(|record| Ok(row(&record?, names))).collect::<anyhow::Result<Vec<_>>>()?;
        table::print(&HEADINGS, &rows);
    }
    if args.stats {
        let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        eprintln!(
            "full segments: {} blocks read, {} passed over; {} segments without an index",
            count(&stats.blocks_read),
            count(&stats.blocks_passed),
            count(&stats.without_index)
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(
    found: impl Iterator<Item = Result<Found, QueryError>>,
    names: &Names,
    mut provers: Option<&mut Provers<'_>>,
) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for record in found {
        let record = record?;
        let mut value = record_json(&record, names)?;
        if let Some(provers) = provers.as_deref_mut() {
            value["inclusion"] = provers.inclusion(&record)?;
        }
        writeln!(out, "{value}")?;
    }
    Ok(out.flush()?)
}

/// One prover a log, opened when its first record comes.
struct Provers<'a> {
    dir: &'a std::path::Path,
    open: HashMap<LogId, Option<Prover>>,
}

impl Provers<'_> {
    /// `null` for a record that no checkpoint covers yet.
    fn inclusion(&mut self, found: &Found) -> anyhow::Result<Value> {
        if !self.open.contains_key(&found.log) {
            self.open.insert(found.log.clone(), Prover::open(self.dir, &found.log)?);
        }
        let Some(Some(prover)) = self.open.get(&found.log) else { return Ok(Value::Null) };
        let path = prover.inclusion(found.index)?;
        Ok(path.map_or(Value::Null, |path| {
            let path: Vec<String> = path.iter().map(ToString::to_string).collect();
            json!({ "checkpoint": prover.checkpoint(), "path": path })
        }))
    }
}
