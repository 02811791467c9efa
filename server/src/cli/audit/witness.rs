//! `provost audit witness`: what an auditor runs.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};
use provost_audit_core::WitnessPolicy;
use tokio::net::TcpListener;

use crate::{
    dev::{lock::DirLock, stop_signal},
    failure::Failure,
    witness::{
        serve,
        state::{Witness, WitnessKey},
    },
};

#[derive(Subcommand)]
pub enum WitnessCommand {
    /// Make this witness's key, or print it: the line that policies and logs need.
    #[command(after_help = "Example: provost audit witness key --state ./w1 --name witness.example.com/w1")]
    Key(KeyArgs),
    /// Cosign checkpoints (C2SP tlog-witness) of the logs that the policy lists.
    #[command(
        after_help = "Example: provost audit witness serve --listen 0.0.0.0:8430 --state ./w1 --policy policy.txt"
    )]
    Serve(ServeArgs),
}

#[derive(Args)]
pub struct KeyArgs {
    /// Where the witness keeps its key and what it cosigned.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Its name: a URL without scheme, that you own. Needed once.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args)]
pub struct ServeArgs {
    /// Where logs reach it. Plain HTTP: put a proxy with TLS before it on a public address.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where the witness keeps its key and what it cosigned. Losing it ends this witness.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// A C2SP tlog-policy whose `log` lines name the logs to cosign.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
}

/// Runs the command.
pub async fn run(command: WitnessCommand) -> anyhow::Result<ExitCode> {
    match command {
        WitnessCommand::Key(args) => {
            let key = WitnessKey::make(&args.state, args.name.as_deref())?;
            println!("{}", key.public().to_text());
        }
        WitnessCommand::Serve(args) => {
            let _lock = DirLock::take(&args.state)?;
            let policy = read_policy(&args.policy)?;
            let witness = Witness::open(&args.state, policy)?;
            let listener = TcpListener::bind(args.listen).await.map_err(|cause| {
                let text = format!("cannot listen on {}: {cause}", args.listen);
                Failure::new("PV-NODE-LISTEN", text, "is another server running there? choose another port")
            })?;
            let stop = stop_signal()?;
            println!("{}", witness.public().to_text());
            println!("http://{}", listener.local_addr()?);
            serve::serve(listener, witness, stop).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read_policy(path: &PathBuf) -> anyhow::Result<WitnessPolicy> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("PV-WITNESS-POLICY: {name} cannot be read"))?;
    WitnessPolicy::parse(&text).map_err(|cause| {
        let hint = "see c2sp.org/tlog-policy and docs/witness.md";
        Failure::new("PV-WITNESS-POLICY", format!("{name}: {cause}"), hint).into()
    })
}
