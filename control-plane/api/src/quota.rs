//! Leases of quota units for data-plane nodes: each exchange is one command of the ledger.
//!
//! Invariants: a node exchanges only in its own name, which its certificate says; what is proposed
//! has bounds; both clocks are put into the command before it is proposed, so that every replica
//! applies the same. An exchange that fails here may have been made all the same: the node sends
//! it again with the same number, and the ledger makes it once.
//! Left out: how much is granted (the ledger), and the node's side.

use std::{
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use provost_control_state::{
    ClockReading, LeaseReport, LeaseWant, LedgerCommand, LedgerReply, MAX_REPORTS, MAX_WANTS, StoredCommand,
};
use provost_wire::{
    node::{LeaseGrant, LeaseRequest, LeaseResponse, quota_server::Quota},
    tls::{ROLE_SEPARATOR, Role},
};
use tonic::{Request, Response, Status};

use crate::{ControlError, ControlNode, ErrorKind, machine::Reply};

/// Bytes of a node's or an account's name.
const MAX_NAME_BYTES: usize = 512;

/// Name and roles of the peer, from its certificate; `None`: it has none. Several roles stand with
/// [`ROLE_SEPARATOR`] between.
pub type QuotaAuthorise = Arc<dyn Fn(&tonic::Extensions) -> Option<(String, String)> + Send + Sync>;

impl ControlNode {
    /// Makes one exchange. Any node takes it; the leader orders it. An error says nothing of
    /// whether it was made: repeat it unchanged.
    pub async fn lease(&self, request: LeaseRequest) -> Result<LeaseResponse, ControlError> {
        let command = command(request)?;
        match self.propose_command(&StoredCommand::Ledger1 { command }).await? {
            Reply::Ledger { reply } => Ok(response(reply)),
            other => Err(ControlError::internal(format!("an exchange was answered by {other:?}"))),
        }
    }
}

fn command(request: LeaseRequest) -> Result<LedgerCommand, ControlError> {
    let invalid = |text: String| Err(ControlError::new(ErrorKind::Invalid, "PV-QUOTA-EXCHANGE", text, ""));
    let LeaseRequest { node, epoch, seq, reports, wants } = request;
    if node.is_empty() || node.len() > MAX_NAME_BYTES || epoch == 0 || seq == 0 {
        return invalid("an exchange names its node, and its epoch and number, which begin with 1".to_owned());
    }
    if wants.len() > MAX_WANTS || reports.len() > MAX_REPORTS {
        let text =
            format!("{} wants and {} reports; it takes {MAX_WANTS} and {MAX_REPORTS}", wants.len(), reports.len());
        return invalid(text);
    }
    if wants.iter().any(|w| w.account.len() > MAX_NAME_BYTES) {
        return invalid(format!("an account's name is longer than {MAX_NAME_BYTES} bytes"));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reports = reports.into_iter().map(|r| LeaseReport {
        lease: r.lease,
        settled: r.settled,
        returned: r.returned,
        closed: r.closed,
    });
    let wants = wants.into_iter().map(|w| LeaseWant { account: w.account, units: w.units });
    Ok(LedgerCommand::Exchange {
        node,
        epoch,
        seq,
        now_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        clock: clock()?,
        reports: reports.collect(),
        wants: wants.collect(),
    })
}

/// This process's monotonic clock, under a name that no other process has.
fn clock() -> Result<ClockReading, ControlError> {
    static CLOCK: OnceLock<(u64, Instant)> = OnceLock::new();
    let (source, start) = match CLOCK.get() {
        Some(clock) => clock,
        None => {
            let mut id = [0; 8];
            aws_lc_rs::rand::fill(&mut id).map_err(|_| ControlError::internal("there is no randomness"))?;
            CLOCK.get_or_init(|| (u64::from_be_bytes(id), Instant::now()))
        }
    };
    let up_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(ClockReading { source: *source, up_ns })
}

fn response(reply: LedgerReply) -> LeaseResponse {
    let grants = match reply {
        LedgerReply::Fenced => return LeaseResponse { grants: Vec::new(), fenced: true },
        // A later exchange was answered: whoever sent this one has what it needs.
        LedgerReply::Stale => Vec::new(),
        LedgerReply::Exchanged { grants } => grants,
    };
    let grants = grants.into_iter().map(|g| LeaseGrant {
        account: g.account,
        lease: g.lease,
        units: g.units,
        remaining: g.remaining,
        limit: g.limit,
        window_end_ns: g.window_end_ns,
        ttl_ms: g.ttl_ms,
        rate_milli: g.rate_milli,
        burst: g.burst,
    });
    LeaseResponse { grants: grants.collect(), fenced: false }
}

fn is_data_plane(roles: &str) -> bool {
    roles.split(ROLE_SEPARATOR).any(|role| role == Role::DataPlane.as_str())
}

/// The gRPC form, for nodes with a certificate.
pub struct QuotaService {
    node: ControlNode,
    authorise: QuotaAuthorise,
}

impl QuotaService {
    /// A service that asks `authorise` who the peer is.
    pub fn new(node: ControlNode, authorise: QuotaAuthorise) -> Self {
        Self { node, authorise }
    }
}

#[tonic::async_trait]
impl Quota for QuotaService {
    async fn lease(&self, request: Request<LeaseRequest>) -> Result<Response<LeaseResponse>, Status> {
        let peer = (self.authorise)(request.extensions());
        let request = request.into_inner();
        match peer {
            Some((node, role)) if is_data_plane(&role) && node == request.node => {
                Ok(Response::new(self.node.lease(request).await?))
            }
            Some((node, role)) => {
                let text = format!("{role} {node} cannot hold leases in the name of `{}`", request.node);
                Err(ControlError::new(ErrorKind::Forbidden, "PV-QUOTA-IDENTITY", text, "").into())
            }
            None => {
                let text = "leases are given to nodes with a certificate of this cluster";
                Err(ControlError::new(ErrorKind::Unauthenticated, "PV-QUOTA-IDENTITY", text, "").into())
            }
        }
    }
}
