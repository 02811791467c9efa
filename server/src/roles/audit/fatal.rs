//! The audit log's replica here cannot go on, and so the process does not.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// An error that ends the process, from a task.
#[derive(Clone, Default)]
pub struct Fatal {
    cause: Arc<OnceLock<String>>,
    token: CancellationToken,
}

impl Fatal {
    pub(super) fn raise(&self, cause: &anyhow::Error) {
        tracing::error!(%cause, "the audit log's replica cannot go on");
        let _ = self.cause.set(format!("{cause:#}"));
        self.token.cancel();
    }

    /// Resolves once there is such an error.
    pub async fn raised(&self) -> anyhow::Error {
        self.token.cancelled().await;
        anyhow::anyhow!(self.cause.get().cloned().unwrap_or_default())
    }
}
