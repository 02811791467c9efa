//! The client against control-plane nodes that behave and that do not.

use std::{sync::Arc, time::Duration};

use provost_types::{BoxFuture, Revision};
use provost_wire::node::{NackProblem, PluginWaiting, PluginsStanding, Refused, push_down::Down, push_up::Up};

use super::{Doors, Fake, Stream, World, config, received};
use crate::push::{Activate, HealthCounts, PushClient, Pushed};

/// Runs everything but revisions that it was told to refuse.
struct Picky(Vec<u64>);

impl Activate for Picky {
    fn activate(&self, pushed: Arc<Pushed>) -> BoxFuture<'_, Result<(), Vec<NackProblem>>> {
        let problem = NackProblem { code: "PV-POLICY-SYNTAX".into(), message: "no".into(), ..Default::default() };
        let refused = self.0.contains(&pushed.snapshot.revision.0);
        Box::pin(async move { if refused { Err(vec![problem]) } else { Ok(()) } })
    }
}

fn drive(client: &PushClient, refused: Vec<u64>) {
    let activation = client.activation();
    tokio::spawn(async move { activation.drive(&Picky(refused)).await });
}

#[tokio::test]
async fn states_are_followed_and_answered() {
    let mut fake = Fake::start().await;
    let counts = HealthCounts { calls: 9, denials: 2, errors: 1 };
    let mut config = config();
    config.group = "canary".into();
    config.counts = Arc::new(move || counts);
    let client = PushClient::start(config, Arc::new(Doors::to(&[&fake]))).unwrap();
    drive(&client, vec![]);
    let mut stream = fake.stream().await;
    let hello = &stream.hello;
    assert_eq!((hello.node.as_str(), hello.epoch, hello.group.as_str()), ("n1", 7, "canary"));
    assert_eq!((hello.revision, hello.hash.len(), hello.wire_version), (0, 0, provost_wire::WIRE_VERSION));
    match stream.message().await {
        Up::Health(health) => assert_eq!((health.revision, health.calls, health.denials), (0, 9, 2)),
        other => panic!("{other:?}"),
    }
    let mut world = World::new();
    stream.send(Down::Whole(world.whole())).await;
    stream.acked(&world).await;
    let delta = world.change(&[("bob", "new")], &["ann"]);
    stream.send(Down::Delta(delta)).await;
    stream.acked(&world).await;
    world.assert_is(&*received(&client, 2).await);
    loop {
        if let Up::Health(health) = stream.message().await
            && health.revision == 2
        {
            assert_eq!((health.calls, health.errors), (0, 0), "counts begin anew with a revision");
            break;
        }
    }
    stream.bookmark(2, 10).await;
    stream.bookmark(2, 20).await;
    let confirmed = async {
        while client.staleness().confirmed_ago.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(super::SOON, confirmed).await.expect("never confirmed");
    let staleness = client.staleness();
    assert_eq!((staleness.received, staleness.active), (Revision(2), Some(Revision(2))));
    assert_eq!(staleness.connected, Some(fake.address.clone()));
    client.stop().await;
}

#[tokio::test]
async fn how_far_plugins_are_is_told_to_each_control_plane_node_and_when_it_changes() {
    let mut fake = Fake::start().await;
    let standing = Arc::new(std::sync::Mutex::new(PluginsStanding::default()));
    let read = standing.clone();
    let mut config = config();
    config.plugins = Some(Arc::new(move || read.lock().unwrap().clone()));
    let client = PushClient::start(config, Arc::new(Doors::to(&[&fake]))).unwrap();
    drive(&client, vec![]);
    let mut stream = fake.stream().await;
    assert_eq!(stream.answer().await, Up::Plugins(PluginsStanding::default()));
    let waiting = PluginWaiting { tenant: "acme".into(), plugin: "text".into(), ..Default::default() };
    let coming = PluginsStanding { revision: 3, waiting: vec![waiting], cut: false };
    *standing.lock().unwrap() = coming.clone();
    // Not twice: the next answer is the next change.
    assert_eq!(stream.answer().await, Up::Plugins(coming));
    let ready = PluginsStanding { revision: 3, ..Default::default() };
    *standing.lock().unwrap() = ready.clone();
    assert_eq!(stream.answer().await, Up::Plugins(ready.clone()));
    drop(stream);
    assert_eq!(fake.stream().await.answer().await, Up::Plugins(ready));
    client.stop().await;
}

#[tokio::test]
async fn a_refused_state_is_reported_to_each_control_plane_node_and_the_old_one_stays() {
    let mut fake = Fake::start().await;
    let client = PushClient::start(config(), Arc::new(Doors::to(&[&fake]))).unwrap();
    drive(&client, vec![2]);
    let mut stream = fake.stream().await;
    let mut world = World::new();
    stream.send(Down::Whole(world.whole())).await;
    stream.acked(&world).await;
    stream.send(Down::Delta(world.change(&[("ann", "bad")], &[]))).await;
    let is_refusal = |up: Up| match up {
        Up::Nack(nack) => {
            assert_eq!((nack.revision, nack.problems[0].code.as_str()), (2, "PV-POLICY-SYNTAX"));
        }
        other => panic!("{other:?}"),
    };
    is_refusal(stream.answer().await);
    assert_eq!((client.staleness().received, client.staleness().active), (Revision(2), Some(Revision(1))));

    // The next control-plane node is told what the node has, runs, and refused.
    drop(stream);
    let mut again = fake.stream().await;
    assert_eq!((again.hello.revision, &again.hello.hash[..]), (2, &world.hash()[..]));
    match again.answer().await {
        Up::Ack(ack) => assert_eq!(ack.revision, 1),
        other => panic!("{other:?}"),
    }
    is_refusal(again.answer().await);
    again.send(Down::Delta(world.change(&[("ann", "good")], &[]))).await;
    again.acked(&world).await;
    client.stop().await;
}

#[tokio::test]
async fn a_state_with_the_wrong_hash_is_asked_for_anew() {
    let mut fake = Fake::start().await;
    let client = PushClient::start(config(), Arc::new(Doors::to(&[&fake]))).unwrap();
    let stream = fake.stream().await;
    let mut world = World::new();
    stream.send(Down::Whole(world.whole())).await;
    received(&client, 1).await;
    let mut delta = world.change(&[("ann", "changed")], &[]);
    delta.puts.clear();
    stream.send(Down::Delta(delta)).await;
    let again = fake.stream().await;
    assert_eq!((again.hello.revision, again.hello.hash.len()), (0, 0));
    assert_eq!(client.staleness().received, Revision(1), "the old state stays meanwhile");
    again.send(Down::Whole(world.whole())).await;
    world.assert_is(&*received(&client, 2).await);
    client.stop().await;
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_refused_and_asked_for_anew() {
    let mut fake = Fake::start().await;
    let client = PushClient::start(config(), Arc::new(Doors::to(&[&fake]))).unwrap();
    let stream = fake.stream().await;
    let mut world = World::new();
    stream.send(Down::Whole(world.whole())).await;
    received(&client, 1).await;
    let mut delta = world.change(&[("ann", "changed")], &[]);
    delta.puts[0] = br#"{"metadata":{"name":"ann"},"spec":{"OfALaterRelease":{}}}"#.as_slice().into();
    stream.send(Down::Delta(delta)).await;
    let mut again = fake.stream().await;
    assert!(again.hello.hash.is_empty());
    match again.answer().await {
        Up::Nack(nack) => assert_eq!((nack.revision, nack.problems[0].code.as_str()), (2, "PV-PUSH-DOCUMENT")),
        other => panic!("{other:?}"),
    }
    client.stop().await;
}

#[tokio::test]
async fn a_silent_stream_is_left_and_nobody_at_a_door_is_passed_by() {
    let mut fake = Fake::start().await;
    let doors = Doors::to(&[&fake]);
    doors.0.lock().push("http://127.0.0.1:9".into());
    let mut config = config();
    // Long enough for the second stream to be served on a busy machine.
    config.timings.silence = Duration::from_secs(2);
    let client = PushClient::start(config, Arc::new(doors)).unwrap();
    let first = fake.stream().await;
    let second = fake.stream().await;
    assert!(first.down.is_closed(), "the silent stream was not left");
    let world = World::new();
    second.send(Down::Whole(world.whole())).await;
    world.assert_is(&*received(&client, 1).await);
    client.stop().await;
}

/// Ends at the good node, after the other one had its turn.
async fn visit(old: &mut Fake, good: &mut Fake, meet: impl Fn(Stream)) -> Stream {
    let mut is_met = false;
    loop {
        tokio::select! {
            stream = old.stream() => {
                is_met = true;
                meet(stream);
            }
            stream = good.stream() => if is_met { return stream },
        }
    }
}

#[tokio::test]
async fn a_control_plane_node_that_is_behind_is_left_and_never_believed() {
    let (mut old, mut good) = (Fake::start().await, Fake::start().await);
    let mut world = World::new();
    let before = world.whole();
    world.change(&[("ann", "newer")], &[]);
    let doors = Doors::to(&[&good]);
    let client = PushClient::start(config(), Arc::new(doors.clone())).unwrap();
    let stream = good.stream().await;
    stream.send(Down::Whole(world.whole())).await;
    received(&client, 2).await;
    doors.0.lock().push(old.address.clone());
    drop(stream);

    let stays_behind = |stream: Stream| {
        assert_eq!(stream.hello.revision, 2);
        tokio::spawn(async move {
            while !stream.down.is_closed() {
                stream.bookmark(1, 5).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    };
    drop(visit(&mut old, &mut good, stays_behind).await);

    let offers_the_past = |stream: Stream| {
        let down = Down::Whole(before.clone());
        tokio::spawn(async move { stream.send(down).await });
    };
    let stream = visit(&mut old, &mut good, offers_the_past).await;
    assert_eq!((stream.hello.revision, client.staleness().received), (2, Revision(2)));
    stream.send(Down::Delta(world.change(&[("bob", "")], &[]))).await;
    world.assert_is(&*received(&client, 3).await);

    // Told to go, it goes.
    let refused = Refused { code: "PV-PUSH-STOPPING".into(), ..Default::default() };
    stream.send(Down::Refused(refused)).await;
    old.stream().await;
    client.stop().await;
}
