//! Where a project's component comes from.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use provost_package::MAX_PACKAGE_BYTES;

use super::{cargo, files, project::Project, wrap};
use crate::failure::Failure;

#[derive(Args, Clone)]
pub struct ArtefactArgs {
    /// Take this component instead of the project's own.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Arguments for cargo, such as `--offline --locked`.
    #[arg(last = true, value_name = "CARGO_ARG")]
    cargo: Vec<String>,
}

/// The component; built now where the project says so.
pub(super) async fn obtain(project: &Project, args: &ArtefactArgs) -> anyhow::Result<Bytes> {
    let (project, args) = (project.clone(), args.clone());
    // Reads files and waits for cargo: it has a thread of its own.
    Ok(tokio::task::spawn_blocking(move || made(&project, &args)).await??)
}

fn made(project: &Project, args: &ArtefactArgs) -> Result<Bytes, Failure> {
    let file = match (&args.component, &project.said.component) {
        (Some(file), _) => file.clone(),
        (None, Some(named)) => project.path(named),
        (None, None) => return Ok(wrap::component(cargo::build(&project.dir, &args.cargo)?)?.into()),
    };
    Ok(wrap::component(files::read(&file, MAX_PACKAGE_BYTES)?)?.into())
}
