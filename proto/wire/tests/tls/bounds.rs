//! Slow and many clients, and members that are removed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::stream;
use provost_wire::{
    node::{PeerRequest, peer_client::PeerClient},
    tls::{Admit, Expect, Limits, Role, channel, join_channel},
};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    authority::Authority,
    server::{start_with, who_am_i},
};

const SERVER: &str = "spiffe://acme/control-plane/1";
const CLIENT: &str = "spiffe://acme/data-plane/dp-1";

#[tokio::test]
async fn silent_clients_hold_nobody_up_for_long() {
    let ca = Authority::new("ca");
    let limits = Limits { handshakes: 2, handshake_timeout: Duration::from_secs(1), ..Limits::default() };
    let running = start_with(ca.identity(SERVER), limits, None).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(&running.address).await.unwrap());
    }
    let began = Instant::now();
    let connected = channel(ca.identity(CLIENT), &running.address, Expect::control_plane(1)).unwrap();
    assert_eq!(who_am_i(connected).await.unwrap(), CLIENT);
    assert!(began.elapsed() < Limits::default().handshake_timeout, "{:?}", began.elapsed());
    for mut tcp in silent {
        assert_eq!(tcp.read(&mut [0]).await.unwrap_or(0), 0, "a silent client is cut off");
    }
}

#[tokio::test]
async fn clients_without_certificate_cannot_take_the_places_of_nodes() {
    let ca = Authority::new("ca");
    let limits = Limits { anonymous: 1, nodes: 1, ..Limits::default() };
    let running = start_with(ca.identity(SERVER), limits, None).await;
    let first = join_channel(&running.address, ca.hash).await.unwrap();
    assert_eq!(who_am_i(first.clone()).await.unwrap(), "nobody");
    let second = join_channel(&running.address, ca.hash).await;
    assert!(match second {
        Err(_) => true,
        Ok(second) => who_am_i(second).await.is_err(),
    });
    let node = channel(ca.identity(CLIENT), &running.address, Expect::role(Role::ControlPlane)).unwrap();
    assert_eq!(who_am_i(node.clone()).await.unwrap(), CLIENT);
    let more = channel(ca.identity(CLIENT), &running.address, Expect::role(Role::ControlPlane)).unwrap();
    assert!(who_am_i(more).await.is_err());
    assert_eq!(who_am_i(first).await.unwrap(), "nobody");
    assert_eq!(running.connections.len(), 2);
}

#[tokio::test]
async fn a_removed_member_is_cut_off_and_stays_out() {
    let ca = Authority::new("ca");
    let member = Arc::new(AtomicBool::new(true));
    let admit: Admit = {
        let member = member.clone();
        Arc::new(move |c| c.name.id() != "dp-1" || member.load(Ordering::SeqCst))
    };
    let running = start_with(ca.identity(SERVER), Limits::default(), Some(admit.clone())).await;
    let connect = |uri: &str| channel(ca.identity(uri), &running.address, Expect::control_plane(1)).unwrap();
    let (removed, other) = (connect(CLIENT), connect("spiffe://acme/data-plane/dp-2"));
    who_am_i(other.clone()).await.unwrap();
    let endless = stream::pending::<PeerRequest>();
    let mut open = PeerClient::new(removed.clone()).exchange(endless).await.unwrap().into_inner();

    member.store(false, Ordering::SeqCst);
    assert_eq!(running.connections.cut_unless(|c| admit(c)), 1);
    let ended = tokio::time::timeout(Duration::from_secs(60), open.message()).await.expect("the stream ends");
    assert!(ended.is_err(), "{ended:?}");
    assert!(who_am_i(removed).await.is_err());
    assert!(who_am_i(connect(CLIENT)).await.is_err());
    assert_eq!(who_am_i(other).await.unwrap(), "spiffe://acme/data-plane/dp-2");
}
