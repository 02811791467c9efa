//! The author's side of plugins: `provost plugin new|build|test|keygen|sign`.
//!
//! Purpose: from nothing to a signed package, without a node and, but for what cargo fetches, without a network.
//! Invariants: what is built and what is tested came through the engine that nodes run, so that what it refuses is
//! refused here. A private key comes from a file and is never shown.
//! Left out: packages themselves (`provost-package`), and how a node gets one (`provost plugin install`).

mod artefact;
mod build;
mod cargo;
mod files;
mod keys;
mod kit;
mod new;
mod project;
mod sign;
mod test;
mod trial;
mod wrap;
mod yaml;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Subcommand)]
pub enum AuthorCommand {
    /// Start a plugin in Rust: a project that builds, with a tool and its tests.
    #[command(after_help = "Example: provost plugin new hello --publisher acme && provost plugin test hello")]
    New(new::NewArgs),
    /// Build a project into a package: one file with component, documentation and tests.
    #[command(after_help = "Examples:\n  provost plugin build hello --key publisher.pem\n  \
                      provost plugin build --component made-elsewhere.wasm\n  provost plugin build -- --offline --locked")]
    Build(build::BuildArgs),
    /// Run a project's declared cases, or those of a package, in the engine that nodes run.
    #[command(
        after_help = "Examples:\n  provost plugin test\n  provost plugin test hello --case 'a name is greeted'\n  \
                            provost plugin test hello-0.1.0.pvp --json\n\nExits with 1 when a case fails."
    )]
    Test(test::TestArgs),
    /// Make a publisher's key; print its public half and the resource by which others trust it.
    #[command(
        after_help = "Example: provost plugin keygen publisher.pem --publisher acme-tools --tenant acme > publisher.yaml"
    )]
    Keygen(keys::KeygenArgs),
    /// Sign a package, in the place of a signature that it may have.
    #[command(after_help = "Example: provost plugin sign hello-0.1.0.pvp --key publisher.pem")]
    Sign(sign::SignArgs),
}

pub async fn run(command: AuthorCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuthorCommand::New(args) => new::run(&args),
        AuthorCommand::Build(args) => build::run(args).await,
        AuthorCommand::Test(args) => test::run(args).await,
        AuthorCommand::Keygen(args) => keys::run(&args),
        AuthorCommand::Sign(args) => sign::run(&args),
    }
}
