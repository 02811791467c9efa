//! Former members are out, newer ones are not mistaken for them.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use provost_wire::{
    node::{
        PeerRequest, PeerResponse, PushDown, PushUp, RenewRequest, identity_client::IdentityClient,
        peer_client::PeerClient, peer_server::Peer, push_client::PushClient, push_server::Push,
    },
    tls::{Identity, Role, join_channel},
};
use tonic::{Request, Response, Status, Streaming};

use super::world::{World, certify, name, start};
use crate::identity::{DEFAULT_LIFE, KeyRequest, NodeRecord, Registry, calling_node, standing};

/// Sends back what it gets, to callers that [`crate::identity::MembersOnly`] let through.
pub(super) struct Echo;

type Down<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Echo {
    type ExchangeStream = Down<PeerResponse>;
    async fn exchange(
        &self,
        request: Request<Streaming<PeerRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        assert!(calling_node(&request).is_some());
        let echo = request.into_inner().map(|r| r.map(|r| PeerResponse { id: r.id, ..Default::default() }));
        Ok(Response::new(Box::pin(echo)))
    }
}

#[tonic::async_trait]
impl Push for Echo {
    type SubscribeStream = Down<PushDown>;
    async fn subscribe(&self, _: Request<Streaming<PushUp>>) -> Result<Response<Self::SubscribeStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }
}

/// One exchange as this node, on a new connection.
pub(super) async fn call(world: &World, identity: &Arc<Identity>) -> Result<(), Status> {
    let once = stream::iter([PeerRequest { id: 1, ..Default::default() }]);
    let mut down = PeerClient::new(world.connect(identity)).exchange(once).await?.into_inner();
    let answer = down.message().await?;
    assert_eq!(answer.map(|a| a.id), Some(1));
    Ok(())
}

async fn renew(world: &World, identity: &Arc<Identity>) -> Result<(), Status> {
    let csr = KeyRequest::make().unwrap().request.into();
    IdentityClient::new(world.connect(identity)).renew(RenewRequest { csr }).await.map(drop)
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_its_successor_of_the_same_name_is_not() {
    let world = start(DEFAULT_LIFE).await;
    let first = Arc::new(Identity::new(&world.join("dp-1", Role::DataPlane).await.material).unwrap());
    call(&world, &first).await.unwrap();
    renew(&world, &first).await.unwrap();
    let mut open =
        PeerClient::new(world.connect(&first)).exchange(stream::pending::<PeerRequest>()).await.unwrap().into_inner();

    world.remove(2).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), open.message()).await.expect("it is cut");
    assert!(ended.is_err());
    assert!(call(&world, &first).await.is_err());
    assert!(renew(&world, &first).await.is_err());

    let joined = world.join("dp-1", Role::DataPlane).await;
    assert_eq!(joined.node_id, 3);
    let second = Arc::new(Identity::new(&joined.material).unwrap());
    assert_eq!(second.name(), first.name());
    call(&world, &second).await.unwrap();
    renew(&world, &second).await.unwrap();
    assert!(call(&world, &first).await.is_err(), "the name is the same, the node is not");
}

#[tokio::test]
async fn services_are_for_members_with_their_role() {
    let world = start(DEFAULT_LIFE).await;
    let node = Arc::new(Identity::new(&world.join("dp-1", Role::DataPlane).await.material).unwrap());
    let gpu = Arc::new(Identity::new(&world.join("gpu-1", Role::GpuNode).await.material).unwrap());
    let code = |e: Status| provost_wire::admin::Failure::of(&e).code;
    assert_eq!(code(call(&world, &gpu).await.unwrap_err()), "PV-TLS-ROLE");
    call(&world, &node).await.unwrap();
    let subscribe =
        |channel| async move { PushClient::new(channel).subscribe(stream::empty::<PushUp>()).await.map(drop) };
    assert_eq!(code(subscribe(world.connect(&node)).await.unwrap_err()), "PV-TLS-ROLE");
    subscribe(world.connect(&gpu)).await.unwrap();
    let nobody = join_channel(&world.address, world.certifier.signing().unwrap().hash()).await.unwrap();
    assert_eq!(code(subscribe(nobody.clone()).await.unwrap_err()), "PV-TLS-NO-CERTIFICATE");
    let renewed = IdentityClient::new(nobody).renew(RenewRequest::default()).await;
    assert_eq!(code(renewed.unwrap_err()), "PV-TLS-NO-CERTIFICATE");
}

#[tokio::test]
async fn standing_tells_the_removed_from_the_new() {
    let world = start(DEFAULT_LIFE).await;
    world.join("dp-1", Role::DataPlane).await;
    world.join("cp-2", Role::ControlPlane).await;
    world.remove(2).await;
    let cluster = world.memory.cluster();
    let certified = |node_id, node: &str, role: Role| {
        let record = NodeRecord { node_id, name: name(node), roles: role.into() };
        Identity::new(&certify(&world.certifier, &record)).unwrap().certified()
    };
    let code = |c| standing(&cluster, &c).map_err(|e| e.code());
    assert_eq!(code(certified(1, "cp-1", Role::ControlPlane)), Ok(Some(1)));
    assert_eq!(code(certified(3, "cp-2", Role::ControlPlane)), Ok(Some(3)));
    assert_eq!(code(certified(2, "dp-1", Role::DataPlane)), Err("PV-TLS-MEMBER"));
    assert_eq!(code(certified(4, "dp-1", Role::DataPlane)), Ok(None), "newer than what is known here");
    assert_eq!(code(certified(4, "cp-9", Role::ControlPlane)), Ok(None));
    assert_eq!(code(certified(3, "cp-2", Role::DataPlane)), Err("PV-TLS-MEMBER"), "another role");
    let mut forged = certified(1, "cp-1", Role::ControlPlane);
    forged.serial_node_id = Some(3);
    assert_eq!(code(forged), Err("PV-TLS-MEMBER"));
    let mut foreign = certified(1, "cp-1", Role::ControlPlane);
    foreign.name = "spiffe://umbra/control-plane/1".parse().unwrap();
    assert_eq!(code(foreign), Err("PV-TLS-MEMBER"));
    // A node that knows nothing yet trusts what the CA signed.
    let blank = provost_control_state::Cluster::default();
    assert_eq!(standing(&blank, &certified(2, "dp-1", Role::DataPlane)), Ok(None));
}
