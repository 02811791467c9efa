//! Holds the audit logs' newest checkpoints in this group's consensus.
//!
//! Invariant: what is held only grows; a proposal that contradicts it is refused with
//! `PV-AUDIT-ROLLED-BACK`, and changes nothing. Only members with the role audit-log may propose.
//! Left out: who compares (the audit node), and signatures (whoever reads the notes).

use provost_control_state::{AuditCheckpoint, ClusterCommand};
use provost_wire::node::{
    self as wire, HeldRequest, HeldResponse, HoldRequest, HoldResponse, audit_checkpoints_server::AuditCheckpoints,
};
use tonic::{Request, Response, Status};

use crate::{Caller, ControlError, ControlNode, Scope, identity::Registry};

impl ControlNode {
    /// Holds these as the newest; all or none.
    pub async fn hold_audit_checkpoints(&self, checkpoints: Vec<AuditCheckpoint>) -> Result<(), ControlError> {
        Registry::change(self, ClusterCommand::AuditCheckpoints { checkpoints }).await.map(drop)
    }

    /// What is held, confirmed by a quorum.
    pub async fn held_audit_checkpoints(&self) -> Result<Vec<AuditCheckpoint>, ControlError> {
        Ok(Registry::confirmed(self).await?.audit_checkpoints().cloned().collect())
    }

    /// The notes that an administrator may see: all, or its tenant's.
    pub(crate) async fn audit_notes(&self, caller: &Caller) -> Result<Vec<String>, ControlError> {
        let may_see = |log: &str| match &caller.scope {
            Scope::Cluster => true,
            // `CLUSTER/TENANT+KEYID`.
            Scope::Tenant(tenant) => {
                let (origin, _) = log.rsplit_once('+').unwrap_or((log, ""));
                origin.rsplit('/').next() == Some(tenant.as_str())
            }
        };
        let held = self.held_audit_checkpoints().await?;
        Ok(held.into_iter().filter(|c| may_see(&c.log)).map(|c| c.note).collect())
    }
}

/// The service for audit nodes.
pub(crate) struct CheckpointService {
    node: ControlNode,
}

impl CheckpointService {
    pub(crate) fn new(node: ControlNode) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl AuditCheckpoints for CheckpointService {
    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldResponse>, Status> {
        let checkpoints = request.into_inner().checkpoints.into_iter();
        let stored =
            |c: wire::AuditCheckpoint| AuditCheckpoint { log: c.log, size: c.size, root: c.root, note: c.note };
        self.node.hold_audit_checkpoints(checkpoints.map(stored).collect()).await?;
        Ok(Response::new(HoldResponse {}))
    }

    async fn held(&self, _: Request<HeldRequest>) -> Result<Response<HeldResponse>, Status> {
        let held = self.node.held_audit_checkpoints().await?.into_iter();
        let sent = |c: AuditCheckpoint| wire::AuditCheckpoint { log: c.log, size: c.size, root: c.root, note: c.note };
        Ok(Response::new(HeldResponse { checkpoints: held.map(sent).collect() }))
    }
}
