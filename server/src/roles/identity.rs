//! Where a node's identity comes from: its data folder, or a join token, once. With certificates of an
//! operator the folder holds only the node's number, and the certificate is read where it lies.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use provost_control_api::identity::{IdentityError, join_as, join_certified};
use provost_wire::tls::{Identity, Role};

use super::{control::mark, removed};
use crate::{
    config::{self, JoinConfig, ServerConfig},
    failure::Failure,
};

/// A node that joins waits so long for a control-plane node to be there.
const JOIN_LIMIT: Duration = Duration::from_secs(120);
/// Between two tries.
const JOIN_PAUSE: Duration = Duration::from_millis(500);

/// The number of a node that its operator certifies, below its data folder: its certificate has none.
fn number_file(config: &ServerConfig) -> PathBuf {
    config.data_dir.join("identity").join("number")
}

/// The identity of this node. The file `replica` in the folder says that the node has had a log.
pub async fn obtain(config: &ServerConfig) -> anyhow::Result<Arc<Identity>> {
    let dir = config.data_dir.join("identity");
    removed::check(&dir)?;
    let identity = match &config.tls_dir {
        None => {
            if !dir.join("cert.pem").exists() {
                let roles = config.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",");
                let own = (config.node.as_str(), roles.as_str());
                join_cluster(config, &dir, |address, token| async move {
                    let joined = join_as(&address, &token, &config.advertise, own).await?;
                    joined.material.store(&config.data_dir.join("identity"))?;
                    Ok(joined.node_id)
                })
                .await?;
            }
            Arc::new(Identity::load(&dir).map_err(|cause| {
                let hint = "put the files of this folder back as they were; where they are lost, `provost cluster remove` \
                            the node and join it anew, with an empty data_dir and a new token";
                Failure::new(cause.code(), cause.to_string(), hint)
            })?)
        }
        Some(_) => {
            let identity = Arc::new(operator_identity(config)?);
            if !number_file(config).exists() {
                let own = &identity;
                let number = join_cluster(config, &dir, |address, token| async move {
                    join_certified(&address, &token, &config.advertise, own).await
                })
                .await?;
                keep_number(config, number)?;
            }
            identity
        }
    };
    check(config, &identity)?;
    Ok(identity)
}

/// The operator's files, which must name the node of the configuration.
pub fn operator_identity(config: &ServerConfig) -> anyhow::Result<Identity> {
    let dir = config.tls_dir.as_deref().context("PV-TLS-FILE: there is no tls.dir")?;
    if config.data_dir.join("identity").join("cert.pem").exists() {
        let text = format!("{} holds a certificate of the cluster's own CA", config.data_dir.display());
        let hint = "leave out tls.dir; a cluster begins with certificates of its operator or never has them";
        return Err(Failure::new("PV-SERVER-NODE", text, hint).into());
    }
    let identity = Identity::load_operator(dir).map_err(|cause| {
        let hint = "it needs cert.pem (the node's certificate, then those up to its CA), key.pem and ca.pem, valid \
                    now, with one URI name: spiffe://CLUSTER/ROLES/NODE, roles in order with dots between";
        Failure::new(cause.code(), format!("{}: {cause}", dir.display()), hint)
    })?;
    check(config, &identity)?;
    Ok(identity)
}

/// Notes, durably, which number the cluster gave to a node that its operator certifies.
pub fn keep_number(config: &ServerConfig, number: u64) -> anyhow::Result<()> {
    let path = number_file(config);
    crate::node::keys::make_private_dir(&config.data_dir.join("identity"))?;
    mark(&path, number).with_context(|| format!("PV-SERVER-DATA: {}", path.display()))
}

/// This node's number in the cluster, and in the groups that it has a replica of.
pub fn number(config: &ServerConfig, identity: &Identity) -> anyhow::Result<u64> {
    if config.tls_dir.is_none() {
        let number = identity.name().node_id().or(identity.certified().serial_node_id);
        return number.context("PV-SERVER-NODE: the certificate has no number");
    }
    let path = number_file(config);
    let text = std::fs::read_to_string(&path).with_context(|| format!("PV-SERVER-DATA: {}", path.display()))?;
    text.trim().parse().with_context(|| format!("PV-SERVER-DATA: {} holds no number", path.display()))
}

async fn join_cluster<F>(
    config: &ServerConfig,
    dir: &Path,
    attempt: impl Fn(String, String) -> F,
) -> anyhow::Result<u64>
where
    F: Future<Output = Result<u64, IdentityError>>,
{
    let Some(JoinConfig { token_file }) = &config.join else {
        return Err(Failure::new(
            "PV-SERVER-NO-IDENTITY",
            format!("{} holds no identity: this node belongs to no cluster, or its disk was lost", dir.display()),
            "a new cluster: `provost cluster init --config FILE`; a new node: put a token of `provost cluster \
             join-token` into join.token_file; a lost node: `provost cluster remove` it and join with a new token, \
             never restore its old id",
        )
        .into());
    };
    let token = std::fs::read_to_string(token_file)
        .with_context(|| format!("PV-SERVER-JOIN: {} cannot be read", token_file.display()))?;
    let began = tokio::time::Instant::now();
    let mut last = None;
    while began.elapsed() < JOIN_LIMIT {
        for address in &config.control_plane {
            match attempt(address.clone(), token.trim().to_owned()).await {
                Ok(id) => {
                    tracing::info!(node = config.node, id, "joined");
                    return Ok(id);
                }
                Err(error) if is_final(&error) => return Err(not_joined(error)),
                Err(error) => {
                    tracing::info!(%address, code = error.code(), %error, "cannot join yet");
                    last = Some(error);
                }
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    Err(last.map_or_else(|| anyhow::anyhow!("PV-SERVER-JOIN: no control-plane node to join by"), not_joined))
}

/// With its code and what to do, which what the control plane says has already.
fn not_joined(error: IdentityError) -> anyhow::Error {
    if matches!(error, IdentityError::Refused(_)) {
        return error.into();
    }
    let hint = "does a node of `control_plane` run, and is join.token_file one of this cluster? `provost cluster \
                join-token` makes another token";
    Failure::new(error.code(), error.to_string(), hint).into()
}

/// Whether asking again cannot help.
fn is_final(error: &IdentityError) -> bool {
    match error {
        IdentityError::Refused(refusal) => refusal.code.starts_with("PV-JOIN") || refusal.code == "PV-TLS-NAME",
        IdentityError::Token(_) => true,
        _ => false,
    }
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
    // In what the cluster's own CA writes for a control-plane node the number stands first, and the name beside it.
    let has_number = config.tls_dir.is_none() && name.node_id().is_some();
    let certified = match has_number {
        true => identity.certified().dns.into_iter().next(),
        false => Some(name.id().to_owned()),
    };
    if let Some(certified) = certified.filter(|certified| *certified != config.node) {
        return Err(Failure::new(
            "PV-SERVER-NODE",
            format!("the certificate is that of {certified}, the configuration says node = {:?}", config.node),
            "a node keeps its name; to rename it, remove it and join anew",
        )
        .into());
    }
    Ok(())
}
