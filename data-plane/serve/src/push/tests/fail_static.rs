//! With no control plane the node runs what ran before.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use provost_types::BoxFuture;
use provost_wire::node::{push_down::Down, push_up::Up};

use super::{Doors, Fake, SOON, World, config, received, saved};
use crate::push::{Activate, Freshness, NackProblem, PushClient, PushConfig, Pushed, StalenessLimits};

fn stored(dir: &std::path::Path) -> PushConfig {
    PushConfig { store: Some(dir.to_owned()), ..config() }
}

#[tokio::test]
async fn a_node_boots_from_disk_and_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new();
    world.key_ring.insert(1, "wrapped".into());
    let mut fake = Fake::start().await;
    let client = PushClient::start(stored(dir.path()), Arc::new(Doors::to(&[&fake]))).unwrap();
    assert!(client.pushed().borrow().is_none());
    let mut stream = fake.stream().await;
    stream.send(Down::Whole(world.whole())).await;
    let good = received(&client, 1).await;
    client.activation().active(&good);
    stream.acked(&world).await;
    stream.bookmark(1, 10).await;
    stream.bookmark(1, 11).await;

    // The next one cannot be run: it must not be what the node boots from.
    let mut next = world.clone();
    let bad = next.change(&[("ann", "bad")], &[]);
    stream.send(Down::Delta(bad.clone())).await;
    let refused = received(&client, 2).await;
    client.activation().refused(&refused, vec![]);
    client.stop().await;

    // Nobody is there.
    let limits = StalenessLimits::default();
    let client = PushClient::start(stored(dir.path()), Arc::new(Doors::default())).unwrap();
    let booted = client.pushed().borrow().clone().unwrap();
    world.assert_is(&booted);
    assert_eq!(booted, good);
    assert_eq!(client.staleness_reader().freshness(&limits), Freshness::Fresh, "it was confirmed a moment ago");
    let staleness = client.staleness();
    assert_eq!((staleness.connected, staleness.heard_ago, staleness.active), (None, None, None));
    client.stop().await;

    // Somebody is there again: only what changed is sent.
    let client = PushClient::start(stored(dir.path()), Arc::new(Doors::to(&[&fake]))).unwrap();
    let stream = fake.stream().await;
    assert_eq!((stream.hello.revision, &stream.hello.hash[..]), (1, &world.hash()[..]));
    stream.send(Down::Delta(bad)).await;
    next.assert_is(&*received(&client, 2).await);
    client.stop().await;
}

#[tokio::test]
async fn a_burst_writes_the_newest_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let (mut config, gap) = (stored(dir.path()), Duration::from_millis(200));
    config.timings.save_gap = gap;
    let client = PushClient::start(config, Arc::new(Doors::to(&[&fake]))).unwrap();
    let stream = fake.stream().await;
    let mut world = World::new();
    stream.send(Down::Whole(world.whole())).await;
    client.activation().active(&received(&client, 1).await);
    saved(&client, 1).await;
    let mut writes = client.saved();
    writes.mark_unchanged();
    let began = Instant::now();
    for i in 0..40 {
        stream.send(Down::Delta(world.change(&[("ann", &i.to_string())], &[]))).await;
        client.activation().active(&received(&client, world.revision).await);
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&world.revision) {
        tokio::time::timeout(super::SOON, writes.changed()).await.expect("never written").unwrap();
        seen.push(writes.borrow_and_update().unwrap().0);
    }
    let gaps = began.elapsed().as_millis() / gap.as_millis();
    assert!(seen.len() as u128 <= gaps + 2, "more often than each {gap:?}: {seen:?}");

    // Stopping does not wait for the gap.
    stream.send(Down::Delta(world.change(&[("ann", "last")], &[]))).await;
    client.activation().active(&received(&client, world.revision).await);
    client.stop().await;
    let client = PushClient::start(stored(dir.path()), Arc::new(Doors::default())).unwrap();
    world.assert_is(client.pushed().borrow().as_ref().unwrap());
    client.stop().await;
}

#[tokio::test]
async fn a_failed_write_is_tried_again_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = PushClient::start(stored(dir.path()), Arc::new(Doors::to(&[&fake]))).unwrap();
    // A folder stands where the new file would be written.
    let obstacle = dir.path().join("last-good.tmp");
    fs::create_dir(&obstacle).unwrap();
    let mut stream = fake.stream().await;
    let mut world = World::new();
    stream.send(Down::Whole(world.whole())).await;
    client.activation().active(&received(&client, 1).await);
    stream.acked(&world).await;
    stream.send(Down::Delta(world.change(&[("ann", "on")], &[]))).await;
    client.activation().active(&received(&client, 2).await);
    stream.acked(&world).await;
    assert_eq!(*client.saved().borrow(), None);
    fs::remove_dir(&obstacle).unwrap();
    saved(&client, 2).await;
    client.stop().await;
}

#[tokio::test]
async fn a_damaged_state_is_not_run() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("last-good"), b"not a state").unwrap();
    let mut fake = Fake::start().await;
    let client = PushClient::start(stored(dir.path()), Arc::new(Doors::to(&[&fake]))).unwrap();
    assert!(client.pushed().borrow().is_none());
    assert!(dir.path().join("last-good.aside").exists());
    assert_eq!(client.staleness_reader().freshness(&StalenessLimits::default()), Freshness::GrantsExpired);
    assert_eq!(fake.stream().await.hello.revision, 0);
    client.stop().await;
}

/// A node whose build cannot run what an earlier one ran.
struct Picky;

impl Activate for Picky {
    fn activate(&self, pushed: Arc<Pushed>) -> BoxFuture<'_, Result<(), Vec<NackProblem>>> {
        let problem = NackProblem { code: "PV-POLICY-INVALID".to_owned(), ..NackProblem::default() };
        let ends = if pushed.snapshot.revision.0 > 1 { Ok(()) } else { Err(vec![problem]) };
        Box::pin(std::future::ready(ends))
    }
}

#[tokio::test]
async fn a_stored_state_that_cannot_be_run_is_reported_and_replaced_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new();
    let mut fake = Fake::start().await;
    let client = PushClient::start(stored(dir.path()), Arc::new(Doors::to(&[&fake]))).unwrap();
    let first = fake.stream().await;
    first.send(Down::Whole(world.whole())).await;
    client.activation().active(&received(&client, 1).await);
    saved(&client, 1).await;
    client.stop().await;

    let client = PushClient::start(stored(dir.path()), Arc::new(Doors::to(&[&fake]))).unwrap();
    let activation = client.activation();
    tokio::spawn(async move { activation.drive(&Picky).await });
    let mut stream = fake.stream().await;
    let Up::Nack(nack) = stream.answer().await else { panic!("the refusal was not reported") };
    assert_eq!((nack.revision, nack.problems[0].code.as_str()), (1, "PV-POLICY-INVALID"));
    assert_eq!(client.staleness().active, None, "it runs what it refused");
    stream.send(Down::Delta(world.change(&[("ann", "mended")], &[]))).await;
    tokio::time::timeout(SOON, stream.acked(&world)).await.expect("the next state was not run");
    saved(&client, 2).await;
    client.stop().await;
}
