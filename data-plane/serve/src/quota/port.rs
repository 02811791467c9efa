//! The way to the ledger.

use provost_data_policy::quota::{LeaseAnswer, LeaseExchange, LeaseGrant};
use provost_types::BoxFuture;
use provost_wire::node::{LeaseReport, LeaseRequest, LeaseResponse, LeaseWant, quota_client::QuotaClient};
use tonic::transport::Channel;

/// Why an exchange has no answer. It may have been made all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LeaseUnavailable(pub String);

/// Carries exchanges to the control plane: in this process or to another machine.
pub trait LeasePort: Send + Sync {
    /// Makes one exchange. It is repeated unchanged after an error.
    fn exchange(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseResponse, LeaseUnavailable>>;
}

/// Exchanges over a channel to any control-plane node.
#[derive(Clone, Debug)]
pub struct GrpcLeases(QuotaClient<Channel>);

impl GrpcLeases {
    /// Over a channel that reconnects by itself.
    pub fn new(channel: Channel) -> Self {
        Self(QuotaClient::new(channel))
    }
}

impl LeasePort for GrpcLeases {
    fn exchange(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseResponse, LeaseUnavailable>> {
        let mut client = self.0.clone();
        Box::pin(async move {
            let answered = client.lease(request).await;
            answered
                .map(tonic::Response::into_inner)
                .map_err(|status| LeaseUnavailable(format!("{:?}: {}", status.code(), status.message())))
        })
    }
}

/// The exchange as it is sent.
pub(super) fn request(node: &str, epoch: u64, exchange: LeaseExchange) -> LeaseRequest {
    let LeaseExchange { seq, reports, wants } = exchange;
    let reports = reports.into_iter().map(|r| LeaseReport {
        lease: r.lease,
        settled: r.settled,
        returned: r.returned,
        closed: r.closed,
    });
    let wants = wants.into_iter().map(|w| LeaseWant { account: w.account, units: w.units });
    LeaseRequest { node: node.to_owned(), epoch, seq, reports: reports.collect(), wants: wants.collect() }
}

/// The answer as it is taken in.
pub(super) fn answer(response: LeaseResponse) -> LeaseAnswer {
    let grants = response.grants.into_iter().map(|g| LeaseGrant {
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
    LeaseAnswer { grants: grants.collect(), fenced: response.fenced }
}
