//! Nodes come in by a token: once, in time, as whom it is for.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use provost_wire::{
    node::{JoinRequest, join_client::JoinClient},
    tls::{Identity, Role, join_channel},
};

use super::world::{certify, name, start};
use crate::identity::{DEFAULT_LIFE, IdentityError, JoinSecret, KeyRequest, NodeRecord, RotationStep, join, join_as};

#[tokio::test]
async fn a_node_gets_the_name_and_roles_of_its_token() {
    let world = start(DEFAULT_LIFE).await;
    let joined = world.join("dp-1", Role::DataPlane).await;
    assert_eq!((joined.node_id, joined.name.as_str()), (2, "dp-1"));
    assert_eq!(joined.certified.name.to_string(), "spiffe://acme/data-plane/dp-1");
    assert_eq!(joined.certified.serial_node_id, Some(2));
    assert_eq!(joined.response.control_plane["cp-1"], world.address);
    let joined = world.join("cp-2", Role::ControlPlane).await;
    assert_eq!(joined.certified.name.to_string(), "spiffe://acme/control-plane/3");
    assert_eq!(joined.certified.dns, ["cp-2"]);
    assert_eq!(joined.response.control_plane.len(), 2);
    let cluster = crate::identity::Registry::cluster(&*world.memory);
    assert_eq!(cluster.members()[&3].address, "cp-2:1");
    Identity::new(&joined.material).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_for_one_of_many_that_try_at_once() {
    let world = start(DEFAULT_LIFE).await;
    let token = world.token("dp-1", Role::DataPlane).await;
    let tries: Vec<_> = (0..12)
        .map(|n| {
            let (address, token) = (world.address.clone(), token.clone());
            tokio::spawn(async move { join(&address, &token, &format!("n{n}:1")).await })
        })
        .collect();
    let mut codes = Vec::new();
    let mut joined = 0;
    for one in tries {
        match one.await.unwrap() {
            Ok(_) => joined += 1,
            Err(e) => codes.push(e.code().to_owned()),
        }
    }
    assert_eq!(joined, 1, "{codes:?}");
    assert!(codes.iter().all(|c| c == "PV-JOIN-USED"), "{codes:?}");
    assert_eq!(crate::identity::Registry::cluster(&*world.memory).members().len(), 2);
}

#[tokio::test]
async fn a_lost_answer_loses_neither_token_nor_node() {
    let world = start(DEFAULT_LIFE).await;
    let token = world.token("dp-1", Role::DataPlane).await;
    world.memory.lose_answers.store(2, Ordering::SeqCst);
    let joined = join(&world.address, &token, "dp-1:1").await.unwrap();
    assert_eq!(joined.node_id, 2);
    assert_eq!(world.memory.lose_answers.load(Ordering::SeqCst), 0);
    assert_eq!(crate::identity::Registry::cluster(&*world.memory).members().len(), 2);
}

#[tokio::test]
async fn tokens_that_are_not_good_are_refused() {
    let world = start(DEFAULT_LIFE).await;
    let code = |r: Result<_, IdentityError>| r.map(|_: crate::identity::Joined| ()).unwrap_err().code().to_owned();
    assert_eq!(code(join(&world.address, "pv1.x", "").await), "PV-JOIN-TOKEN");

    use secrecy::ExposeSecret;
    let hash = world.certifier.signing().unwrap().hash();
    let guess = JoinSecret::make(hash).unwrap().text();
    assert_eq!(code(join(&world.address, guess.expose_secret(), "").await), "PV-JOIN-TOKEN");
    // Made for a cluster whose CA is another one: the server is not believed.
    let foreign = JoinSecret::make([1; 32]).unwrap().text();
    assert_eq!(code(join(&world.address, foreign.expose_secret(), "").await), "PV-TLS-PEER");

    let short = world.token_for("dp-1", Role::DataPlane, Duration::from_millis(50)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(code(join(&world.address, &short, "").await), "PV-JOIN-EXPIRED");
    let long = world.token_for("dp-1", Role::DataPlane, Duration::from_secs(901)).await;
    assert_eq!(long.unwrap_err().code(), "PV-JOIN-LIFE");
    let taken = world.token_for("cp-1", Role::DataPlane, Duration::ZERO).await;
    assert_eq!(taken.unwrap_err().code(), "PV-JOIN-NAME");

    let nowhere = world.token("cp-2", Role::ControlPlane).await;
    assert_eq!(code(join(&world.address, &nowhere, "").await), "PV-JOIN-ADDRESS");
    // It was not used up by that.
    assert!(join(&world.address, &nowhere, "cp-2:1").await.is_ok());
    assert_eq!(crate::identity::Registry::cluster(&*world.memory).members().len(), 2);
}

#[tokio::test]
async fn a_token_for_another_node_is_refused_and_stays_good() {
    let world = start(DEFAULT_LIFE).await;
    let token = world.token("dp-1", Role::DataPlane).await;
    let as_whom = |node: &'static str, roles: &'static str| {
        let (address, token) = (world.address.clone(), token.clone());
        async move { join_as(&address, &token, "", (node, roles)).await }
    };
    for (node, roles, code) in [
        ("dp-2", "data-plane", "PV-JOIN-TOKEN"),
        ("dp-1", "data-plane,audit-log", "PV-JOIN-ROLE"),
        ("dp-1", "audit-log", "PV-JOIN-ROLE"),
    ] {
        let error = as_whom(node, roles).await.unwrap_err();
        assert_eq!(error.code(), code, "{node} {roles}: {error}");
    }
    assert_eq!(crate::identity::Registry::cluster(&*world.memory).members().len(), 1);
    assert_eq!(as_whom("dp-1", "data-plane").await.unwrap().name.as_str(), "dp-1");
}

#[tokio::test]
async fn nodes_of_a_distant_version_stay_out() {
    let world = start(DEFAULT_LIFE).await;
    let token = world.token("dp-1", Role::DataPlane).await;
    let secret = JoinSecret::parse(&token).unwrap();
    let channel = join_channel(&world.address, secret.ca_hash()).await.unwrap();
    for wire_version in [0, provost_wire::WIRE_VERSION + 2] {
        let csr = KeyRequest::make().unwrap().request.into();
        let request = JoinRequest { token: token.clone(), csr, wire_version, ..Default::default() };
        let refused = JoinClient::new(channel.clone()).join(request).await.unwrap_err();
        assert!(refused.message().contains("PV-JOIN-VERSION"), "{refused}");
    }
    assert!(join(&world.address, &token, "").await.is_ok());
}

/// After a commit the servers renew at once, and tokens of the new CA work.
#[tokio::test]
async fn joining_works_at_each_step_of_a_change_of_the_ca() {
    let world = start(DEFAULT_LIFE).await;
    let now = std::time::SystemTime::now();
    let node = NodeRecord { node_id: 1, name: name("cp-1"), roles: Role::ControlPlane.into() };
    let steps = [
        None,
        Some(RotationStep::Begin),
        Some(RotationStep::Commit { force: true }),
        Some(RotationStep::Finish { force: true }),
    ];
    for (n, step) in steps.into_iter().enumerate() {
        if let Some(step) = step {
            let hashes = world.certifier.rotate(step, now).await.unwrap();
            assert_eq!(hashes.len(), if n == 3 { 1 } else { 2 });
            assert_eq!(hashes[0], world.certifier.signing().unwrap().hash());
        }
        world.server.replace(&certify(&world.certifier, &node)).unwrap();
        let joined = world.join(&format!("dp-{n}"), Role::DataPlane).await;
        let identity = Arc::new(Identity::new(&joined.material).unwrap());
        super::membership::call(&world, &identity).await.unwrap();
    }
    let early = world
        .certifier
        .rotate(RotationStep::Begin, now)
        .await
        .and(world.certifier.rotate(RotationStep::Commit { force: false }, now).await);
    assert_eq!(early.unwrap_err().code(), "PV-CA-TOO-EARLY");
}
