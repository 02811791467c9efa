//! How far the members are: only the leader knows, and any replica tells.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{FollowerMetrics, Group, GroupError, Peer, Role, RpcKind, group::GroupCore, network::address_of};

/// How long the leader may take: it answers from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A member as the leader knows it, as it crosses the wire.
#[derive(Serialize, Deserialize)]
pub(crate) struct Known {
    id: u64,
    matched: Option<u64>,
    lag: u64,
    acked_ago_ms: Option<u64>,
}

impl Group {
    /// Every member as the leader knows it, the leader itself among them. Asks once: it is for
    /// people, who ask again.
    pub async fn followers(&self) -> Result<BTreeMap<u64, FollowerMetrics>, GroupError> {
        let core = self.core();
        let now = core.metrics();
        let known = match now.leader {
            Some(id) if id == now.node_id => core.followers_here()?,
            Some(id) => {
                let address = address_of(&core.metrics, id).ok_or(GroupError::NotLeader { leader: now.leader })?;
                let peer = Peer { id, address, group: core.name().to_owned() };
                core.ask::<Vec<Known>>(peer, RpcKind::Followers, Bytes::new(), ANSWER_LIMIT).await?
            }
            None => return Err(GroupError::NotLeader { leader: None }),
        };
        let ago = |ms: Option<u64>| ms.map(Duration::from_millis);
        let metrics = |k: &Known| FollowerMetrics { matched: k.matched, lag: k.lag, acked_ago: ago(k.acked_ago_ms) };
        Ok(known.iter().map(|k| (k.id, metrics(k))).collect())
    }
}

impl GroupCore {
    /// The same on the leader, or a refusal.
    pub(crate) fn followers_here(&self) -> Result<Vec<Known>, GroupError> {
        let now = self.metrics();
        if now.role != Role::Leader {
            return Err(GroupError::NotLeader { leader: now.leader });
        }
        let own = Known { id: now.node_id, matched: now.applied, lag: 0, acked_ago_ms: Some(0) };
        let ms = |ago: Duration| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        let others = now.followers.iter().map(|(&id, f)| Known {
            id,
            matched: f.matched,
            lag: f.lag,
            acked_ago_ms: f.acked_ago.map(ms),
        });
        Ok(others.chain([own]).collect())
    }
}
