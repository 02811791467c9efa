//! `provost cluster`: the cluster's nodes, keys and backups.

mod backup;
mod files;
mod init;
mod restore;
mod status;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use provost_wire::admin;
use serde_json::{Value, json};

use super::{
    AdminArgs,
    admin::{connect, failed},
    secrets::parse_duration,
};

#[derive(Subcommand)]
pub enum ClusterCommand {
    /// Make a new cluster, offline, in the data folder of its first node.
    #[command(
        after_help = "Example: provost cluster init --config provost.toml --cluster prod --join cp-2=control-plane"
    )]
    Init(init::InitArgs),
    /// Show the cluster's members, and the nodes that take configuration from it.
    #[command(after_help = "Example: provost cluster status --json")]
    Status(status::StatusArgs),
    /// Make a token with which one node can join, once.
    #[command(after_help = "Example: provost cluster join-token --role data-plane --node edge-1 --ttl 10m > token")]
    JoinToken(JoinTokenArgs),
    /// Let a node in: make the join token that it is started with. A control-plane node begins as a
    /// learner, and votes once it has kept up.
    #[command(after_help = "Example: provost cluster add cp-4 > token\n         \
                            provost cluster add edge-1 --role data-plane --ttl 10m > token")]
    Add(AddArgs),
    /// Take a node out of the cluster for good. Its id is never used again.
    #[command(after_help = "Example: provost cluster remove cp-3")]
    Remove(NodeArgs),
    /// Make a learner a voter now, without waiting until it is promoted by itself.
    #[command(after_help = "Example: provost cluster promote cp-4")]
    Promote(NodeArgs),
    /// Move the lead to another voter, such as before maintenance.
    #[command(after_help = "Example: provost cluster transfer-leader cp-2")]
    TransferLeader(NodeArgs),
    /// Write the whole control state to a file, while the cluster runs; or verify such a file.
    #[command(after_help = "Example: provost cluster backup monday.pvb --age-recipient age1…\n         \
                            provost cluster backup --verify monday.pvb --age-identity key.txt")]
    Backup(backup::BackupArgs),
    /// Make a new cluster from a backup, offline. The old cluster's name, members, join tokens and
    /// CA are not taken over.
    #[command(after_help = "Example: provost cluster restore monday.pvb --data-dir /var/lib/provost --cluster prod-2")]
    Restore(restore::RestoreArgs),
    /// Let every node run the newest revision now, also where a NodeGroup holds it back or it was
    /// halted.
    #[command(after_help = "Example: provost cluster release")]
    Release(PlainArgs),
    /// Make a new data key and seal every secret again under it.
    #[command(after_help = "Example: provost cluster rotate-keys")]
    RotateKeys(PlainArgs),
    /// Print the certificates of the cluster's CA, as PEM: what agents trust where the CA certifies
    /// data-plane nodes for them.
    #[command(after_help = "Example: provost cluster ca > ca.pem")]
    Ca(PlainArgs),
    /// Change the CA in three steps: `begin` (both are trusted), `commit` (the new one signs),
    /// `finish` (the old one is dropped).
    #[command(after_help = "Example: provost cluster rotate-ca begin")]
    RotateCa(RotateCaArgs),
}

#[derive(Args)]
pub struct JoinTokenArgs {
    /// What the node will run: `control-plane`, `data-plane`, `gpu-node`, `audit-log`; several
    /// separated by commas.
    #[arg(long)]
    role: String,
    /// The node's name.
    #[arg(long)]
    node: String,
    /// How long the token is good for, at most (and by default) 15 minutes.
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Args)]
pub struct AddArgs {
    /// The node's name.
    node: String,
    /// What the node will run: `control-plane`, `data-plane`, `gpu-node`, `audit-log`; several
    /// separated by commas.
    #[arg(long, default_value = "control-plane")]
    role: String,
    /// How long the token is good for, at most (and by default) 15 minutes.
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Args)]
pub struct NodeArgs {
    /// The node's name or id.
    node: String,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Args)]
pub struct RotateCaArgs {
    /// Which step.
    step: CaStep,
    /// Take the step although nodes may not have renewed yet: those that have not are cut off.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum CaStep {
    Begin,
    Commit,
    Finish,
}

impl CaStep {
    fn as_str(self) -> &'static str {
        match self {
            CaStep::Begin => "begin",
            CaStep::Commit => "commit",
            CaStep::Finish => "finish",
        }
    }
}

#[derive(Args)]
pub struct PlainArgs {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs one of them.
pub async fn run(command: ClusterCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Init(args) => return init::run(args).await,
        ClusterCommand::Status(args) => status::run(args).await?,
        ClusterCommand::JoinToken(args) => join_token(args).await?,
        ClusterCommand::Add(args) => add(args).await?,
        ClusterCommand::Remove(args) => {
            let (mut client, _) = connect(&args.plain.admin).await?;
            let request = admin::RemoveNodeRequest { node: args.node.clone() };
            let done = client.remove_node(request).await.map_err(failed)?.into_inner();
            tell_membership(&args.plain, &format!("{} is no longer a member", args.node), &done)?;
        }
        ClusterCommand::Promote(args) => {
            let (mut client, _) = connect(&args.plain.admin).await?;
            let request = admin::PromoteNodeRequest { node: args.node.clone() };
            let done = client.promote_node(request).await.map_err(failed)?.into_inner();
            tell_membership(&args.plain, &format!("{} votes", args.node), &done)?;
        }
        ClusterCommand::TransferLeader(args) => {
            let (mut client, _) = connect(&args.plain.admin).await?;
            let request = admin::TransferLeaderRequest { node: args.node.clone() };
            let done = client.transfer_leader(request).await.map_err(failed)?.into_inner();
            tell_membership(&args.plain, &format!("{} leads", args.node), &done)?;
        }
        ClusterCommand::Backup(args) => backup::run(args).await?,
        ClusterCommand::Restore(args) => restore::run(args).await?,
        ClusterCommand::Release(args) => release(args).await?,
        ClusterCommand::RotateKeys(args) => rotate_keys(args).await?,
        ClusterCommand::Ca(args) => ca(args).await?,
        ClusterCommand::RotateCa(args) => rotate_ca(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a result: JSON, or a sentence.
fn tell(json: bool, sentence: impl FnOnce() -> String, value: Value) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        println!("{}", sentence());
    }
    Ok(())
}

fn tell_membership(args: &PlainArgs, done: &str, now: &admin::MembershipResponse) -> anyhow::Result<()> {
    let admin::MembershipResponse { voters, learners, leader_id } = now;
    let sentence = || format!("{done}; voters {voters:?}, learners {learners:?}, leader {leader_id}");
    tell(args.json, sentence, json!({ "voters": voters, "learners": learners, "leader_id": leader_id }))
}

async fn join_token(args: JoinTokenArgs) -> anyhow::Result<()> {
    let (mut client, _) = connect(&args.plain.admin).await?;
    let ttl_seconds = args.ttl.map_or(0, |ttl| ttl.as_secs());
    let request = admin::JoinTokenRequest { role: args.role, node: args.node, ttl_seconds };
    let made = client.join_token(request).await.map_err(failed)?.into_inner();
    if !args.plain.json {
        // The token alone on stdout, so that it can go straight into a file.
        eprintln!("shown this once; good for one node until {}", made.expires);
    }
    let sentence = || made.token.clone();
    tell(args.plain.json, sentence, json!({ "token": made.token, "expires": made.expires }))
}

/// The same as `join-token`, with what to do next.
async fn add(args: AddArgs) -> anyhow::Result<()> {
    let AddArgs { node, role, ttl, plain } = args;
    let next = (!plain.json).then(|| {
        format!(
            "next: put it into the file that `join.token_file` of {node} names, then on that machine: provost server \
             --config FILE; `provost cluster status` shows it"
        )
    });
    join_token(JoinTokenArgs { role, node, ttl, plain }).await?;
    if let Some(next) = next {
        eprintln!("{next}");
    }
    Ok(())
}

async fn release(args: PlainArgs) -> anyhow::Result<()> {
    let (mut client, _) = connect(&args.admin).await?;
    let revision = client.release(admin::ReleaseRequest {}).await.map_err(failed)?.into_inner().revision;
    tell(args.json, || format!("every node may run revision {revision}"), json!({ "revision": revision }))
}

async fn rotate_keys(args: PlainArgs) -> anyhow::Result<()> {
    let (mut client, _) = connect(&args.admin).await?;
    let done = client.rotate_keys(admin::RotateKeysRequest {}).await.map_err(failed)?.into_inner();
    let sentence = || format!("data key {} is in use; {} secrets were sealed again", done.term, done.sealed);
    tell(args.json, sentence, json!({ "term": done.term, "sealed": done.sealed }))
}

async fn ca(args: PlainArgs) -> anyhow::Result<()> {
    let (mut client, _) = connect(&args.admin).await?;
    let bundle = client.authorities(admin::AuthoritiesRequest {}).await.map_err(failed)?.into_inner().bundle;
    tell(args.json, || bundle.trim_end().to_owned(), json!({ "ca": bundle }))
}

async fn rotate_ca(args: RotateCaArgs) -> anyhow::Result<()> {
    let (mut client, _) = connect(&args.plain.admin).await?;
    let request =
        admin::RotateCaRequest { step: format!("{}{}", args.step.as_str(), if args.force { ":force" } else { "" }) };
    let authorities = client.rotate_ca(request).await.map_err(failed)?.into_inner().authorities;
    let next = match args.step {
        CaStep::Begin => "wait until every node has renewed its bundle, then: provost cluster rotate-ca commit",
        CaStep::Commit => "wait until every node has a new certificate, then: provost cluster rotate-ca finish",
        CaStep::Finish => "done",
    };
    let sentence = || format!("authorities, the signing one first: {}\n{next}", authorities.join(", "));
    tell(args.plain.json, sentence, json!({ "authorities": authorities }))
}

#[cfg(test)]
mod tests;
