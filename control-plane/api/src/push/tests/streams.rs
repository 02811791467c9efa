//! The service over a real transport.

use std::time::Instant;

use provost_types::Revision;
use provost_wire::node::{Hello, Nack, NackProblem, push_client::PushClient, push_down::Down, push_up::Up};
use tonic::Code;

use super::{super::RING_BYTES, Model, SOON, Served, TestNode, World, channel, role, serve, transaction, up};

async fn start() -> (World, Served) {
    let mut world = World::new();
    world.put(vec![role("ann", "1"), role("bob", "1")]);
    let served = serve(&world).await;
    (world, served)
}

#[tokio::test]
async fn changes_come_as_deltas_and_bookmarks_follow() {
    let (mut world, served) = start().await;
    let mut node = TestNode::connect(&served.address, "n1", Model::default()).await;
    node.reach(1).await;
    for text in ["2", "3"] {
        let revision = world.put(vec![role("ann", text)]);
        node.reach(revision).await;
    }
    let key_only = transaction(vec![], vec![], Some(4));
    world.commit(&key_only);
    while node.model.key_ring.is_empty() {
        let message = node.message().await.unwrap();
        node.model.take(message);
    }
    assert_eq!((node.model.wholes, node.model.deltas), (1, 3));
    assert_eq!(node.model.read(), world.documents());
    loop {
        if let Some(Down::Bookmark(bookmark)) = node.message().await.unwrap().down {
            assert_eq!((bookmark.revision, bookmark.time_ns), (world.state.revision().0, 77));
            break;
        }
    }
}

#[tokio::test]
async fn a_node_that_comes_back_gets_what_it_missed_only() {
    let (mut world, served) = start().await;
    let mut node = TestNode::connect(&served.address, "n1", Model::default()).await;
    node.reach(2).await;
    let model = std::mem::take(&mut node.model);
    drop(node);
    served.until(<[_]>::is_empty).await;
    // The hub may take a burst as one step: wait for each.
    let mut watcher = TestNode::connect(&served.address, "n2", Model::default()).await;
    for i in 0..3 {
        let revision = world.put(vec![role("ann", &format!("later {i}"))]);
        watcher.reach(revision).await;
    }
    let mut back = TestNode::connect(&served.address, "n1", model).await;
    back.reach(world.state.revision().0).await;
    assert_eq!((back.model.wholes, back.model.deltas), (1, 3));
    assert_eq!(back.model.read(), world.documents());
}

#[tokio::test]
async fn what_nodes_answer_is_reported() {
    let (mut world, served) = start().await;
    let mut node = TestNode::connect(&served.address, "n1", Model::default()).await;
    node.reach(2).await;
    node.ack().await;
    served.until(|s| s.len() == 1 && s[0].active == Some(Revision(2)) && s[0].lag == 0).await;

    let refused = world.put(vec![role("ann", "bad")]);
    node.reach(refused).await;
    let problem =
        |i: usize| NackProblem { code: format!("PV-X-{i}"), message: "é".repeat(1_000), ..Default::default() };
    let nack = Nack { revision: refused, problems: (0..100).map(problem).collect() };
    node.up.send(up(Up::Nack(nack))).await.unwrap();
    served.until(|s| s[0].nacked == Some(Revision(refused))).await;
    let report = served.hub.subscribers().remove(0);
    assert_eq!((report.active, report.lag, report.sent), (Some(Revision(2)), 1, Revision(refused)));
    assert_eq!((report.problems.len(), report.problems[0].code.as_str()), (64, "PV-X-0"));
    assert!(report.problems[0].message.len() <= 1_024);
    assert_eq!((report.role.as_str(), report.version.as_str(), report.epoch), ("data-plane", "test", 1));

    let good = world.put(vec![role("ann", "good")]);
    node.reach(good).await;
    node.ack().await;
    served.until(|s| s[0].active == Some(Revision(good)) && s[0].nacked.is_none() && s[0].problems.is_empty()).await;
    drop(node);
    served.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn who_may_not_subscribe_is_told_why() {
    let (_world, served) = start().await;
    let mut client = PushClient::new(channel(&served.address).await);
    let stranger = client.subscribe(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    assert!(stranger.message().starts_with("PV-PUSH-CERTIFICATE"));

    let hello = Model::default().hello("n1");
    for (hello, code) in [
        (Hello { node: "n2".into(), ..hello.clone() }, "PV-PUSH-IDENTITY"),
        (Hello { wire_version: 9, ..hello.clone() }, "PV-PUSH-VERSION"),
        (Hello { wire_version: 0, ..hello.clone() }, "PV-PUSH-VERSION"),
    ] {
        let mut node = TestNode::with_hello(&served.address, "n1", Model::default(), hello).await;
        assert_eq!(node.refused().await, code);
        assert!(node.message().await.is_none());
    }
    assert!(served.hub.subscribers().is_empty());
}

#[tokio::test]
async fn a_later_start_of_a_node_replaces_an_earlier_one_and_never_the_reverse() {
    let (_world, served) = start().await;
    let hello = |epoch| Hello { epoch, ..Model::default().hello("n1") };
    let mut old = TestNode::with_hello(&served.address, "n1", Model::default(), hello(1)).await;
    old.reach(2).await;
    let mut new = TestNode::with_hello(&served.address, "n1", Model::default(), hello(2)).await;
    new.reach(2).await;
    assert_eq!(old.refused().await, "PV-PUSH-REPLACED");
    let mut late = TestNode::with_hello(&served.address, "n1", Model::default(), hello(1)).await;
    assert_eq!(late.refused().await, "PV-PUSH-EPOCH");
    let epochs: Vec<_> = served.hub.subscribers().iter().map(|s| s.epoch).collect();
    assert_eq!(epochs, [2]);
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_nobody_else() {
    let mut world = World::new();
    world.members(&[(4, "n1"), (5, "n2")]);
    let base = world.put(vec![role("ann", "1")]);
    let served = serve(&world).await;
    let mut removed = TestNode::connect(&served.address, "n1", Model::default()).await;
    let mut other = TestNode::connect(&served.address, "n2", Model::default()).await;
    removed.reach(base).await;
    other.reach(base).await;
    world.members(&[(5, "n2")]);
    assert_eq!(removed.refused().await, "PV-PUSH-REMOVED");
    let revision = world.put(vec![role("ann", "after")]);
    other.reach(revision).await;
    served.until(|s| s.len() == 1 && s[0].node == "n2").await;
}

#[tokio::test]
async fn stopping_ends_every_stream() {
    let (_world, served) = start().await;
    let mut node = TestNode::connect(&served.address, "n1", Model::default()).await;
    node.reach(2).await;
    served.hub.stop();
    assert_eq!(node.refused().await, "PV-PUSH-STOPPING");
    let mut late = TestNode::connect(&served.address, "n2", Model::default()).await;
    assert_eq!(late.refused().await, "PV-PUSH-STOPPING");
}

/// The slow node reads nothing while more is pushed than any buffer on the way holds; the other
/// one follows each revision. Afterwards the slow one has the newest state, by a whole state
/// instead of the many deltas that it missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_node_holds_up_nobody_and_collapses_to_a_whole_state() {
    let (mut world, served) = start().await;
    let mut slow = TestNode::connect(&served.address, "slow", Model::default()).await;
    slow.reach(2).await;
    let mut quick = TestNode::connect(&served.address, "quick", Model::default()).await;
    slow.stays();
    quick.stays();
    let text = "x".repeat(256 << 10);
    let began = Instant::now();
    for i in 0..RING_BYTES / text.len() + 50 {
        let revision = world.put(vec![role("ann", &format!("{i}{text}"))]);
        quick.reach(revision).await;
        assert!(began.elapsed() < 6 * SOON, "the quick node was held up at {i}");
    }
    let last = world.state.revision().0;
    slow.reach(last).await;
    assert_eq!(slow.model.read(), world.documents());
    assert_eq!(slow.model.wholes, 2, "after {} deltas", slow.model.deltas);
}
