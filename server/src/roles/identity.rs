//! Where a node's identity comes from: its data folder, or a join token, once.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use provost_control_api::identity::{IdentityError, join};
use provost_wire::tls::{Identity, Role};

use crate::{
    config::{self, ServerConfig},
    failure::Failure,
};

/// A node that joins waits so long for a control-plane node to be there.
const JOIN_LIMIT: Duration = Duration::from_secs(120);
/// Between two tries.
const JOIN_PAUSE: Duration = Duration::from_millis(500);

/// The identity of this node. The file `replica` in the folder says that the node has had a log.
pub async fn obtain(config: &ServerConfig) -> anyhow::Result<Arc<Identity>> {
    let dir = config.data_dir.join("identity");
    if !dir.join("cert.pem").exists() {
        join_cluster(config, &dir).await?;
    }
    let identity = Identity::load(&dir)?;
    check(config, &identity)?;
    Ok(Arc::new(identity))
}

async fn join_cluster(config: &ServerConfig, dir: &Path) -> anyhow::Result<()> {
    let Some(joining) = &config.join else {
        return Err(Failure::new(
            "PV-SERVER-NO-IDENTITY",
            format!("{} holds no identity: this node belongs to no cluster, or its disk was lost", dir.display()),
            "a new cluster: `provost cluster init --config FILE`; a new node: put a token of `provost cluster \
             join-token` into join.token_file; a lost node: `provost cluster remove` it and join with a new token, \
             never restore its old id",
        )
        .into());
    };
    let token = std::fs::read_to_string(&joining.token_file)
        .with_context(|| format!("PV-SERVER-JOIN: {} cannot be read", joining.token_file.display()))?;
    let began = tokio::time::Instant::now();
    let mut last = None;
    while began.elapsed() < JOIN_LIMIT {
        for address in &config.control_plane {
            match join(address, token.trim(), &config.advertise).await {
                Ok(joined) => {
                    joined.material.store(dir)?;
                    tracing::info!(node = %joined.name, id = joined.node_id, "joined");
                    return Ok(());
                }
                Err(IdentityError::Refused(refusal)) if refusal.code.starts_with("PV-JOIN") => {
                    return Err(IdentityError::Refused(refusal).into());
                }
                Err(error) => {
                    tracing::info!(%address, code = error.code(), %error, "cannot join yet");
                    last = Some(error);
                }
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    Err(last.map_or_else(|| anyhow::anyhow!("PV-SERVER-JOIN: no control-plane node to join by"), Into::into))
}

/// The configuration and the certificate must speak of the same node.
fn check(config: &ServerConfig, identity: &Identity) -> anyhow::Result<()> {
    let name = identity.name();
    let certified: Vec<&str> = name.roles().iter().map(|r: Role| r.as_str()).collect();
    let missing: Vec<&str> =
        config.roles.iter().map(|r: &config::Role| r.as_str()).filter(|r| !certified.contains(r)).collect();
    if !missing.is_empty() {
        return Err(Failure::new(
            "PV-SERVER-ROLES",
            format!("{name} has no certificate for {}", missing.join(", ")),
            "join with a token for these roles, or leave them out of `roles`",
        )
        .into());
    }
    if name.node_id().is_none() && name.id() != config.node {
        return Err(Failure::new(
            "PV-SERVER-NODE",
            format!("the certificate is that of {}, the configuration says node = {:?}", name.id(), config.node),
            "a node keeps its name; to rename it, remove it and join anew",
        )
        .into());
    }
    Ok(())
}
