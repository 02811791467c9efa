//! How long audit records are kept, as administrators ask for it.
//!
//! Invariant: who may administer one tenant only holds and prunes that tenant's records.

use std::{sync::Arc, time::Duration};

use provost_audit_core::LogId;
use provost_audit_store::{Hold, HoldOrder, Retention, RetentionError};
use provost_control_api::Scope;
use provost_wire::admin::{
    AuditHold, Failure, HoldAddRequest, HoldAddResponse, HoldListRequest, HoldListResponse, HoldRemoveRequest,
    HoldRemoveResponse, PruneRequest, PruneResponse,
    audit_retention_server::{AuditRetention, AuditRetentionServer},
};
use tonic::{Code, Request, Response, Status, service::Routes};

use crate::audit_caller::{failure_of, permitted, taken, who};

/// How often the rules of `[[audit.retention]]` are applied. Whole segments go, days apart; this
/// decides only how soon after their time.
const EVERY: Duration = Duration::from_secs(600);

/// Between two looks at whether the replica here is open.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Replica = Arc<dyn Fn() -> Option<Retention> + Send + Sync>;

/// The service over this node's replica.
struct RetentionService {
    /// `None`: this process keeps no log.
    replica: Option<Replica>,
}

/// The routes for the admin listener of a process that keeps a log.
pub fn routes(beside: Routes, replica: impl Fn() -> Option<Retention> + Send + Sync + 'static) -> Routes {
    beside.add_service(AuditRetentionServer::new(RetentionService { replica: Some(Arc::new(replica)) }))
}

/// The routes where no log is kept: they say so.
pub fn elsewhere(beside: Routes) -> Routes {
    beside.add_service(AuditRetentionServer::new(RetentionService { replica: None }))
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

impl RetentionService {
    #[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
    fn open(&self) -> Result<Retention, Status> {
        let Some(replica) = &self.replica else {
            let hint = "ask the admin API of a node with the roles control-plane and audit-log";
            return Err(Failure::new("PV-AUDIT-RETENTION", "this node keeps no audit log", hint)
                .into_status(Code::FailedPrecondition));
        };
        replica().ok_or_else(|| {
            let text = "the replica of the audit log here is not open yet";
            Failure::new("PV-AUDIT-UNAVAILABLE", text, "ask again in a moment").into_status(Code::Unavailable)
        })
    }
}

#[tonic::async_trait]
impl AuditRetention for RetentionService {
    async fn hold_add(&self, request: Request<HoldAddRequest>) -> Result<Response<HoldAddResponse>, Status> {
        let (caller, asked) = taken(request)?;
        let order = HoldOrder {
            id: asked.id,
            log: permitted(&caller, &asked.tenant)?,
            principal: Some(asked.principal).filter(|p| !p.is_empty()),
            since_ns: Some(asked.since_ns).filter(|t| *t > 0),
            until_ns: Some(asked.until_ns).filter(|t| *t > 0),
            reason: asked.reason,
        };
        let retention = self.open()?;
        let hold = retention.hold(order, who(&caller)).await.map_err(failed)?;
        let unknown = !retention.knows(&hold);
        Ok(Response::new(HoldAddResponse { hold: Some(on_wire(hold)), unknown }))
    }

    async fn hold_remove(&self, request: Request<HoldRemoveRequest>) -> Result<Response<HoldRemoveResponse>, Status> {
        let (caller, HoldRemoveRequest { tenant, id, reason }) = taken(request)?;
        let log = permitted(&caller, &tenant)?;
        self.open()?.release(log, id, reason, who(&caller)).await.map_err(failed)?;
        Ok(Response::new(HoldRemoveResponse {}))
    }

    async fn hold_list(&self, request: Request<HoldListRequest>) -> Result<Response<HoldListResponse>, Status> {
        let (caller, _) = taken(request)?;
        let mut holds = self.open()?.holds();
        holds.retain(|hold| match &caller.scope {
            Scope::Cluster => true,
            Scope::Tenant(own) => hold.log.0.as_ref() == Some(own),
        });
        Ok(Response::new(HoldListResponse { holds: holds.into_iter().map(on_wire).collect() }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        let (caller, PruneRequest { tenant, keep_seconds, dry_run }) = taken(request)?;
        let log = permitted(&caller, &tenant)?;
        let policy = format!("keep {keep_seconds}s, by order of {}", caller.name);
        let keep = Duration::from_secs(keep_seconds);
        let report = self.open()?.prune(&log, keep, &policy, who(&caller), dry_run).await.map_err(failed)?;
        Ok(Response::new(PruneResponse { from: report.from, to: report.to, record: report.record }))
    }
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
