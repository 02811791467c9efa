//! Models from node to node: this GPU node's, for the others of the cluster, and theirs, for this one.
//!
//! Who they are comes from the member list; what is copied says the state that the node runs.

use std::sync::Arc;

use provost_gpu_serve::{BlobPeer, GpuCallers, GpuNode};
use provost_types::BoxFuture;
use provost_wire::tls::{Identity, Role};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Extensions, Status};

use super::{
    audit::{
        Callers,
        roster::{Keeper, Roster, Rosters, follow_elsewhere, follow_here},
    },
    control::ControlRole,
    until,
};
use crate::config::ServerConfig;

/// The file with the last known nodes, in the data folder.
const NOTED: &str = "model-nodes.json";
const MIB: u64 = 1 << 20;

/// Members with the role gpu-node.
pub(super) struct GpuNodesOnly(pub(super) Callers);

impl GpuCallers for GpuNodesOnly {
    fn admit<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let admitted = self.0.with_role(connection, Role::GpuNode).await;
            admitted.map_err(|status| Status::new(status.code(), format!("PV-GPU-PEER: {}", status.message())))
        })
    }
}

/// Brings models that are declared and not here from the other GPU nodes, until the node stops.
pub(super) fn follow(
    config: &ServerConfig,
    identity: &Arc<Identity>,
    control: Option<&ControlRole>,
    gpu: &GpuNode,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let (rosters, known) = watch::channel(Roster::default());
    let (peers, told) = watch::channel(Vec::new());
    let control = control.map(|control| control.node.clone());
    let (nodes, noted) = (config.control_plane.clone(), config.data_dir.join(NOTED));
    let (own, identity, asking) = (config.node.clone(), identity.clone(), identity.clone());
    let copying = gpu.fetch_models(told, config.gpu.disk_reserve_mib.saturating_mul(MIB));
    let following = async move {
        match control {
            Some(node) => follow_here(node, Role::GpuNode, rosters).await,
            None => follow_elsewhere(asking, nodes, noted, Role::GpuNode, rosters).await,
        }
    };
    let all = async move {
        tokio::join!(following, tell(own, identity, known, peers), copying);
    };
    until(all, tasks, stop);
}

/// Tells who the other GPU nodes are.
async fn tell(own: String, identity: Arc<Identity>, mut rosters: Rosters, peers: watch::Sender<Vec<BlobPeer>>) {
    loop {
        let roster = rosters.borrow_and_update().clone();
        let peer = |keeper: &Keeper| {
            let channel = Roster::channel(&identity, keeper, Role::GpuNode)?;
            Some(BlobPeer { name: keeper.name.clone(), channel })
        };
        let others = roster.keepers.values().filter(|keeper| keeper.name != own);
        peers.send_replace(others.filter_map(peer).collect());
        if rosters.changed().await.is_err() {
            return;
        }
    }
}
