//! Many streams at once: from publishing a revision until each node has read it. Correctness is
//! asserted, times are printed. `PROVOST_SCALE` is the number of streams, each with a connection of its
//! own; raise the limit of open files to 4,096 for 1,000 of them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use provost_types::Revision;
use tokio::task::JoinSet;

use super::{Model, TestNode, World, lock_times, role, serve};

const REVISIONS: usize = 50;
const DOCUMENTS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn push_scale() {
    let streams = std::env::var("PROVOST_SCALE").map_or(50, |n| n.parse().unwrap());
    let mut world = World::new();
    world.put((0..DOCUMENTS).map(|i| role(&format!("r{i}"), "a role of a usual length, more or less")).collect());
    let served = serve(&world).await;
    let target = world.state.revision().0 + REVISIONS as u64;
    let began: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let taken: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let mut nodes = JoinSet::new();
    for i in 0..streams {
        let mut node =
            TestNode::connect(&served.address, &format!("n{i}"), Model { lazy: true, ..Model::default() }).await;
        node.reach(1).await;
        node.ack().await;
        let (began, taken) = (began.clone(), taken.clone());
        nodes.spawn(async move {
            while node.model.revision < target {
                let message = node.message().await.unwrap();
                if node.model.take(message) {
                    let index = REVISIONS as u64 - (target - node.model.revision) - 1;
                    lock_times(&taken).push(lock_times(&began)[index as usize].elapsed());
                    node.ack().await;
                }
            }
            assert_eq!((node.model.wholes, node.model.deltas), (1, REVISIONS));
            node
        });
    }
    for i in 0..REVISIONS {
        lock_times(&began).push(Instant::now());
        let revision = world.put(vec![role(&format!("r{}", i % DOCUMENTS), &format!("changed {i}"))]);
        served.until(|s| s.len() == streams && s.iter().all(|s| s.active == Some(Revision(revision)))).await;
    }
    while let Some(node) = nodes.join_next().await {
        let model = node.unwrap().model;
        model.check();
        assert_eq!(model.read(), world.documents());
    }
    let mut times = std::mem::take(&mut *lock_times(&taken));
    times.sort();
    assert_eq!(times.len(), streams * REVISIONS);
    let at = |p: usize| times[(times.len() - 1) * p / 100];
    println!("{streams} streams, {REVISIONS} revisions: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
}
