//! The GPU nodes of the cluster: this process's, for the data planes of others, and others', for the data plane here.
//!
//! Who they are comes from the member list, as with data-plane nodes; what they can do they say themselves.

use std::{sync::Arc, time::Duration};

use provost_data_serve::gpus::{GpuAddress, GpuNodes};
use provost_gpu_serve::{GpuCallers, GpuNode};
use provost_types::BoxFuture;
use provost_wire::tls::{Identity, Role};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Extensions, Status};

use super::{
    audit::{
        Callers,
        roster::{Keeper, Roster, Rosters, follow_elsewhere, follow_here},
    },
    control::ControlRole,
};
use crate::config::ServerConfig;

/// The file with the last known nodes, in the data folder.
const NOTED: &str = "gpu-nodes.json";
/// A data plane that starts waits so long for the first words of GPU nodes: until then it knows none of their models.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

/// Members with the role data-plane.
pub(super) struct DataPlanesOnly(pub(super) Callers);

impl GpuCallers for DataPlanesOnly {
    fn admit<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let admitted = self.0.with_role(connection, Role::DataPlane).await;
            admitted.map_err(|status| Status::new(status.code(), format!("PV-GPU-PEER: {}", status.message())))
        })
    }
}

/// The same, once the node knows what the cluster declares: before, it would serve to all what is there for some tenants only.
pub(super) struct OnceTold {
    pub(super) callers: DataPlanesOnly,
    pub(super) node: Arc<GpuNode>,
}

impl GpuCallers for OnceTold {
    fn admit<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            self.callers.admit(connection).await?;
            match self.node.is_told() {
                true => Ok(()),
                false => Err(Status::unavailable("PV-GPU-PEER: the node does not know yet what the cluster declares")),
            }
        })
    }
}

/// Keeps the nodes as the member list has them, as long as the value is kept.
pub(super) fn follow(
    gpus: &GpuNodes,
    config: &ServerConfig,
    identity: &Arc<Identity>,
    control: Option<&ControlRole>,
) -> AbortOnDropHandle<()> {
    let (rosters, known) = watch::channel(Roster::default());
    let control = control.map(|control| control.node.clone());
    let (nodes, noted) = (config.control_plane.clone(), config.data_dir.join(NOTED));
    let (gpus, identity) = (gpus.clone(), identity.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let asking = identity.clone();
        let following = async {
            match control {
                Some(node) => follow_here(node, Role::GpuNode, rosters).await,
                None => follow_elsewhere(asking, nodes, noted, Role::GpuNode, rosters).await,
            }
        };
        tokio::join!(following, set(&gpus, &identity, known));
    }))
}

/// Waits a bounded time until the nodes are known and have been heard.
pub(super) async fn settle(gpus: &GpuNodes) {
    if tokio::time::timeout(SETTLE_LIMIT, gpus.settled()).await.is_err() {
        tracing::info!("not every GPU node is heard yet; calls of their models are told to come again");
    }
}

async fn set(gpus: &GpuNodes, identity: &Arc<Identity>, mut rosters: Rosters) {
    loop {
        let roster = rosters.borrow_and_update().clone();
        let address = |keeper: &Keeper| {
            let channel = Roster::channel(identity, keeper, Role::GpuNode)?;
            Some(GpuAddress { name: keeper.name.clone(), address: keeper.address.clone(), channel })
        };
        // Before the first answer nothing is known, which is not that there is no node.
        if roster.last_node_id > 0 {
            gpus.set(roster.keepers.values().filter_map(address).collect());
        }
        if rosters.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use provost_types::Name;
    use provost_wire::tls::{Certified, NodeName, PeerInfo};
    use tonic::Code;

    use super::*;
    use crate::roles::{
        audit::standing::{Asking, Standing},
        copies::GpuNodesOnly,
    };

    /// Who connects: a member with this role; `None`: somebody without a certificate.
    fn connection(role: Option<Role>) -> (Extensions, Callers) {
        let name = |text: &str| Name::new(text).unwrap();
        let (not_before, not_after) = (UNIX_EPOCH, SystemTime::now());
        let certified = role.map(|role| {
            let name = NodeName::new(name("provost"), role, name("n"));
            Arc::new(Certified { name, dns: Vec::new(), serial_node_id: None, not_before, not_after })
        });
        let asking = match &certified {
            Some(certified) => Asking::knowing(certified),
            None => Asking::without_nodes(),
        };
        let mut connection = Extensions::new();
        connection.insert(PeerInfo { remote: "127.0.0.1:1".parse().unwrap(), certified });
        (connection, Callers(Arc::new(Standing::Ask(asking))))
    }

    /// What a service for members of one role says to whoever has another one.
    async fn refuses_others(door: impl Fn(Callers) -> Box<dyn GpuCallers>, own: Role) {
        let roles = [Role::DataPlane, Role::GpuNode, Role::AuditLog, Role::ControlPlane];
        for role in roles.into_iter().map(Some).chain([None]) {
            let (connection, callers) = connection(role);
            let said = door(callers).admit(&connection).await;
            let Err(status) = said else {
                assert_eq!(role, Some(own));
                continue;
            };
            let expect = if role.is_some() { Code::PermissionDenied } else { Code::Unauthenticated };
            assert!(status.code() == expect && status.message().contains("PV-GPU-PEER"), "{role:?}: {status}");
            assert_ne!(role, Some(own), "{status}");
        }
    }

    #[tokio::test]
    async fn a_gpu_node_serves_data_planes_only() {
        refuses_others(|callers| Box::new(DataPlanesOnly(callers)), Role::DataPlane).await;
    }

    #[tokio::test]
    async fn files_of_models_go_to_gpu_nodes_only() {
        refuses_others(|callers| Box::new(GpuNodesOnly(callers)), Role::GpuNode).await;
    }
}
