//! The way of reports to the control plane.

use provost_types::BoxFuture;
use provost_wire::governance::{ReportDefinitionsRequest, definitions_client::DefinitionsClient};
use tonic::transport::Channel;

/// Bytes of one report.
const MAX_REPORT_BYTES: usize = 16 << 20;

/// Why a report was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReportFailed(pub String);

/// Carries reports to the control plane: in this process or to another machine.
pub trait DefinitionPort: Send + Sync {
    /// Hands one over. It may be repeated.
    fn report(&self, request: ReportDefinitionsRequest) -> BoxFuture<'_, Result<(), ReportFailed>>;
}

/// Reports over a channel to any control-plane node.
#[derive(Clone, Debug)]
pub struct GrpcDefinitions(DefinitionsClient<Channel>);

impl GrpcDefinitions {
    /// Over a channel that reconnects by itself.
    pub fn new(channel: Channel) -> Self {
        Self(DefinitionsClient::new(channel).max_encoding_message_size(MAX_REPORT_BYTES))
    }
}

impl DefinitionPort for GrpcDefinitions {
    fn report(&self, request: ReportDefinitionsRequest) -> BoxFuture<'_, Result<(), ReportFailed>> {
        let mut client = self.0.clone();
        Box::pin(async move {
            let answered = client.report(request).await;
            answered.map(drop).map_err(|status| ReportFailed(format!("{:?}: {}", status.code(), status.message())))
        })
    }
}
