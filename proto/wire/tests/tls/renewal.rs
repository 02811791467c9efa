//! Identities replaced while streams run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use provost_wire::{
    node::{PeerRequest, peer_client::PeerClient},
    tls::{Expect, Identity, channel},
};
use tokio::sync::mpsc;

use crate::{
    authority::{Authority, leaf},
    server::{start, who_am_i},
};

const SERVER: &str = "spiffe://acme/control-plane/1";
const CLIENT: &str = "spiffe://acme/control-plane/2";
/// Life of each certificate: much longer than from one renewal to the next, on a busy machine too.
const LIFE_S: u64 = 6;
/// Renewals, one a second: the first certificates end meanwhile.
const RENEWALS: u64 = 8;

#[tokio::test]
async fn streams_outlive_certificates_and_authorities() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = format!("{}{}", old.pem, new.pem);
    let make = |ca: &Authority, uri: &str, bundle: &str| ca.issue_trusting(&leaf(uri).for_seconds(LIFE_S), bundle);
    let server = Arc::new(Identity::new(&make(&old, SERVER, &old.pem)).unwrap());
    let client = Arc::new(Identity::new(&make(&old, CLIENT, &old.pem)).unwrap());
    let running = start(server.clone()).await;

    // One stream that is busy all the time.
    let connected = channel(client.clone(), &running.address, Expect::control_plane(1)).unwrap();
    let (up, requests) = mpsc::channel::<PeerRequest>(4);
    let requests = futures::stream::unfold(requests, |mut r| async move { Some((r.recv().await?, r)) });
    let mut down = PeerClient::new(connected).exchange(requests.boxed()).await.unwrap().into_inner();
    let (calls, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, stopped) = (calls.clone(), stop.clone());
    let busy = tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            let id = counted.load(Ordering::SeqCst) + 1;
            up.send(PeerRequest { id, ..Default::default() }).await.expect("the stream is open");
            assert_eq!(down.message().await.expect("no failed call").expect("an answer").id, id);
            counted.store(id, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });

    // Meanwhile: renewal each second, a change of the CA in three steps, and new connections.
    let first = client.expires();
    for second in 0..RENEWALS {
        let (ca, bundle) = match second {
            0 | 1 => (&old, &old.pem),
            2 | 3 => (&old, &both),
            4 | 5 => (&new, &both),
            _ => (&new, &new.pem),
        };
        // One after the other: in between, the two are one step apart.
        for (identity, uri) in [(&server, SERVER), (&client, CLIENT)] {
            identity.replace(&make(ca, uri, bundle)).unwrap();
            let fresh = channel(client.clone(), &running.address, Expect::control_plane(1)).unwrap();
            assert_eq!(who_am_i(fresh).await.unwrap(), CLIENT, "second {second}");
            // What runs goes on.
            let before = calls.load(Ordering::SeqCst);
            while calls.load(Ordering::SeqCst) < before + 2 {
                assert!(!busy.is_finished(), "second {second}: the stream ended");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert!(first < SystemTime::now(), "the stream outlived no certificate");
    stop.store(true, Ordering::SeqCst);
    busy.await.unwrap();
    assert!(client.expires() > SystemTime::now());
}

#[tokio::test]
async fn without_renewal_new_connections_end_with_the_certificate() {
    let ca = Authority::new("ca");
    let running = start(ca.identity(SERVER)).await;
    let client = Arc::new(Identity::new(&ca.issue(&leaf(CLIENT).for_seconds(3))).unwrap());
    let connect = || channel(client.clone(), &running.address, Expect::control_plane(1)).unwrap();
    let before = connect();
    assert_eq!(who_am_i(before.clone()).await.unwrap(), CLIENT);
    tokio::time::sleep(Duration::from_millis(4_200)).await;
    assert!(who_am_i(connect()).await.is_err());
    assert_eq!(who_am_i(before).await.unwrap(), CLIENT);
    client.replace(&ca.issue(&leaf(CLIENT))).unwrap();
    assert_eq!(who_am_i(connect()).await.unwrap(), CLIENT);
}

#[test]
fn an_identity_becomes_no_other() {
    let ca = Authority::new("ca");
    let identity = ca.identity(CLIENT);
    for other in ["spiffe://acme/control-plane/3", "spiffe://umbra/control-plane/2", "spiffe://acme/data-plane/2"] {
        let refused = identity.replace(&ca.issue(&leaf(other))).unwrap_err();
        assert_eq!(refused.code(), "PV-TLS-NAME", "{refused}");
    }
    let mut mixed = ca.issue(&leaf(CLIENT));
    mixed.key = ca.issue(&leaf(CLIENT)).key;
    assert_eq!(identity.replace(&mixed).unwrap_err().code(), "PV-TLS-CERTIFICATE");
    assert_eq!(identity.name().to_string(), CLIENT);
}
