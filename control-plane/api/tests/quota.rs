//! Leases over a real node: made once, kept over a restart, and only in the peer's own name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{sync::Arc, time::Duration};

use common::{ACME, admin, file, open};
use provost_control_api::QuotaService;
use provost_wire::node::{
    LeaseReport, LeaseRequest, LeaseResponse, LeaseWant, quota_client::QuotaClient, quota_server::QuotaServer,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code,
    transport::{Endpoint, Server},
};

const QUOTA: &str = "\
apiVersion: provost/v1
kind: Quota
metadata: {name: daily, tenant: acme}
spec: {limit: 100, unit: calls, window: day}
";

fn request(node: &str, epoch: u64, seq: u64, reports: Vec<LeaseReport>, units: u64) -> LeaseRequest {
    let wants = vec![LeaseWant { account: "acme/daily".into(), units }];
    LeaseRequest { node: node.into(), epoch, seq, reports, wants }
}

fn units(response: &LeaseResponse) -> u64 {
    response.grants[0].units
}

#[tokio::test]
async fn an_exchange_is_made_once_even_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    node.apply(&admin(), &[file("a.yaml", &format!("{ACME}---\n{QUOTA}"))], "", false).await.unwrap();
    let mut snapshots = node.snapshots();
    snapshots.mark_unchanged();
    recorder.taken(&node).await;
    let first = node.lease(request("dp-1", 1, 1, vec![], 30)).await.unwrap();
    assert_eq!((units(&first), first.grants[0].remaining, first.grants[0].limit), (50, 50, 100));
    assert_eq!(node.lease(request("dp-1", 1, 1, vec![], 30)).await.unwrap(), first);
    assert!(!snapshots.has_changed().unwrap());
    assert!(recorder.take().is_empty(), "leases are no administrative changes");
    node.shutdown().await.unwrap();

    let (node, _) = open(dir.path()).await;
    assert_eq!(node.lease(request("dp-1", 1, 1, vec![], 30)).await.unwrap(), first, "the same after a restart");
    let report = LeaseReport { lease: first.grants[0].lease, settled: 10, returned: 40, closed: true };
    let second = node.lease(request("dp-1", 1, 2, vec![report], 90)).await.unwrap();
    assert_eq!((units(&second), second.grants[0].remaining), (90, 0));
    // Another start of the node fences this one.
    assert_eq!(units(&node.lease(request("dp-1", 2, 1, vec![], 1)).await.unwrap()), 0);
    assert!(node.lease(request("dp-1", 1, 3, vec![], 1)).await.unwrap().fenced);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_has_no_bounds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path()).await;
    let table = [
        LeaseRequest { node: String::new(), ..request("dp", 1, 1, vec![], 1) },
        request("dp", 0, 1, vec![], 1),
        request("dp", 1, 0, vec![], 1),
        LeaseRequest { wants: vec![LeaseWant::default(); 10_000], ..request("dp", 1, 1, vec![], 1) },
        LeaseRequest { reports: vec![LeaseReport::default(); 10_000], ..request("dp", 1, 1, vec![], 1) },
        LeaseRequest {
            wants: vec![LeaseWant { account: "x".repeat(10_000), units: 1 }],
            ..request("dp", 1, 1, vec![], 1)
        },
    ];
    for bad in table {
        assert_eq!(node.lease(bad).await.unwrap_err().code(), "PV-QUOTA-EXCHANGE");
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_leases_only_in_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path()).await;
    node.apply(&admin(), &[file("a.yaml", &format!("{ACME}---\n{QUOTA}"))], "", false).await.unwrap();
    type Case = (Option<(&'static str, &'static str)>, Result<u64, Code>);
    let table: [Case; 4] = [
        (Some(("dp-1", "data-plane")), Ok(50)),
        (Some(("dp-2", "control-plane.data-plane")), Err(Code::PermissionDenied)),
        (Some(("dp-1", "gpu-node")), Err(Code::PermissionDenied)),
        (None, Err(Code::Unauthenticated)),
    ];
    for (peer, expect) in table {
        let peer = peer.map(|(node, role)| (node.to_owned(), role.to_owned()));
        let service = QuotaService::new(node.clone(), Arc::new(move |_| peer.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_service(QuotaServer::new(service));
        let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = QuotaClient::new(endpoint.connect().await.unwrap());
        let leased = tokio::time::timeout(Duration::from_secs(20), client.lease(request("dp-1", 1, 1, vec![], 30)));
        let leased = leased.await.unwrap();
        assert_eq!(leased.map(|r| units(r.get_ref())).map_err(|s| s.code()), expect);
        serving.abort();
    }
    node.shutdown().await.unwrap();
}
