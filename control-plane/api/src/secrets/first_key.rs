//! A cluster has a data key, whether or not it has secrets.
//!
//! Data-plane nodes derive from it what seals session ids, so that each of them serves what another
//! began. Whoever leads makes the first one; two leaders that both try are told apart by the ring.

use std::time::Duration;

use provost_control_raft::Role;

use super::ring;
use crate::ControlNode;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// As whom the key is made.
const AUTHOR: &str = "provost";

/// Runs until the ring has a key of this cluster.
pub(crate) async fn make_first_key(node: ControlNode) {
    loop {
        let state = node.inner.published.state.load_full();
        if ring::sealing_term(&state, &node.inner.config.cluster).is_some() {
            return;
        }
        let leads = node.inner.group.metrics().role == Role::Leader && state.cluster().name().is_some();
        drop(state);
        if leads {
            match node.propose_key(AUTHOR).await {
                Ok(term) => tracing::info!(term, "the cluster has its first data key"),
                Err(error) => tracing::info!(code = error.code(), %error, "the cluster has no data key yet"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
