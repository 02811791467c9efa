//! `provost audit reader-token`: a token for the tiles of one log.

use std::process::ExitCode;

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::tiles::readers::new_token;

#[derive(Args)]
pub struct ReaderTokenArgs {
    /// The log: a tenant, `cluster`, or `*` for all.
    #[arg(long)]
    log: String,
    /// Print as JSON: token, line.
    #[arg(long)]
    json: bool,
}

/// Prints the token, which is nowhere else, and the line for the readers' file.
pub fn run(args: &ReaderTokenArgs) -> anyhow::Result<ExitCode> {
    let (token, line) = new_token(&args.log)?;
    if args.json {
        println!("{}", json!({ "token": token.expose_secret(), "line": line }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", token.expose_secret());
    println!("{line}");
    Ok(ExitCode::SUCCESS)
}
