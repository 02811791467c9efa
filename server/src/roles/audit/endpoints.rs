//! Where the audit log's replicas are, as everything here that asks them is told.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use provost_audit_store::{AuditClient, AuditEndpoint, AuditNode};
use provost_wire::tls::{Identity, Role};
use tonic::transport::Channel;

use super::{
    keys::GroupKeys,
    relay::Relays,
    roster::{Roster, Rosters},
};

/// Between two looks at whether the replica here is open.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Those who are told where the replicas are.
pub(super) struct Followers {
    pub(super) client: AuditClient,
    pub(super) keys: Arc<GroupKeys>,
    pub(super) relays: Relays,
}

/// Keeps the writer's replicas as the roster has them; that of this process comes first.
pub(super) async fn follow_endpoints(
    Followers { client, keys, relays }: Followers,
    node: Arc<OnceLock<AuditNode>>,
    identity: Arc<Identity>,
    mut rosters: Rosters,
) {
    loop {
        let roster = rosters.borrow_and_update().clone();
        let here = node.get().map(|node| (node.metrics().node_id, node.proposer()));
        let own = here.as_ref().map(|(id, _)| *id);
        let mut endpoints: Vec<AuditEndpoint> = here.into_iter().map(|(_, p)| AuditEndpoint::Here(p)).collect();
        let others = roster.keepers.iter().filter(|(id, _)| Some(**id) != own);
        let others = others
            .filter_map(|(_, keeper)| Some((keeper.name.clone(), Roster::channel(&identity, keeper, Role::AuditLog)?)));
        let others: Vec<(String, Channel)> = others.collect();
        keys.set(others.iter().map(|(_, channel)| channel.clone()).collect());
        relays.set(others.iter().map(|(_, channel)| channel.clone()).collect());
        endpoints.extend(others.into_iter().map(|(name, channel)| AuditEndpoint::There { name, channel }));
        client.set(endpoints);
        let opened = async {
            while own.is_none() && node.get().is_none() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if own.is_some() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = rosters.changed() => if changed.is_err() { return },
            () = opened => {}
        }
    }
}
