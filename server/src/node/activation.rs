//! Each new revision of the control plane becomes the state of the data plane, all of it at once.

use std::sync::Arc;

use provost_data_serve::node::{CompileError, Node};
use provost_gpu_serve::GpuNode;
use provost_types::Snapshot;
use tokio::sync::watch;

use crate::models;

/// Follows the snapshots of a control plane in this process for as long as there is one. Models are served as the state
/// declares that the data plane runs.
pub async fn follow(mut snapshots: watch::Receiver<Arc<Snapshot>>, node: Arc<Node>, gpu: Arc<GpuNode>) {
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if snapshot.revision > node.active_revision() && activate(snapshot.clone(), &node).await.is_ok() {
            models::declare(&gpu, snapshot).await;
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Makes a revision active. One that does not compile is left out with an error in the log: the
/// node goes on with the last good one. Admission compiles with the same code, so this means a
/// bug or a newer writer.
pub async fn activate(snapshot: Arc<Snapshot>, node: &Node) -> Result<(), CompileError> {
    let revision = snapshot.revision;
    let _announced = node.announce(snapshot.clone());
    let before = node.compiled();
    // Compiling many policies takes a while: not on a thread that serves calls.
    match tokio::task::spawn_blocking(move || before.next(snapshot)).await {
        Ok(Ok(compiled)) => {
            node.activate(compiled);
            tracing::info!(%revision, "active");
            Ok(())
        }
        Ok(Err(cause)) => {
            tracing::error!(%cause, "revision left out");
            Err(cause)
        }
        Err(cause) => {
            tracing::error!(%revision, %cause, "compiling ended early; revision left out");
            Err(CompileError { revision, problems: Vec::new() })
        }
    }
}
