//! `provost bridge`: MCP over stdio on this side, a cluster on the other, for clients that start their
//! servers as processes (desktop applications, editors).
//!
//! Purpose: messages of both eras pass through as they are, in both directions. Invariants: a request that
//! went out is answered once, by the server or, if the connection was lost, by an error of ours; what may
//! have run is never sent again; stdout holds messages only, one a line; the token is in no argument.
//!
//! Left out: what needs a meaning of messages (policy, limits, audit): the cluster does it.

mod book;
mod lines;
mod relay;
mod reply;

use std::process::ExitCode;

use clap::Args;

use self::relay::Relay;
use crate::cli::endpoint::PlaceArgs;

/// What `provost bridge` is told.
#[derive(Args)]
pub struct BridgeArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs until stdin ends.
pub async fn run(args: BridgeArgs) -> anyhow::Result<ExitCode> {
    // Not a flag: arguments of a process are there for everybody on the machine to see.
    let token = std::env::var("PROVOST_TOKEN").ok();
    let context = args.place.resolve(token.as_deref())?;
    let from_client = lines::read(tokio::io::stdin());
    let (to_client, writer) = lines::write(tokio::io::stdout());
    let outcome = Relay::new(context.connector, from_client, to_client).run().await;
    // The queue is closed; what is in it goes out, unless the client does not read.
    let _ = tokio::time::timeout(lines::LAST_LINES, writer).await;
    outcome.map(|()| ExitCode::SUCCESS)
}
