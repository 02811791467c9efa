//! Keeps this node's certificate good.
//!
//! Invariants: a certificate that ended while the node was off, or that begins only in time to come (a
//! clock was ahead), is replaced before other nodes are served with it; where that cannot be, the log says
//! so with what to do, and a data plane serves its last state all the same. A node that may not come back
//! does not start.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use provost_control_api::identity::{
    AgentCertificate, CertifyAgents, IdentityError, LocalRenewer, Registry, RemoteRenewer, Renewer, renew_loop,
    renew_on_authority_change, renew_once,
};
use provost_wire::tls::{Identity, follow_operator};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{control::ControlRole, until};
use crate::{
    agent_tls::{Current, certified_by_cluster},
    config::ServerConfig,
    failure::Failure,
    node::doors::{AgentTls, Following},
};

/// Between two looks at an operator's files.
const OPERATOR_LOOK: Duration = Duration::from_secs(5);
/// What the node is told, and what people are.
const EXPIRED: &str = "PV-TLS-EXPIRED";
const EXPIRED_HINT: &str = "start a control-plane node that this one can reach; a node that is no longer let in is \
                            removed (`provost cluster remove`) and joins anew, with an empty data_dir and a new token";

/// Gets new certificates for this node.
pub struct Keeper {
    identity: Arc<Identity>,
    dir: PathBuf,
    /// In the order in which they are asked for a certificate that does not hold; the first renews.
    renewers: Vec<Arc<dyn Renewer>>,
    /// How many control-plane nodes may be asked.
    known: usize,
    /// Where the operator puts certificates; nobody is asked then.
    operator: Option<PathBuf>,
}

impl Keeper {
    /// A control-plane node certifies itself, and asks others only where its own state does not
    /// know it yet.
    pub fn new(config: &ServerConfig, identity: &Arc<Identity>, control: Option<&ControlRole>) -> anyhow::Result<Self> {
        let mut renewers: Vec<Arc<dyn Renewer>> = Vec::new();
        let dir = config.data_dir.join("identity");
        let operator = config.tls_dir.clone();
        if operator.is_some() {
            return Ok(Self { identity: identity.clone(), dir, renewers, known: 0, operator });
        }
        if let Some(control) = control {
            renewers.push(Arc::new(LocalRenewer::new(identity.clone(), control.api.certifier().clone())));
        }
        if control.is_none() || !config.control_plane.is_empty() {
            renewers.push(Arc::new(RemoteRenewer::new(identity.clone(), &config.control_plane)?));
        }
        Ok(Self { identity: identity.clone(), dir, renewers, known: config.control_plane.len(), operator })
    }

    /// Replaces a certificate that does not hold now. Fails only where the node may not come back.
    pub async fn come_back(&self) -> anyhow::Result<()> {
        let (present, now) = (self.identity.certified(), SystemTime::now());
        if present.holds(now) {
            return Ok(());
        }
        let node = present.name;
        let why = match now < present.not_before {
            true => format!("begins at {}", rfc3339(present.not_before)),
            false => format!("ended at {}", rfc3339(present.not_after)),
        };
        let mut last = None;
        for renewer in &self.renewers {
            // The one that asks others goes on to the next with each try.
            for _ in 0..self.known.max(1) {
                match renew_once(&self.identity, &self.dir, &**renewer).await {
                    Ok(_) => {
                        tracing::info!(%node, old = why, "the certificate did not hold any more: the node has a new one");
                        return Ok(());
                    }
                    Err(error) => last = Some(error),
                }
            }
        }
        let cause = last.map_or_else(String::new, |error| {
            tracing::error!(code = EXPIRED, cause = error.code(), %error, %node, old = why, next = EXPIRED_HINT,
                "the certificate does not hold: other nodes refuse this one");
            if is_final(&error) { error.to_string() } else { String::new() }
        });
        if cause.is_empty() {
            return Ok(());
        }
        let text = format!("the certificate of {node} {why}, and it gets no new one: {cause}");
        Err(Failure::new(EXPIRED, text, EXPIRED_HINT).into())
    }

    /// Renews from now on, until `stop`.
    pub fn start(self, control: Option<&ControlRole>, tasks: &TaskTracker, stop: &CancellationToken) {
        if let Some(operator) = self.operator {
            return until(follow_operator(self.identity, operator, OPERATOR_LOOK), tasks, stop);
        }
        let now = Arc::new(Notify::new());
        if let Some(control) = control {
            let registry: Arc<dyn Registry> = Arc::new(control.node.clone());
            let (changes, identity) = (control.node.snapshots(), self.identity.clone());
            until(renew_on_authority_change(changes, registry, identity, now.clone()), tasks, stop);
        }
        let Some(renewer) = self.renewers.into_iter().next() else { return };
        until(renew_loop(self.identity, self.dir, renewer, now), tasks, stop);
    }
}

/// The certificate by which agents know this node, where the cluster's CA issues it; and what keeps it new.
pub async fn for_agents(
    config: &ServerConfig,
    identity: &Arc<Identity>,
    control: Option<&ControlRole>,
) -> anyhow::Result<Option<(Arc<Current>, Following)>> {
    let Some(AgentTls::ClusterCa { names }) = &config.agents.tls else { return Ok(None) };
    let issuer: Arc<dyn CertifyAgents> = match control {
        Some(control) => Arc::new(LocalRenewer::new(identity.clone(), control.api.certifier().clone())),
        None => Arc::new(RemoteRenewer::new(identity.clone(), &config.control_plane)?),
    };
    let certificate = AgentCertificate::new(config.data_dir.join("agent-tls"), names.clone(), issuer);
    Ok(Some(certified_by_cluster(certificate).await?))
}

/// Whether asking again cannot help: the node was removed, or was away for too long.
fn is_final(error: &IdentityError) -> bool {
    matches!(error.code(), "PV-TLS-MEMBER" | EXPIRED)
}

/// RFC 3339, to the second.
fn rfc3339(at: SystemTime) -> String {
    let at = time::OffsetDateTime::from(at);
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_else(|_| at.to_string())
}
