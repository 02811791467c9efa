//! Groups of one process connected with each other, for tests. Links can be cut.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard, Weak},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Group, GroupError, Peer, RpcKind, Transport, TransportError, group::GroupCore, transport::TransportFuture,
};

/// Connects groups in one process.
#[derive(Clone, Default)]
pub struct Loopback {
    network: Arc<RwLock<Network>>,
    /// The node that sends through this handle.
    from: u64,
}

#[derive(Default)]
struct Network {
    groups: HashMap<(u64, String), Weak<GroupCore>>,
    cut: HashSet<u64>,
}

impl Loopback {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of one node.
    pub fn of_node(&self, id: u64) -> Self {
        Self { network: self.network.clone(), from: id }
    }

    /// Makes a group reachable.
    pub fn attach(&self, group: &Group) {
        let core = group.core();
        let key = (core.node_id(), core.name().to_owned());
        self.write().groups.insert(key, Arc::downgrade(core));
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, id: u64) {
        self.write().cut.insert(id);
    }

    /// Undoes [`Loopback::isolate`].
    pub fn heal(&self, id: u64) {
        self.write().cut.remove(&id);
    }

    fn write(&self) -> RwLockWriteGuard<'_, Network> {
        self.network.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self, peer: &Peer) -> Option<Arc<GroupCore>> {
        let network = self.network.read().unwrap_or_else(PoisonError::into_inner);
        if network.cut.contains(&peer.id) || network.cut.contains(&self.from) {
            return None;
        }
        network.groups.get(&(peer.id, peer.group.clone()))?.upgrade()
    }
}

impl Transport for Loopback {
    fn call(&self, peer: Peer, kind: RpcKind, body: Bytes, _: Duration) -> TransportFuture {
        let target = self.target(&peer);
        let network = self.clone();
        Box::pin(async move {
            let cut = || format!("node {} is cut off", peer.id);
            let core = target.ok_or_else(|| TransportError::Unreachable(cut()))?;
            let answer = core.handle(kind, body).await.map_err(|e| match e {
                GroupError::Stopped => TransportError::Unreachable(e.to_string()),
                other => TransportError::Failed(other.to_string()),
            })?;
            // The link may have been cut while the peer worked: the answer is then lost.
            network.target(&peer).ok_or_else(|| TransportError::Failed(cut()))?;
            Ok(answer)
        })
    }
}
