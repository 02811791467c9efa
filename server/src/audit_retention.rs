//! How long audit records are kept, as administrators ask for it.
//!
//! Invariant: who may administer one tenant only holds and prunes that tenant's records.

use std::{sync::Arc, time::Duration};

use provost_audit_core::LogId;
use provost_audit_store::{Hold, HoldOrder, Retention, RetentionError};
use provost_control_api::{Caller, Scope};
use provost_wire::admin::{
    AuditHold, HoldAddRequest, HoldAddResponse, HoldListRequest, HoldListResponse, HoldRemoveRequest,
    HoldRemoveResponse, PruneRequest, PruneResponse,
    audit_retention_server::{AuditRetention, AuditRetentionServer},
};
use tonic::{Code, Request, Response, Status, service::Routes};

use crate::{
    audit_admin::{AuditAccess, Question},
    audit_caller::{failure_of, permitted, taken, who},
};

/// How often the rules of `[[audit.retention]]` are applied. Whole segments go, days apart; this
/// decides only how soon after their time.
const EVERY: Duration = Duration::from_secs(600);

/// Between two looks at whether the replica here is open.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The service for the admin listener.
struct RetentionService(AuditAccess);

/// Adds the service for the admin listener.
pub fn routes(beside: Routes, access: AuditAccess) -> Routes {
    beside.add_service(AuditRetentionServer::new(RetentionService(access)))
}

/// Applies the rules from the moment on that the replica is open; only the leader does anything.
pub async fn run(
    replica: impl Fn() -> Option<Retention>,
    rule: impl Fn(&LogId) -> Option<(Duration, String)> + Send + Sync + 'static,
) {
    let retention = loop {
        match replica() {
            Some(retention) => break retention,
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    retention.run(Arc::new(rule), EVERY).await;
}

#[tonic::async_trait]
impl AuditRetention for RetentionService {
    async fn hold_add(&self, request: Request<HoldAddRequest>) -> Result<Response<HoldAddResponse>, Status> {
        let (caller, asked) = taken(request)?;
        self.0.answer(caller, Question::HoldAdd(asked)).await
    }

    async fn hold_remove(&self, request: Request<HoldRemoveRequest>) -> Result<Response<HoldRemoveResponse>, Status> {
        let (caller, asked) = taken(request)?;
        self.0.answer(caller, Question::HoldRemove(asked)).await
    }

    async fn hold_list(&self, request: Request<HoldListRequest>) -> Result<Response<HoldListResponse>, Status> {
        let (caller, asked) = taken(request)?;
        self.0.answer(caller, Question::HoldList(asked)).await
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        let (caller, asked) = taken(request)?;
        self.0.answer(caller, Question::Prune(asked)).await
    }
}

/// Holds records, through the replica of this process.
pub async fn hold_add(kept: &Retention, caller: &Caller, asked: HoldAddRequest) -> Result<HoldAddResponse, Status> {
    let order = HoldOrder {
        id: asked.id,
        log: permitted(caller, &asked.tenant)?,
        principal: Some(asked.principal).filter(|p| !p.is_empty()),
        since_ns: Some(asked.since_ns).filter(|t| *t > 0),
        until_ns: Some(asked.until_ns).filter(|t| *t > 0),
        reason: asked.reason,
    };
    let hold = kept.hold(order, who(caller)).await.map_err(failed)?;
    let unknown = !kept.knows(&hold);
    Ok(HoldAddResponse { hold: Some(on_wire(hold)), unknown })
}

/// Releases a hold, likewise.
pub async fn hold_remove(
    kept: &Retention,
    caller: &Caller,
    HoldRemoveRequest { tenant, id, reason }: HoldRemoveRequest,
) -> Result<HoldRemoveResponse, Status> {
    let log = permitted(caller, &tenant)?;
    kept.release(log, id, reason, who(caller)).await.map_err(failed)?;
    Ok(HoldRemoveResponse {})
}

/// The holds that the caller may see.
pub fn hold_list(kept: &Retention, caller: &Caller) -> HoldListResponse {
    let mut holds = kept.holds();
    holds.retain(|hold| match &caller.scope {
        Scope::Cluster => true,
        Scope::Tenant(own) => hold.log.0.as_ref() == Some(own),
    });
    HoldListResponse { holds: holds.into_iter().map(on_wire).collect() }
}

/// Prunes old records of one log, or says which would go.
pub async fn prune(
    kept: &Retention,
    caller: &Caller,
    PruneRequest { tenant, keep_seconds, dry_run }: PruneRequest,
) -> Result<PruneResponse, Status> {
    let log = permitted(caller, &tenant)?;
    let policy = format!("keep {keep_seconds}s, by order of {}", caller.name);
    let keep = Duration::from_secs(keep_seconds);
    let report = kept.prune(&log, keep, &policy, who(caller), dry_run).await.map_err(failed)?;
    Ok(PruneResponse { from: report.from, to: report.to, record: report.record })
}

fn on_wire(hold: Hold) -> AuditHold {
    AuditHold {
        tenant: hold.log.tenant().to_owned(),
        id: hold.id,
        principal: hold.principal.unwrap_or_default(),
        since_ns: hold.since_ns,
        until_ns: hold.until_ns,
        reason: hold.reason,
        by: hold.by,
        time_ns: hold.time_ns,
    }
}

fn failed(cause: RetentionError) -> Status {
    let code = match &cause {
        RetentionError::Held { .. } => Code::FailedPrecondition,
        RetentionError::NoHold { .. } => Code::NotFound,
        RetentionError::Refused(_) => Code::InvalidArgument,
        RetentionError::Unavailable(_) => Code::Unavailable,
    };
    failure_of(&cause.to_string(), "PV-AUDIT-RETENTION").into_status(code)
}
