//! What packages ship beside the binary, out of the same definitions as `--help`: completions and man pages.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell that is to complete.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Args)]
pub struct ManArgs {
    /// An existing folder. Pages of the same names are written over.
    dir: PathBuf,
}

/// Prints a script for a shell.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // Whole before it is printed: the generator takes no error of its output.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "provost", &mut script);
    match std::io::stdout().write_all(&script) {
        // Whoever read us has gone.
        Err(gone) if gone.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS).context("PV-CLI-FILE: stdout cannot be written"),
    }
}

/// Writes a man page for every command.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let failed = || format!("PV-CLI-FILE: the man pages cannot be written to {}", args.dir.display());
    clap_mangen::generate_to(Cli::command(), &args.dir).with_context(failed)?;
    Ok(ExitCode::SUCCESS)
}
