//! Who may write to the audit log, and who may keep it: members by their certificates.

use std::sync::Arc;

use provost_audit_store::{AUDIT_GROUP, AuditCallers, Authorise};
use provost_types::BoxFuture;
use provost_wire::tls::{self, Certified, Role};
use tonic::{Extensions, Status};

use super::{roster::Rosters, standing::Standing};

/// Asks [`Standing`].
#[derive(Clone)]
pub struct Callers(pub Arc<Standing>);

fn certified(connection: &Extensions) -> Result<&Certified, Status> {
    let refused = || Status::unauthenticated("PV-AUDIT-PEER: only nodes of the cluster may use the audit log");
    tls::certified_in(connection).ok_or_else(refused)
}

impl AuditCallers for Callers {
    fn writer<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<String, Status>> {
        Box::pin(async move { self.0.name(certified(connection)?).await })
    }

    fn control<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.with_role(connection, Role::ControlPlane))
    }

    fn replica<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.with_role(connection, Role::AuditLog))
    }
}

impl Callers {
    /// Refuses all but members with the role.
    pub async fn with_role(&self, connection: &Extensions, role: Role) -> Result<(), Status> {
        let caller = certified(connection)?;
        if !caller.name.has(role) {
            return Err(Status::permission_denied(format!("PV-AUDIT-PEER: {} is no {role} node", caller.name)));
        }
        self.0.name(caller).await.map(drop)
    }
}

/// Whether a caller is the replica of the audit group that it says it is; for nodes that have no
/// member list. One with a number that is not given yet, as far as this node knows, is news: a
/// certificate that bears the number is enough. An operator's certificates bear none, and those of former
/// members are as good as any: such a node waits until the roster here has it.
pub fn authorise(rosters: Rosters) -> Authorise {
    Arc::new(move |connection, from, group| {
        let Some(caller) = tls::certified_in(connection) else { return false };
        if group != AUDIT_GROUP || !caller.name.has(Role::AuditLog) {
            return false;
        }
        let roster = rosters.borrow();
        match roster.keepers.get(&from) {
            Some(keeper) => keeper.certified_id == caller.name.id(),
            None => from > roster.last_node_id && caller.serial_node_id == Some(from),
        }
    })
}
