//! `cargo xtask COMMAND`: repository chores. See `cargo xtask help`.
#![allow(clippy::print_stdout, reason = "a command line tool prints")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use xtask::{Graph, attack_matrix, built_packages, check, check_banned, cuda_build, impure_touches};

const USAGE: &str = "\
cargo xtask arrows          fail on a dependency or a clock, file, … where the architecture forbids it
cargo xtask attack-matrix   print what the attack suite tried; fail on a case without a result
cargo xtask cuda-toolchain  bring what a build for CUDA devices needs into the user's cache; print the environment
cargo xtask cuda-build      run cargo with that and the feature `cuda`: `build --release --package provost`, or the
                            arguments that follow, such as `test --package provost-gpu-infer`";

fn main() -> Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("arrows") => arrows(),
        Some("attack-matrix") => print_matrix(),
        Some("cuda-toolchain") => cuda_build(&here()?, &[], true),
        Some("cuda-build") => cuda_build(&here()?, &std::env::args().skip(2).collect::<Vec<_>>(), false),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// The folder of this crate, as cargo says it when it runs the program: a build that is kept may be another
/// checkout's.
fn here() -> Result<PathBuf> {
    Ok(std::env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: run `cargo run -p xtask`")?
        .into())
}

fn arrows() -> Result<ExitCode> {
    let here = here()?;
    let graph = Graph::read(&here)?;
    let mut broken = check(&graph);
    broken.extend(check_banned(&built_packages(&here)?));
    broken.extend(
        impure_touches(&graph)?
            .into_iter()
            .map(|t| format!("{}:{}: {} in a pure crate", t.file.display(), t.line, t.what)),
    );
    if broken.is_empty() {
        println!("arrows: {} crates, none forbidden", graph.members.len());
        return Ok(ExitCode::SUCCESS);
    }
    for line in &broken {
        eprintln!("forbidden: {line}");
    }
    Ok(ExitCode::FAILURE)
}

fn print_matrix() -> Result<ExitCode> {
    let root = here()?.join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), std::path::PathBuf::from);
    let matrix = attack_matrix(&root, &target)?;
    print!("{}", matrix.table);
    for line in &matrix.wrong {
        eprintln!("attack matrix: {line}");
    }
    Ok(if matrix.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
