//! `provost plugin sign`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use provost_package::{MAX_PACKAGE_BYTES, Package, PackageError};
use serde_json::json;

use super::{files, keys};
use crate::failure::Failure;

#[derive(Args)]
pub struct SignArgs {
    /// The package.
    file: PathBuf,
    /// The publisher's private key (`provost plugin keygen`).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the signed package goes. Default: in the place of the one that is signed.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &SignArgs) -> anyhow::Result<ExitCode> {
    let key = keys::read(&args.key)?;
    let package = Package::read(files::read(&args.file, MAX_PACKAGE_BYTES)?.into());
    let package = package.and_then(|package| package.signed(&key)).map_err(|error| refused(&error))?;
    let out = args.output.as_ref().unwrap_or(&args.file);
    files::write(out, package.bytes())?;
    let (digest, signer) = (package.digest().to_string(), key.public().to_string());
    if args.json {
        let value = json!({ "file": out, "digest": digest, "signedBy": signer });
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        println!("{}: {}", out.display(), package.manifest().title());
        println!("digest: {digest}\nsigned by: {signer}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is wrong with a package, with its code.
pub(super) fn refused(error: &PackageError) -> Failure {
    Failure::new(error.code(), error.to_string(), "see docs/plugins.md for what a package has, and build it again")
}
