//! `provost cluster init`: the first node of a new cluster, made offline in its data folder.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use provost_control_api::{Bootstrap, Bootstrapped, ControlError, RestoredNode};
use provost_types::{AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture, Name};
use provost_wire::tls::{NodeName, Roles};

use super::control;
use crate::{
    config::{KeySource, Role, ServerConfig},
    failure::Failure,
};

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
    let operator_ca = match &config.tls_dir {
        None => None,
        Some(_) => Some(operator_ca(config, cluster)?),
    };
    let restored = restored(config, cluster)?;
    // Ids of the old cluster are not given again.
    let node_id = restored.as_ref().map_or(1, |restored| restored.node_id);
    // What was restored is sealed: a key that were made here would open none of it.
    let may_make_key = restored.is_none();
    let node = control::open_alone(config, cluster.as_str(), node_id, may_make_key, Arc::new(NoLogYet)).await?;
    // Vault is asked when it is needed, and not from here.
    if matches!(config.keys, KeySource::File { .. })
        && let Err(error) = node.opens_keys()
    {
        let next =
            "put the old cluster's key at keys.path before the first start; if it is lost, set every secret anew";
        tracing::warn!(code = error.code(), %error, next, "the secrets that were restored do not open");
    }
    let wanted = Bootstrap {
        cluster: cluster.clone(),
        node: Name::new(&config.node)?,
        roles: config.certified_roles()?,
        address: config.advertise.clone(),
        operator_ca: operator_ca.clone(),
        certificate_life: config.certificate_ttl,
        joining: joining.into_iter().collect(),
    };
    let made = node.bootstrap(wanted, &identity).await;
    node.shutdown().await?;
    let made = made.map_err(|error| unless_cut_off(error, &identity))?;
    if operator_ca.is_some() {
        super::identity::keep_number(config, node_id)?;
    }
    control::mark(&identity.join("replica"), node_id)?;
    Ok(made)
}

/// A cluster that was made, but not to the end, is of no use: nobody was told its administrator's token.
fn unless_cut_off(error: ControlError, identity: &Path) -> anyhow::Error {
    // The mark is written last, and again by a server that runs.
    if error.code() != "PV-CLUSTER-INITIALIZED" || identity.join("replica").exists() {
        return error.into();
    }
    // A node that served and lost its `identity` looks the same: what it holds is not to be thrown away by our advice.
    let hint = "if it never served, nobody has its administrator's token: empty the data_dir, and make the cluster again; if it \
                served, keep the data_dir and put its folder `identity` back";
    Failure::new(error.code(), "an earlier `cluster init` was cut off in this folder", hint).into()
}

/// The operator's authorities; its certificate must be for the first node of this cluster.
fn operator_ca(config: &ServerConfig, cluster: &Name) -> anyhow::Result<String> {
    let identity = super::identity::operator_identity(config)?;
    let wanted = NodeName::new(cluster.clone(), config.certified_roles()?, Name::new(&config.node)?);
    if identity.name() != wanted {
        let text = format!("the certificate is for {}, this is to be {wanted}", identity.name());
        return Err(Failure::new("PV-TLS-NAME", text, "certify the node under that name").into());
    }
    Ok(identity.bundle())
}

/// What a backup left in the folder; `None`: nothing was restored there.
fn restored(config: &ServerConfig, cluster: &Name) -> anyhow::Result<Option<RestoredNode>> {
    match RestoredNode::read(&config.data_dir)? {
        None => Ok(None),
        Some(restored) if restored.cluster == cluster.as_str() => Ok(Some(restored)),
        Some(restored) => anyhow::bail!(
            "PV-CLUSTER-INIT: {} was restored as cluster {}, not {cluster}",
            config.data_dir.display(),
            restored.cluster
        ),
    }
}
