//! Former members are out, newer ones are not mistaken for them.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use provost_control_state::ClusterCommand;
use provost_wire::{
    node::{
        PeerRequest, PeerResponse, PushDown, PushUp, RenewRequest, identity_client::IdentityClient,
        peer_client::PeerClient, peer_server::Peer, push_client::PushClient, push_server::Push,
    },
    tls::{Certified, Identity, PeerInfo, Role, join_channel},
};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status, Streaming, service::Interceptor};

use super::world::{World, certify, name, start};
use crate::identity::{
    Certifier, DEFAULT_LIFE, JoinSecret, KeyRequest, MembersOnly, NodeRecord, Registry, calling_node, make_join_token,
    standing,
};

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
    let ended = tokio::time::timeout(Duration::from_secs(60), open.message()).await.expect("it is cut");
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

/// An operator's certificate has a name and no number, and says nothing of membership.
#[tokio::test]
async fn with_an_operators_ca_the_list_decides_by_name() {
    let memory = Arc::new(super::world::Memory::default());
    let roles = |role: &str| std::collections::BTreeSet::from([name(role)]);
    let init = ClusterCommand::Init {
        cluster: name("acme"),
        node_id: 1,
        node: name("cp-1"),
        roles: roles("control-plane"),
        address: "cp-1:1".to_owned(),
        authority: None,
        version: Default::default(),
    };
    memory.change(init).await.unwrap();
    let certifier = Certifier::new(memory.clone(), Arc::new(super::world::Upside), DEFAULT_LIFE);
    let now = std::time::SystemTime::now();
    for (node, role) in [("cp-2", Role::ControlPlane), ("dp-1", Role::DataPlane)] {
        let (token, _) = make_join_token(&certifier, &name(node), &role.into(), Duration::ZERO, now).await.unwrap();
        let secret = JoinSecret::parse(token.expose_secret()).unwrap();
        assert!(secret.is_by_operator());
        let (hash, key) = (secret.hash(), "0".repeat(64));
        let used = ClusterCommand::TokenUsed { hash, key, address: "x:1".to_owned(), now_ns: 1 };
        memory.change(used).await.unwrap();
    }
    memory.change(ClusterCommand::NodeRemoved { node_id: 3, time_ns: 0 }).await.unwrap();
    let cluster = memory.cluster();
    let certified = |spiffe: &str, serial_node_id| Certified {
        name: spiffe.parse().unwrap(),
        dns: Vec::new(),
        serial_node_id,
        not_before: now,
        not_after: now,
    };
    let standing_of = |spiffe, serial| standing(&cluster, &certified(spiffe, serial)).map_err(|e| e.code());
    for (spiffe, serial, expect) in [
        ("spiffe://acme/control-plane/cp-2", None, Ok(Some(2))),
        // A number in the serial is chance, and one in the name is a name.
        ("spiffe://acme/control-plane/cp-2", Some(1), Ok(Some(2))),
        ("spiffe://acme/control-plane/2", None, Ok(None)),
        ("spiffe://acme/data-plane/cp-2", None, Err("PV-TLS-MEMBER")),
        ("spiffe://acme/data-plane/dp-1", None, Err("PV-TLS-MEMBER")),
        ("spiffe://acme/data-plane/dp-9", None, Ok(None)),
        ("spiffe://umbra/control-plane/cp-2", None, Err("PV-TLS-MEMBER")),
    ] {
        assert_eq!(standing_of(spiffe, serial), expect, "{spiffe} {serial:?}");
    }
    // Not in the list: only for the service that brings it.
    let ask = |mut members: MembersOnly, spiffe: &str| {
        let mut request = tonic::Request::new(());
        let remote = "127.0.0.1:1".parse().unwrap();
        let certified = Some(Arc::new(certified(spiffe, None)));
        request.extensions_mut().insert(PeerInfo { remote, certified });
        members.call(request).map(drop).map_err(|e| provost_wire::admin::Failure::of(&e).code)
    };
    let members = MembersOnly::new(memory.clone(), &Role::ALL);
    let refused = Err("PV-TLS-MEMBER".to_owned());
    assert_eq!(ask(members.clone(), "spiffe://acme/control-plane/cp-2"), Ok(()));
    assert_eq!(ask(members.clone(), "spiffe://acme/data-plane/dp-9"), refused);
    assert_eq!(ask(members.clone().or_unlisted(), "spiffe://acme/control-plane/cp-9"), Ok(()));
    assert_eq!(ask(members.or_unlisted(), "spiffe://acme/data-plane/dp-1"), refused);
}
