//! `cargo run --release -p provost-gpu-sim [-- PLOT.svg]`: the comparison as a table, and as a plot
//! when a file is named.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use provost_gpu_sim::{SEEDS, compare, plot, table};

fn main() -> ExitCode {
    let summaries = compare(SEEDS);
    print!("{}", table(&summaries));
    let Some(path) = std::env::args_os().nth(1) else {
        return ExitCode::SUCCESS;
    };
    match std::fs::write(&path, plot(&summaries)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
