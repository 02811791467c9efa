//! `provost audit tail`.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use provost_audit_core::LogId;
use provost_audit_store::{Follower, Found, Query, query};

use super::{
    body::Names,
    filter::Filter,
    place::{Place, log_id, tell_absent},
    render::{log_name, record_json, row},
};
use crate::failure::Failure;

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(200);
/// Records and bytes of one look.
const MAX_BATCH: (usize, usize) = (1_024, 4 << 20);

#[derive(Args)]
pub struct TailArgs {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    pub(super) filter: Filter,
    /// Go on as records come, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Begin with the newest so many.
    #[arg(short = 'n', long, default_value = "10", conflicts_with = "from")]
    lines: usize,
    /// Begin with this record of a log, such as `acme:1200` or `cluster:7`; may be given for several
    /// logs. To go on after a line of --json, give its log and its index plus one. Other logs begin
    /// at their end.
    #[arg(long, value_name = "LOG:INDEX", value_parser = parse_place)]
    from: Vec<(String, u64)>,
    /// One JSON object a line: log, index, leaf_hash, record.
    #[arg(long)]
    json: bool,
}

fn parse_place(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("`{text}` is not LOG:INDEX, such as acme:1200");
    let (log, index) = text.rsplit_once(':').ok_or_else(wrong)?;
    Ok((log.to_owned(), index.parse().map_err(|_| wrong())?))
}

pub fn run(args: &TailArgs, names: &Names) -> anyhow::Result<ExitCode> {
    match follow(args, names) {
        // Whoever read us has gone.
        Err(e) if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        other => other,
    }
}

fn follow(args: &TailArgs, names: &Names) -> anyhow::Result<ExitCode> {
    let dir = args.place.resolve()?;
    let wanted = args.filter.query()?;
    tell_absent(&dir, wanted.log.as_ref());
    let mut follower = Follower::new(&dir, wanted.log.clone().into_iter().collect());
    for (log, index) in &args.from {
        let log = log_id(log)?;
        refuse_other(&wanted, &log)?;
        follower.set(log, *index);
    }
    // The ends first: what comes after them is followed, what lies before them is looked up.
    follower.skip_to_end()?;
    let mut out = io::stdout().lock();
    if args.from.is_empty() {
        let ends = follower.positions();
        for found in newest(&dir, &wanted, args.lines, &ends)? {
            print(&mut out, &found, names, args.json)?;
        }
    }
    loop {
        let batch = follower.poll(MAX_BATCH.0, MAX_BATCH.1)?;
        let ended = batch.is_empty();
        for found in batch.iter().filter(|found| wanted.wants(&found.record)) {
            print(&mut out, found, names, args.json)?;
        }
        out.flush()?;
        if ended && !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        if ended {
            std::thread::sleep(POLL);
        }
    }
}

fn refuse_other(wanted: &Query, log: &LogId) -> anyhow::Result<()> {
    if wanted.log.as_ref().is_some_and(|only| only != log) {
        let text = format!("--from names the log of {}, --tenant another", log_name(log));
        return Err(Failure::new("PV-CLI-TENANT", text, "name the same log in both").into());
    }
    Ok(())
}

fn newest(dir: &Path, wanted: &Query, lines: usize, ends: &BTreeMap<LogId, u64>) -> anyhow::Result<Vec<Found>> {
    let query_of = Query { limit: Some(lines), ..wanted.clone() };
    let found = query(dir, query_of)?.collect::<Result<Vec<_>, _>>()?;
    let before = |f: &Found| ends.get(&f.log).is_some_and(|end| f.index < *end);
    Ok(found.into_iter().filter(before).collect())
}

fn print(out: &mut impl Write, found: &Found, names: &Names, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", record_json(found, names)?)?;
    } else {
        let cells = row(found, names);
        let cells: Vec<&str> = cells.iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
        writeln!(out, "{}", cells.join("  "))?;
    }
    Ok(())
}
