//! The port to the replicated facts of the cluster.

use std::{net::SocketAddr, sync::Arc};

use provost_control_state::{Cluster, ClusterCommand, ClusterReply, StoredCommand};
use provost_types::Name;
use provost_wire::tls::Role;

use crate::{Caller, ControlError, ControlNode, ErrorKind, Scope, machine::Reply, members::Deed};

/// Reads and changes the cluster's own facts.
#[tonic::async_trait]
pub trait Registry: Send + Sync {
    /// What this node knows now; it may be behind.
    fn cluster(&self) -> Arc<Cluster>;
    /// What is true now: everything that was acknowledged before is in it.
    async fn confirmed(&self) -> Result<Arc<Cluster>, ControlError>;
    /// Changes it. A rejection is an error with the code of its first problem.
    async fn change(&self, command: ClusterCommand) -> Result<ClusterReply, ControlError>;
    /// The same for a node that joins, with a record before and after in the audit log.
    async fn join(&self, joining: Joining, command: ClusterCommand) -> Result<ClusterReply, ControlError>;
}

/// A node that shows a join token, for the record.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Its name.
    pub node: Name,
    /// Its roles.
    pub roles: String,
    /// The token's id.
    pub token: String,
    /// Where it asks from.
    pub remote: Option<SocketAddr>,
}

#[tonic::async_trait]
impl Registry for ControlNode {
    fn cluster(&self) -> Arc<Cluster> {
        self.inner.published.state.load().cluster().clone()
    }

    async fn confirmed(&self) -> Result<Arc<Cluster>, ControlError> {
        self.inner.group.read_barrier().await?;
        Ok(self.cluster())
    }

    async fn change(&self, command: ClusterCommand) -> Result<ClusterReply, ControlError> {
        let address = match &command {
            ClusterCommand::TokenUsed { address, .. } => address.clone(),
            _ => String::new(),
        };
        match self.propose_command(&StoredCommand::Cluster1 { command }).await? {
            Reply::Cluster { reply } => {
                if let ClusterReply::Joined { node_id, roles, .. } = &reply
                    && roles.iter().any(|r| r.as_str() == Role::ControlPlane.as_str())
                {
                    // If this fails, the leader does it later.
                    if let Err(error) = self.inner.group.add_learner_nowait(*node_id, address).await {
                        tracing::warn!(node = node_id, %error, "the new node has no replica yet");
                    }
                }
                Ok(reply)
            }
            Reply::Rejected { problems } => Err(rejected(problems)),
            other => Err(ControlError::internal(format!("a change of the cluster was answered by {other:?}"))),
        }
    }

    async fn join(&self, joining: Joining, command: ClusterCommand) -> Result<ClusterReply, ControlError> {
        let caller = Caller {
            name: format!("join-token:{}", joining.token),
            scope: Scope::Cluster,
            authenticated_by: "join_token".to_owned(),
            address: joining.remote.map(|r| r.to_string()),
        };
        if self.audit_nodes().is_empty() {
            // The first node that keeps an audit log cannot be recorded in it, nor who came before.
            tracing::warn!(node = %joining.node, roles = joining.roles, "joins before there is an audit log");
            return Registry::change(self, command).await;
        }
        let deed = Deed::new("node.join", vec![joining.node.to_string()], joining.roles);
        let node = self.clone();
        self.recorded(&caller, deed, async move { Registry::change(&node, command).await }).await
    }
}

/// A rejection of the state as an error.
pub(crate) fn rejected(problems: Vec<provost_control_state::Problem>) -> ControlError {
    match problems.into_iter().next() {
        Some(p) => ControlError::new(ErrorKind::Refused, &p.code, p.message, p.hint),
        None => ControlError::internal("a change was rejected without a reason"),
    }
}
