//! Certificates of seconds, renewed under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt, stream};
use provost_wire::{
    node::{PeerRequest, ReadmitRequest, RenewRequest, identity_client::IdentityClient, peer_client::PeerClient},
    tls::{Identity, Role},
};
use tokio::sync::{Notify, mpsc};

use super::{
    membership::call,
    world::{certify, certify_at, name, start},
};
use crate::identity::{
    KeyRequest, LocalRenewer, NodeRecord, RemoteRenewer, Renewer, RotationStep, readmit, renew_loop,
    renew_on_authority_change, renew_once,
};

/// Life of a certificate: a third of it is left for a renewal, on a busy machine too.
const LIFE: Duration = Duration::from_secs(6);
/// From one step of a change of the CA to the next: when every certificate has been renewed, and some.
const BETWEEN_STEPS: Duration = Duration::from_millis(6_300);

fn renewing(identity: &Arc<Identity>, renewer: Arc<dyn Renewer>) -> (tempfile::TempDir, Arc<Notify>) {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::new(Notify::new()));
    tokio::spawn(renew_loop(identity.clone(), dir.path().to_owned(), renewer, now.clone()));
    (dir, now)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_everybody_renews_and_the_ca_changes() {
    let world = start(LIFE).await;
    let node = Arc::new(Identity::new(&world.join("dp-1", Role::DataPlane).await.material).unwrap());
    let local = LocalRenewer::new(world.server.clone(), world.certifier.clone());
    let (_server_dir, server_now) = renewing(&world.server, Arc::new(local));
    tokio::spawn(renew_on_authority_change(
        world.memory.changes.subscribe(),
        world.memory.clone(),
        world.server.clone(),
        server_now,
    ));
    let channel = world.connect(&node);
    let (node_dir, _) = renewing(&node, Arc::new(world.renewer(&node)));

    let (up, requests) = mpsc::channel::<PeerRequest>(4);
    let requests = stream::unfold(requests, |mut r| async move { Some((r.recv().await?, r)) }).boxed();
    let mut down = PeerClient::new(channel).exchange(requests).await.unwrap().into_inner();
    let (calls, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, stopped) = (calls.clone(), stop.clone());
    let busy = tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            let id = counted.load(Ordering::SeqCst) + 1;
            up.send(PeerRequest { id, ..Default::default() }).await.expect("the stream is open");
            assert_eq!(down.message().await.expect("no failed call").expect("an answer").id, id);
            counted.store(id, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });

    let mut steps =
        vec![RotationStep::Finish { force: false }, RotationStep::Commit { force: false }, RotationStep::Begin];
    let (first, mut due) = (node.expires(), Instant::now() + Duration::from_millis(900));
    loop {
        if Instant::now() >= due {
            // The last wait is for what the last step left behind.
            let Some(step) = steps.pop() else { break };
            world.certifier.rotate(step, SystemTime::now()).await.unwrap();
            due = Instant::now() + if steps.is_empty() { LIFE / 2 } else { BETWEEN_STEPS };
        }
        // New connections, all the time, and the old one goes on.
        let before = calls.load(Ordering::SeqCst);
        call(&world, &node).await.unwrap();
        while calls.load(Ordering::SeqCst) < before + 2 {
            assert!(!busy.is_finished(), "the stream ended");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::SeqCst);
    busy.await.unwrap();
    assert!(node.expires() > first + Duration::from_secs(6));
    // What is used is what is stored.
    assert_eq!(Identity::load(node_dir.path()).unwrap().certified(), node.certified());
}

#[tokio::test]
async fn failures_change_nothing_and_are_tried_again() {
    let world = start(Duration::from_secs(60)).await;
    let node = Arc::new(Identity::new(&world.join("dp-1", Role::DataPlane).await.material).unwrap());
    let remote = world.renewer(&node);
    let dir = tempfile::tempdir().unwrap();
    let before = node.certified();
    world.memory.no_quorum.store(true, Ordering::SeqCst);
    let failed = renew_once(&node, dir.path(), &remote).await.unwrap_err();
    assert_eq!(failed.code(), "PV-RAFT-NO-QUORUM");
    assert_eq!(node.certified(), before);
    assert!(!dir.path().join("cert.pem").exists());
    world.memory.no_quorum.store(false, Ordering::SeqCst);
    renew_once(&node, dir.path(), &remote).await.unwrap();
    assert!(node.expires() >= before.not_after);
    assert_eq!(Identity::load(dir.path()).unwrap().certified(), node.certified());
    // A folder that cannot be written to: the old certificate stays in use.
    let (renewed, file) = (node.certified(), dir.path().join("file"));
    std::fs::write(&file, "x").unwrap();
    assert_eq!(renew_once(&node, &file.join("x"), &remote).await.unwrap_err().code(), "PV-TLS-FILE");
    assert_eq!(node.certified(), renewed);
}

/// After a failure another of the control plane is asked.
#[tokio::test]
async fn a_control_plane_node_that_is_gone_does_not_stop_renewal() {
    let world = start(Duration::from_secs(60)).await;
    let node = Arc::new(Identity::new(&world.join("dp-1", Role::DataPlane).await.material).unwrap());
    let gone = "127.0.0.1:1".to_owned();
    let renewer = RemoteRenewer::new(node.clone(), &[gone, world.address.clone()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut good = 0;
    for _ in 0..4 {
        good += u32::from(renew_once(&node, dir.path(), &renewer).await.is_ok());
    }
    assert!(good == 3, "{good}");
    assert_eq!(RemoteRenewer::new(node.clone(), &[]).map(drop).unwrap_err().code(), "PV-TLS-ADDRESS");
    assert_eq!(RemoteRenewer::new(node, &["x".to_owned()]).map(drop).unwrap_err().code(), "PV-TLS-ADDRESS");
}

/// A whole cluster that was off for longer than a certificate lives.
#[tokio::test]
async fn a_control_plane_node_with_an_ended_certificate_comes_back_by_itself() {
    let world = start(Duration::from_secs(60)).await;
    world.memory.no_quorum.store(true, Ordering::SeqCst);
    let record = NodeRecord { node_id: 1, name: name("cp-1"), roles: Role::ControlPlane.into() };
    let shorter =
        crate::identity::Certifier::new(world.memory.clone(), Arc::new(super::world::Upside), Duration::from_secs(1));
    let identity = Arc::new(Identity::new(&certify(&shorter, &record)).unwrap());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(identity.expires() <= SystemTime::now());
    let dir = tempfile::tempdir().unwrap();
    let local = LocalRenewer::new(identity.clone(), world.certifier.clone());
    renew_once(&identity, dir.path(), &local).await.unwrap();
    assert!(identity.expires() > SystemTime::now() + Duration::from_secs(30));
}

/// A node was certified by a clock that was ahead, and the clock is right again.
#[tokio::test]
async fn a_certificate_that_begins_in_time_to_come_is_replaced() {
    let world = start(Duration::from_secs(60)).await;
    let joined = world.join("dp-1", Role::DataPlane).await;
    let record = NodeRecord { node_id: joined.node_id, name: name("dp-1"), roles: Role::DataPlane.into() };
    let ahead = SystemTime::now() + Duration::from_secs(3 * 86_400);
    let node = Arc::new(Identity::new(&certify_at(&world.certifier, &record, ahead)).unwrap());
    assert!(node.expires() > SystemTime::now() && !node.certified().holds(SystemTime::now()));
    assert!(call(&world, &node).await.is_err(), "TLS took a certificate that has not begun");
    let dir = tempfile::tempdir().unwrap();
    renew_once(&node, dir.path(), &world.renewer(&node)).await.unwrap();
    assert!(node.certified().holds(SystemTime::now()));
    call(&world, &node).await.unwrap();
}

#[tokio::test]
async fn an_ended_certificate_gets_no_new_one_over_an_old_connection() {
    let world = start(Duration::from_secs(8)).await;
    let node = Arc::new(Identity::new(&world.join("dp-1", Role::DataPlane).await.material).unwrap());
    let before = IdentityClient::new(world.connect(&node));
    let renew = || RenewRequest { csr: KeyRequest::make().unwrap().request.into() };
    before.clone().renew(renew()).await.unwrap();
    let left = node.expires().duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_millis(1_100)).await;
    let refused = before.clone().renew(renew()).await.unwrap_err();
    assert!(refused.message().contains("PV-TLS-EXPIRED"), "{refused}");
}

/// A node that was off for longer than its certificate lives, and what it may not do.
#[tokio::test]
async fn a_member_comes_back_with_an_ended_certificate_and_its_key_and_nobody_else_does() {
    let world = start(Duration::from_secs(60)).await;
    let shorter =
        crate::identity::Certifier::new(world.memory.clone(), Arc::new(super::world::Upside), Duration::from_secs(1));
    let joined = world.join("dp-1", Role::DataPlane).await;
    let record = NodeRecord { node_id: joined.node_id, name: name("dp-1"), roles: Role::DataPlane.into() };
    let node = Arc::new(Identity::new(&certify(&shorter, &record)).unwrap());
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert!(call(&world, &node).await.is_err(), "TLS took an ended certificate");

    // What is asked for is bound to the certificate and the new key.
    let csr = || KeyRequest::make().unwrap().request;
    let good = readmit::request(&node, csr()).unwrap();
    let now = SystemTime::now();
    let other = Arc::new(Identity::new(&certify(&shorter, &record)).unwrap());
    let of_other = readmit::request(&other, good.csr.to_vec()).unwrap();
    let foreign = start(Duration::from_secs(60)).await;
    let stranger = Identity::new(&certify(&foreign.certifier, &record)).unwrap();
    let late = now + readmit::MAX_ABSENCE + Duration::from_secs(5);
    let cases = [
        ("another key asked for", ReadmitRequest { csr: csr().into(), ..good.clone() }, now),
        ("another certificate's proof", ReadmitRequest { proof: of_other.proof, ..good.clone() }, now),
        ("no proof", ReadmitRequest { proof: Vec::new().into(), ..good.clone() }, now),
        ("no certificate", ReadmitRequest { certificate: vec![1, 2].into(), ..good.clone() }, now),
        ("another cluster's CA", readmit::request(&stranger, csr()).unwrap(), now),
        ("too late", good.clone(), late),
    ];
    for (what, request, at) in cases {
        let refused = readmit::readmit(&world.certifier, request, at).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), "PV-TLS-EXPIRED", "{what}: {refused}");
    }

    let dir = tempfile::tempdir().unwrap();
    renew_once(&node, dir.path(), &world.renewer(&node)).await.unwrap();
    assert!(node.expires() > SystemTime::now() + Duration::from_secs(30));
    call(&world, &node).await.unwrap();

    // Membership is what counts.
    world.remove(joined.node_id).await;
    let removed = readmit::readmit(&world.certifier, good, SystemTime::now()).await.map(drop).unwrap_err();
    assert_eq!(removed.code(), "PV-TLS-MEMBER");
}

/// A node that has just joined hears of the CA before it hears of itself.
#[tokio::test]
async fn a_new_voter_waits_for_its_membership_before_it_certifies_itself() {
    let world = start(Duration::from_secs(60)).await;
    let joined = world.join("cp-2", Role::ControlPlane).await;
    let identity = Arc::new(Identity::new(&joined.material).unwrap());
    let fresh = Arc::new(super::world::Memory::default());
    let now = Arc::new(Notify::new());
    tokio::spawn(renew_on_authority_change(fresh.changes.subscribe(), fresh.clone(), identity, now.clone()));
    tokio::task::yield_now().await;
    fresh.replay(&world.memory, 1);
    let early = tokio::time::timeout(Duration::from_millis(200), now.notified()).await;
    assert!(early.is_err(), "it renewed before it was a member");
    fresh.replay(&world.memory, usize::MAX);
    tokio::time::timeout(Duration::from_secs(60), now.notified()).await.expect("it never learned of the CA");
}
