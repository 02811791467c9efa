//! Any node answers: writes and linearizable reads by each node's own address.

use std::time::Duration;

use crate::{
    cluster::Cluster,
    verdict::judge,
    workload::{Routing, Scene, Workload},
};

const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_acknowledged_every_node_reads_at_once() {
    let Some(cluster) = Cluster::start().await else { return };
    let scene = Scene::set(&cluster).await;
    let members = cluster.place.members();
    for writer in &members {
        for key in ["reg-0", "reg-1"] {
            let value = scene.write(writer.id, key, LIMIT).await.unwrap();
            for reader in &members {
                let read = scene.read(reader.id, key, LIMIT).await.unwrap();
                assert_eq!(read, Some(value), "node {} is behind node {}", reader.id, writer.id);
            }
        }
    }

    // Each worker keeps to its node, and no operation may fail.
    let load = Workload::start(&scene, 6, Routing::Pinned).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ran = load.stop().await;
    judge("every node", &cluster, &scene, ran).await;
}
