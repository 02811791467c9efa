//! A node's question whether it was removed.
//!
//! Whoever removed it also closed the door to it: its own certificate gets it nowhere. So it asks
//! as nobody, of a server that it knows by the cluster's CA.

use std::time::Duration;

use provost_wire::{
    admin::Failure,
    node::{RemovedRequest, join_client::JoinClient},
    tls::admin_channel,
};

use super::IdentityError;

/// The longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Asks the control-plane node at `address`. `bundle`: the CAs that this node trusts, PEM. `false`
/// also when the one that is asked is behind.
pub async fn ask_removed(address: &str, bundle: &str, node_id: u64) -> Result<bool, IdentityError> {
    let ask = async {
        let channel = admin_channel(address, bundle).await?;
        let answer = JoinClient::new(channel).removed(RemovedRequest { node_id }).await;
        let answer = answer.map_err(|status| IdentityError::Refused(Failure::of(&status)))?;
        Ok(answer.into_inner().removed)
    };
    let late = |_| IdentityError::Answer(format!("{address} did not answer in {ANSWER_LIMIT:?}"));
    tokio::time::timeout(ANSWER_LIMIT, ask).await.map_err(late)?
}
