//! `provost audit index`: makes the indexes of a copy, or compares them with the records.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use provost_audit_store::build_indexes;
use provost_audit_verify::{LogLayout, check_indexes, list_logs};

use super::{place::Place, render::log_name};

#[derive(Args)]
pub struct IndexArgs {
    /// The audit directory. Default: that of the running `provost dev`.
    path: Option<PathBuf>,
    /// Make nothing: make each index again in memory and compare it with the stored one. Ends with
    /// 1 where one hides records.
    #[arg(long)]
    check: bool,
}

pub fn run(args: &IndexArgs) -> anyhow::Result<ExitCode> {
    let data_dir = std::env::var_os("PROVOST_DATA_DIR").map(PathBuf::from);
    let dir = Place { dir: args.path.clone(), data_dir }.resolve()?;
    if !args.check {
        let made = build_indexes(&dir)?;
        println!("{made} indexes made");
        return Ok(ExitCode::SUCCESS);
    }
    let mut wrong = false;
    for log in list_logs(&dir)? {
        let check = check_indexes(&LogLayout::new(dir.join(log.folder())))?;
        println!("log {}: {} indexes are right, {} segments have none", log_name(&log), check.good, check.absent);
        for fault in check.faults {
            wrong = true;
            let place = fault.hidden.map(|index| format!(", first hidden record {index}")).unwrap_or_default();
            println!("  {}: {}{place}", fault.file.display(), fault.what);
        }
    }
    if wrong {
        eprintln!(
            "error: PV-AUDIT-INDEX: an index is not its segment's\n  next: remove the .idx files named above; a node makes them again"
        );
    }
    Ok(ExitCode::from(u8::from(wrong)))
}
