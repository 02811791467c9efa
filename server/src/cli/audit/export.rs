//! `provost audit export`.

use std::{
    fs::{self, File},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use provost_audit_store::{ExportError, ExportFormat, export};

use super::{
    filter::Filter,
    place::{Place, tell_absent},
};
use crate::failure::Failure;

/// As flags name it.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// JSON Lines: log, index, leaf hash and record, as stored.
    Jsonl,
    /// Open Cybersecurity Schema Framework 1.9, API Activity, one event a line.
    Ocsf,
    /// Apache Parquet, one column a key.
    Parquet,
}

#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    pub(super) filter: Filter,
    /// What to write.
    #[arg(long, value_enum)]
    format: Format,
    /// The file; it appears when it is whole. Default: standard output (not for parquet).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Read every block instead of those that the indexes name.
    #[arg(long)]
    no_index: bool,
}

pub fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let dir = args.place.resolve()?;
    let mut query = args.filter.query()?;
    query.no_index = args.no_index;
    tell_absent(&dir, query.log.as_ref());
    let format = match args.format {
        Format::Jsonl => ExportFormat::Jsonl,
        Format::Ocsf => ExportFormat::Ocsf,
        Format::Parquet => ExportFormat::Parquet,
    };
    let Some(path) = &args.output else {
        if format == ExportFormat::Parquet && io::stdout().is_terminal() {
            let text = "a Parquet file is not for a terminal";
            return Err(Failure::new("PV-AUDIT-EXPORT", text, "name a file with -o FILE").into());
        }
        return match export(&dir, query, format, io::stdout()) {
            // Whoever read us has gone.
            Err(ExportError::Write(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            ended => ended.map(|_| ExitCode::SUCCESS).map_err(anyhow::Error::from),
        };
    };
    let failed = |cause: io::Error| {
        let text = format!("{} cannot be written: {cause}", path.display());
        Failure::new("PV-AUDIT-EXPORT", text, "check the folder's space and permissions")
    };
    // Aside first: a file under its own name is whole.
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = PathBuf::from(aside);
    let out = File::create(&aside).map_err(failed)?;
    let kept = out.try_clone().map_err(failed)?;
    let finish = |count: u64| -> anyhow::Result<u64> {
        kept.sync_all().map_err(failed)?;
        fs::rename(&aside, path).map_err(failed)?;
        Ok(count)
    };
    match export(&dir, query, format, out).map_err(anyhow::Error::from).and_then(finish) {
        Ok(count) => {
            eprintln!("{count} records in {}", path.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            remove(&aside);
            Err(error)
        }
    }
}

/// A part of a file is of no use; that it cannot be removed changes nothing.
fn remove(part: &Path) {
    let _ = fs::remove_file(part);
}
