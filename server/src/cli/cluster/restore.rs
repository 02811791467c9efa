//! `provost cluster restore`: a new cluster from a backup, while nothing runs.

use std::path::{Path, PathBuf};

use clap::Args;
use provost_control_api::{LocalFileKey, RestoreTarget, Restored, restore_backup};
use serde_json::json;

use super::{
    backup::{ours, sentence, value},
    files, tell,
};
use crate::failure::Failure;

#[derive(Args)]
pub struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// An empty or missing folder: the new node's data.
    #[arg(long)]
    data_dir: PathBuf,
    /// The new cluster's name; not the old one's.
    #[arg(long)]
    cluster: String,
    /// Where other nodes will reach this one, `HOST:PORT`; not needed for a cluster of one.
    #[arg(long, default_value = "")]
    address: String,
    /// A file with the age identity that decrypts the backup.
    #[arg(long, value_name = "FILE")]
    age_identity: Option<PathBuf>,
    /// The old cluster's `secrets.key`, if that is how its data keys were wrapped. One that does not open them is
    /// refused.
    #[arg(long, value_name = "FILE")]
    secrets_key: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: RestoreArgs) -> anyhow::Result<()> {
    let json = args.json;
    let (data_dir, cluster) = (args.data_dir.clone(), args.cluster.clone());
    let has_key = args.secrets_key.is_some();
    let Restored { summary, node } = tokio::task::spawn_blocking(move || restore(&args)).await??;
    let mut result = value(&summary);
    result["restored_as"] = json!(cluster);
    result["node_id"] = json!(node.node_id);
    let text = || {
        let keys = if has_key {
            ""
        } else {
            "\nsecrets open once this node has the old cluster's key provider (Vault, or its secrets.key)"
        };
        format!(
            "restored into {} as cluster {cluster}, a group of node {} alone: {}\n\
             not taken over: members, the CA, join tokens and administrators' tokens; initialise the cluster and let \
             nodes join again. Units of quotas that nodes held count as used.{keys}",
            data_dir.display(),
            node.node_id,
            sentence(&summary)
        )
    };
    tell(json, text, result)
}

fn restore(args: &RestoreArgs) -> anyhow::Result<Restored> {
    let source = files::open(&args.file, args.age_identity.as_deref())?;
    let target = RestoreTarget {
        data_dir: args.data_dir.clone(),
        cluster: args.cluster.clone(),
        address: args.address.clone(),
        secrets_key: args.secrets_key.clone(),
    };
    let restored = restore_backup(source, &target).map_err(ours)?;
    if let Some(key) = &args.secrets_key {
        copy_key(key, &args.data_dir)?;
    }
    Ok(restored)
}

fn copy_key(key: &Path, data_dir: &Path) -> anyhow::Result<()> {
    LocalFileKey::copy(key, &data_dir.join("secrets.key")).map_err(|cause| {
        let text = format!("the state was restored, but {} was not copied: {cause}", key.display());
        let hint = format!("copy it to {} with mode 600", data_dir.join("secrets.key").display());
        Failure::new(cause.code(), text, hint).into()
    })
}
