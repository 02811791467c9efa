//! Each new revision of the control plane becomes the state of the data plane, all of it at once.

use std::sync::Arc;

use provost_data_serve::node::{Compiled, Node};
use provost_types::Snapshot;
use tokio::sync::watch;

/// Follows the snapshots for as long as there is a control plane. A revision that does not compile
/// is left out with an error in the log: the node goes on with the last good one. Admission
/// compiles with the same code, so this means a bug or a newer writer.
pub async fn follow(mut snapshots: watch::Receiver<Arc<Snapshot>>, node: Arc<Node>) {
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if snapshot.revision > node.active_revision() {
            activate(snapshot, &node).await;
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

async fn activate(snapshot: Arc<Snapshot>, node: &Node) {
    let revision = snapshot.revision;
    // Compiling many policies takes a while: not on a thread that serves calls.
    match tokio::task::spawn_blocking(move || Compiled::new(snapshot)).await {
        Ok(Ok(compiled)) => {
            node.activate(compiled);
            tracing::info!(%revision, "active");
        }
        Ok(Err(cause)) => tracing::error!(%cause, "revision left out"),
        Err(cause) => tracing::error!(%revision, %cause, "compiling ended early; revision left out"),
    }
}
