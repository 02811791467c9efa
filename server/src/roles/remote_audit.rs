//! The audit log of another node, as a sink.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use provost_types::{AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture};
use provost_wire::node::{RecordRequest, audit_client::AuditClient};
use tonic::transport::Channel;

/// The longest wait for a record to be durable elsewhere.
const RECORD_LIMIT: Duration = Duration::from_secs(5);

/// Sends each record to the first audit node that takes it. Without one nothing is recorded, and
/// so nothing that must be recorded is done.
#[derive(Default)]
pub struct RemoteAudit {
    nodes: ArcSwap<Vec<Channel>>,
}

impl RemoteAudit {
    /// Replaces the nodes to record at.
    pub fn set(&self, nodes: Vec<Channel>) {
        self.nodes.store(Arc::new(nodes));
    }

    async fn send(&self, event: AuditEvent) -> Result<AuditReceipt, AuditUnavailable> {
        let event = serde_json::to_vec(&event).map_err(|e| AuditUnavailable(e.to_string()))?;
        let nodes = self.nodes.load_full();
        let mut last = "no node of the cluster has the role audit-log".to_owned();
        for channel in nodes.iter() {
            let mut client = AuditClient::new(channel.clone());
            let call = client.record(RecordRequest { event: event.clone().into() });
            match tokio::time::timeout(RECORD_LIMIT, call).await {
                Ok(Ok(answer)) => {
                    let receipt = serde_json::from_slice(&answer.into_inner().receipt);
                    return receipt.map_err(|e| AuditUnavailable(e.to_string()));
                }
                Ok(Err(status)) => last = status.message().to_owned(),
                Err(_) => last = format!("the audit log did not answer in {RECORD_LIMIT:?}"),
            }
        }
        Err(AuditUnavailable(last))
    }
}

impl AuditSink for RemoteAudit {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        Box::pin(self.send(event))
    }
}
