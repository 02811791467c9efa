//! `provost cluster init`: a new cluster, offline, in the data folder of its first node.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use provost_types::Name;
use provost_wire::tls::{Role, Roles};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::{config, dev::lock::DirLock, roles};

#[derive(Args)]
pub struct InitArgs {
    /// The first node's configuration, as for `provost server`.
    #[arg(long, value_name = "FILE", env = "PROVOST_CONFIG")]
    config: PathBuf,
    /// The cluster's name; it never changes.
    #[arg(long)]
    cluster: String,
    /// Certificates of your own: a folder with cert.pem, key.pem and ca.pem (instead of `tls.dir`). The
    /// cluster then has no CA, and every node needs such a folder.
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Also make a join token, good for 15 minutes: `NODE=ROLE[,ROLE…]`. May be repeated.
    #[arg(long, value_name = "NODE=ROLES", value_parser = joining)]
    join: Vec<(Name, Roles)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `+` separates roles too: so they were once written.
fn joining(text: &str) -> Result<(Name, Roles), String> {
    let (node, roles) = text.split_once('=').ok_or("write it as NODE=ROLE, such as cp-2=control-plane")?;
    let roles: Result<Vec<Role>, _> = roles.split([',', '+']).map(str::parse).collect();
    let roles = roles.and_then(Roles::new).map_err(|e| e.to_string())?;
    Ok((Name::new(node).map_err(|e| e.to_string())?, roles))
}

/// Makes the cluster and prints what is shown only once.
pub async fn run(args: InitArgs) -> anyhow::Result<ExitCode> {
    let mut config = roles::run::load(&args.config)?;
    config.tls_dir = args.tls_dir.clone().or(config.tls_dir);
    let cluster = Name::new(&args.cluster).context("PV-CLUSTER-INIT: --cluster")?;
    let _lock = DirLock::take(&config.data_dir)?;
    let join: BTreeMap<Name, Roles> = args.join.into_iter().collect();
    let keeps_log = config.has(config::Role::AuditLog) || join.values().any(|roles| roles.has(Role::AuditLog));
    let made = roles::init::init(&config, &cluster, join).await?;
    let ca = config.data_dir.join("ca.pem");
    std::fs::write(&ca, &made.ca).with_context(|| format!("PV-CLUSTER-INIT: {}", ca.display()))?;
    let tokens: BTreeMap<String, &str> =
        made.join_tokens.iter().map(|(node, token)| (node.to_string(), token.expose_secret())).collect();
    if args.json {
        let made = json!({
            "cluster": cluster.as_str(), "admin_token": made.admin_token.expose_secret(),
            "ca": ca, "join_tokens": tokens,
        });
        println!("{made}");
        return Ok(ExitCode::SUCCESS);
    }
    match &config.tls_dir {
        None => println!("Cluster {cluster} is made. Its CA: {}", ca.display()),
        Some(dir) => {
            println!("Cluster {cluster} is made, with certificates of {}. Its CA: {}", dir.display(), ca.display())
        }
    }
    println!("\nThe administrator's token, shown this once:\n  {}", made.admin_token.expose_secret());
    for (node, token) in &tokens {
        println!("\nJoin token of {node}, good for 15 minutes:\n  {token}");
    }
    println!("\nNext: provost server --config {}", args.config.display());
    if !keeps_log {
        println!(
            "No node keeps the audit log yet, without which nothing is changed: provost cluster add NAME --role audit-log"
        );
    }
    Ok(ExitCode::SUCCESS)
}
