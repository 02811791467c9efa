//! What `provost dev` asks of the cluster that it has started, however many processes that is.

use std::{sync::Arc, time::Duration};

use provost_control_api::SourceFile;
use provost_types::{Name, Revision, Snapshot};
use provost_wire::{AdminConnection, admin};
use tonic::Code;

use super::three::Three;
use crate::{cli::admin::failed, failure::Failure, node::Node};

/// A voter that is being elected, or an audit log that has just come up, gets so long.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// A change gets so long to become active in the data plane here.
const ACTIVATION_LIMIT: Duration = Duration::from_secs(20);

/// A cluster with a data plane in this process.
pub trait Governed {
    /// Applies resources and waits until the data plane here runs them.
    async fn apply(&self, documents: Vec<SourceFile>, message: &str) -> anyhow::Result<()>;
    /// Makes a token for a principal, without an end.
    async fn create_token(&self, tenant: &Name, principal: &Name) -> anyhow::Result<String>;
    /// The state that the data plane here runs.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// Whether the token authenticates somebody now.
    fn knows_token(&self, token: &str) -> bool;
}

impl Governed for Node {
    async fn apply(&self, documents: Vec<SourceFile>, message: &str) -> anyhow::Result<()> {
        Node::apply(self, documents, message).await
    }
    async fn create_token(&self, tenant: &Name, principal: &Name) -> anyhow::Result<String> {
        Node::create_token(self, tenant, principal).await
    }
    fn snapshot(&self) -> Arc<Snapshot> {
        Node::snapshot(self)
    }
    fn knows_token(&self, token: &str) -> bool {
        Node::knows_token(self, token)
    }
}

impl Governed for Three {
    async fn apply(&self, documents: Vec<SourceFile>, message: &str) -> anyhow::Result<()> {
        let documents: Vec<_> = documents.into_iter().map(|d| admin::Document { path: d.path, text: d.text }).collect();
        let request = admin::ApplyRequest { documents, dry_run: false, message: message.to_owned() };
        let applied = self.settle(|mut c| {
            let request = request.clone();
            async move { c.apply(request).await.map(|r| r.into_inner().revision) }
        });
        self.wait_active(Revision(applied.await?)).await
    }

    async fn create_token(&self, tenant: &Name, principal: &Name) -> anyhow::Result<String> {
        let request = admin::TokenCreateRequest {
            tenant: tenant.to_string(),
            principal: principal.to_string(),
            ttl_seconds: 0,
            message: String::new(),
        };
        let made = self.settle(|mut c| {
            let request = request.clone();
            async move { c.token_create(request).await.map(tonic::Response::into_inner) }
        });
        let made = made.await?;
        self.wait_active(Revision(made.revision)).await?;
        Ok(made.token)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.data_node().compiled().snapshot()
    }

    fn knows_token(&self, token: &str) -> bool {
        self.data_node().knows_token(token)
    }
}

/// A connection that breaks in the middle of a call is `Unknown` or `Cancelled` on this side.
fn may_be_tried_again(status: &tonic::Status) -> bool {
    // All voters are of this build; that the cluster does not know so yet is a matter of moments after its start.
    let is_early = admin::Failure::of(status).code == "PV-CLUSTER-VERSION";
    is_early || matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
}

impl Three {
    /// Asks a voter again while none can answer, and where the connection was lost before the answer:
    /// the relay cuts off a voter that is slow for a moment. What is asked here may happen twice:
    /// resources are then as they were, and a token that nobody saw is of use to nobody.
    async fn settle<T, F: Future<Output = Result<T, tonic::Status>>>(
        &self,
        ask: impl Fn(AdminConnection) -> F,
    ) -> anyhow::Result<T> {
        let began = tokio::time::Instant::now();
        loop {
            let answer = match self.connect().await {
                Ok(connection) => ask(connection).await,
                Err(cause) => Err(tonic::Status::unavailable(cause.to_string())),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(status) if may_be_tried_again(&status) && began.elapsed() < SETTLE_LIMIT => {
                    tokio::time::sleep(SETTLE_PAUSE).await;
                }
                Err(status) => return Err(failed(status)),
            }
        }
    }

    async fn wait_active(&self, revision: Revision) -> anyhow::Result<()> {
        let node = self.data_node();
        let active = async {
            while node.active_revision() < revision {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(ACTIVATION_LIMIT, active).await.map_err(|_| {
            let text = format!("revision {revision} did not become active");
            anyhow::Error::new(Failure::new("PV-NODE-ACTIVATION", text, "see the log above"))
        })
    }
}
