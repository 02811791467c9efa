//! The other data-plane nodes of the cluster, for this one's data plane.
//!
//! Who they are comes from the member list; whether they live they say themselves. Who was a sibling
//! before the control plane went away is one still.

use std::sync::Arc;

use provost_data_serve::siblings::{SiblingAddress, SiblingCallers, Siblings};
use provost_types::BoxFuture;
use provost_wire::tls::{Identity, Role};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Extensions, Status};

use super::{
    audit::{
        Callers,
        roster::{Roster, Rosters, follow_elsewhere, follow_here},
    },
    control::ControlRole,
};
use crate::config::ServerConfig;

/// The file with the last known nodes, in the data folder.
const NOTED: &str = "data-nodes.json";

/// Members with the role data-plane.
pub(super) struct DataNodesOnly(pub(super) Callers);

impl SiblingCallers for DataNodesOnly {
    fn admit<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let admitted = self.0.with_role(connection, Role::DataPlane).await;
            admitted.map_err(|status| Status::new(status.code(), format!("PV-SIBLING-PEER: {}", status.message())))
        })
    }
}

/// Keeps the siblings as the member list has them, and looks who lives, as long as the value is kept:
/// longer than the front end, which needs them until its last call has ended.
pub(super) fn follow(
    siblings: &Arc<Siblings>,
    config: &ServerConfig,
    identity: &Arc<Identity>,
    control: Option<&ControlRole>,
) -> AbortOnDropHandle<()> {
    let (rosters, known) = watch::channel(Roster::default());
    let control = control.map(|control| control.node.clone());
    let (nodes, noted) = (config.control_plane.clone(), config.data_dir.join(NOTED));
    let (siblings, identity) = (siblings.clone(), identity.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let asking = identity.clone();
        let following = async {
            match control {
                Some(node) => follow_here(node, Role::DataPlane, rosters).await,
                None => follow_elsewhere(asking, nodes, noted, Role::DataPlane, rosters).await,
            }
        };
        tokio::join!(following, set(&siblings, &identity, known), siblings.clone().watch());
    }))
}

async fn set(siblings: &Siblings, identity: &Arc<Identity>, mut rosters: Rosters) {
    loop {
        let roster = rosters.borrow_and_update().clone();
        let address = |keeper: &super::audit::roster::Keeper| {
            let channel = Roster::channel(identity, keeper, Role::DataPlane)?;
            Some(SiblingAddress { name: keeper.name.clone(), address: keeper.address.clone(), channel })
        };
        siblings.set(roster.keepers.values().filter_map(address).collect());
        if rosters.changed().await.is_err() {
            return;
        }
    }
}
