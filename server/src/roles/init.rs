//! `provost cluster init`: the first node of a new cluster, made offline in its data folder.

use std::{collections::BTreeMap, sync::Arc};

use provost_control_api::{Bootstrap, Bootstrapped, RestoredNode};
use provost_types::{AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture, Name};
use provost_wire::tls::Roles;

use super::control;
use crate::config::{Role, ServerConfig};

/// The first node is made before there is a log: nothing that must be recorded happens here.
struct NoLogYet;

impl AuditSink for NoLogYet {
    fn record(&self, _: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        Box::pin(std::future::ready(Err(AuditUnavailable("the cluster is being made".to_owned()))))
    }
}

/// Makes the cluster, with join tokens for the nodes that are to follow at once.
pub async fn init(
    config: &ServerConfig,
    cluster: &Name,
    joining: BTreeMap<Name, Roles>,
) -> anyhow::Result<Bootstrapped> {
    if !config.has(Role::ControlPlane) {
        anyhow::bail!("PV-CLUSTER-INIT: the first node needs the role control-plane");
    }
    crate::node::keys::make_private_dir(&config.data_dir)?;
    let identity = config.data_dir.join("identity");
    let node_id = first_id(config, cluster)?;
    let node = control::open_alone(config, cluster.as_str(), node_id, Arc::new(NoLogYet)).await?;
    let wanted = Bootstrap {
        cluster: cluster.clone(),
        node: Name::new(&config.node)?,
        roles: config.certified_roles()?,
        address: config.advertise.clone(),
        certificate_life: config.certificate_ttl,
        joining: joining.into_iter().collect(),
    };
    let made = node.bootstrap(wanted, &identity).await;
    node.shutdown().await?;
    let made = made?;
    control::mark(&identity.join("replica"), node_id)?;
    Ok(made)
}

/// 1, but in a folder that a backup was restored into: ids of the old cluster are not given again.
fn first_id(config: &ServerConfig, cluster: &Name) -> anyhow::Result<u64> {
    match RestoredNode::read(&config.data_dir)? {
        None => Ok(1),
        Some(restored) if restored.cluster == cluster.as_str() => Ok(restored.node_id),
        Some(restored) => anyhow::bail!(
            "PV-CLUSTER-INIT: {} was restored as cluster {}, not {cluster}",
            config.data_dir.display(),
            restored.cluster
        ),
    }
}
