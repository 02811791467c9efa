//! The official conformance suite through three nodes, one request to each in turn.

use crate::{
    any_node_scene::{addresses, scene},
    balancer::{Balancer, Turns},
    harness::{Process, upstream_yaml},
    suite::{is_installed, run_suite},
};

async fn conform(cluster: &str, upstream_era: &str, requirements: &str, turns: Turns) {
    if !is_installed() {
        println!("skipped: the conformance suite needs npx (Node.js); install nodejs and npm");
        return;
    }
    let up = Process::everything(upstream_era);
    let (fleet, token) = tokio::task::block_in_place(|| scene(cluster, &upstream_yaml(&up.url), "up.count_begun"));
    let balancer = Balancer::start(addresses(&fleet), turns, Some(&token)).await;
    let url = balancer.url("/mcp/up");
    let outcome = tokio::task::block_in_place(|| run_suite(&url, requirements));
    let served = balancer.served();
    println!("requests at each node: {served:?}");
    if let Err(output) = outcome {
        panic!("{requirements} through three nodes in front of a {upstream_era} upstream:\n{output}");
    }
    // How many requests a connection carries is the suite's choice.
    let least = if turns == Turns::Requests { 10 } else { 1 };
    assert!(served.iter().all(|n| *n >= least), "a node served next to nothing: {served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conformance_of_three_nodes_modern_client_modern_upstream() {
    conform("conf-mm", "modern", "2026-07-28", Turns::Requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conformance_of_three_nodes_modern_client_legacy_upstream() {
    conform("conf-ml", "legacy", "2026-07-28", Turns::Requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conformance_of_three_nodes_legacy_client_modern_upstream() {
    conform("conf-lm", "modern", "2025-11-25", Turns::Requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conformance_of_three_nodes_legacy_client_legacy_upstream() {
    conform("conf-ll", "legacy", "2025-11-25", Turns::Requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conformance_of_three_nodes_by_connection() {
    conform("conf-con", "modern", "2025-11-25", Turns::Connections).await;
}
