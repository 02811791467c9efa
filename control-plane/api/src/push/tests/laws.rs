//! Deltas lead to the same state as whole states, wherever a node begins and however many
//! revisions one step spans.

use std::sync::Arc;

use proptest::prelude::*;
use provost_control_state::{State, Transaction};

use super::{Model, World, role, tenant, transaction};
use crate::push::{RING_BATCHES, batch::Point, image::Image, track::Track};

fn any_transaction() -> impl Strategy<Value = Transaction> {
    let own = || prop_oneof![Just("ann"), Just("bob"), Just("cleo"), Just("dan")];
    let draft = (own(), "[a-z]{0,2}", any::<bool>())
        .prop_map(|(own, text, is_role)| if is_role { role(own, &text) } else { tenant(own, &text) });
    let puts = proptest::collection::vec(draft, 0..4);
    let deletes = proptest::collection::vec((own(), any::<bool>()), 0..2).prop_map(|keys| {
        keys.into_iter().map(|(own, r)| if r { role(own, "") } else { tenant(own, "") }.key()).collect()
    });
    (puts, deletes, proptest::option::weighted(0.2, 1..9_u64))
        .prop_map(|(puts, deletes, key)| transaction(puts, deletes, key))
}

/// Follows the track to its end.
fn catch_up(track: &Track, model: &mut Model) {
    loop {
        let at = (!model.hash.is_empty()).then(|| Point { revision: model.revision, hash: model.hash.clone() });
        let Some(batch) = track.next(at.as_ref(), None) else { return };
        for (i, part) in batch.parts.iter().enumerate() {
            assert_eq!(model.take(part.clone()), i + 1 == batch.parts.len());
        }
        assert_eq!((model.revision, &model.hash), (batch.to.revision, &batch.to.hash));
    }
}

proptest! {
    #[test]
    fn a_node_that_follows_has_what_the_state_has(
        steps in proptest::collection::vec((any_transaction(), any::<bool>(), any::<bool>()), 1..40),
    ) {
        let mut world = World::new();
        let track = Track::new(world.published.state.load_full()).unwrap();
        let mut model = Model::default();
        for (transaction, is_published, is_read) in &steps {
            world.commit(transaction);
            // States that are not taken are skipped, as in a burst.
            if *is_published {
                track.advance(world.published.state.load_full()).unwrap();
            }
            if *is_read {
                catch_up(&track, &mut model);
            }
        }
        track.advance(world.published.state.load_full()).unwrap();
        catch_up(&track, &mut model);
        prop_assert_eq!(model.read(), world.documents());
        prop_assert_eq!(&model.key_ring, world.state.key_ring());
        prop_assert!(model.wholes <= 1, "a node that keeps up needs one whole state");

        // A node with nothing, and an image made at once, come to the same.
        let mut fresh = Model::default();
        catch_up(&track, &mut fresh);
        prop_assert_eq!(&fresh.documents, &model.documents);
        let image = Image::new(world.published.state.load_full()).unwrap();
        prop_assert_eq!(&image.point().hash, &model.hash);
    }

    #[test]
    fn equal_resources_in_other_memory_are_no_change(steps in proptest::collection::vec(any_transaction(), 1..10)) {
        let mut world = World::new();
        let first = world.published.state.load_full();
        for transaction in &steps {
            world.commit(transaction);
        }
        let copy = |s: &State| {
            let resources: Vec<_> = s.resources().values().map(|r| (**r).clone()).collect();
            Arc::new(State::from_parts(s.revision(), resources, vec![], s.compacted(), s.key_ring().clone()))
        };
        let (mut shared, mut copied) = (Image::new(first.clone()).unwrap(), Image::new(first).unwrap());
        let last = world.published.state.load_full();
        let (a, b) = (shared.advance(last.clone()).unwrap(), copied.advance(copy(&last)).unwrap());
        prop_assert_eq!(a.map(|b| b.parts), b.map(|b| b.parts));
    }
}

#[test]
fn what_changed_between_two_hashes_differs() {
    let mut world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for step in [
        transaction(vec![role("ann", "a")], vec![], None),
        transaction(vec![role("ann", "b")], vec![], None),
        transaction(vec![role("ann", "a")], vec![], None),
        transaction(vec![], vec![role("ann", "").key()], None),
        transaction(vec![], vec![], Some(1)),
        transaction(vec![], vec![], Some(2)),
    ] {
        world.commit(&step);
        let image = Image::new(world.published.state.load_full()).unwrap();
        assert!(seen.insert(image.point().hash.clone()), "the hash of {step:?} was there before");
    }
}

#[test]
fn a_large_state_travels_in_parts_that_count_as_one() {
    let mut world = World::new();
    let text = "x".repeat(300 << 10);
    let many = (0..12).map(|i| role(&format!("r{i}"), &text)).collect();
    let track = Track::new(world.published.state.load_full()).unwrap();
    let mut model = Model::default();
    catch_up(&track, &mut model);
    world.put(many);
    track.advance(world.published.state.load_full()).unwrap();
    let at = Point { revision: model.revision, hash: model.hash.clone() };
    let (delta, whole) = (track.next(Some(&at), None).unwrap(), track.next(None, None).unwrap());
    assert_eq!((delta.parts.len(), whole.parts.len()), (4, 4));
    for part in delta.parts.iter().chain(&whole.parts) {
        assert!(document_bytes(part) <= super::super::PART_BYTES);
    }
    catch_up(&track, &mut model);
    assert_eq!((model.wholes, model.deltas), (1, 1));
    assert_eq!(model.read(), world.documents());
}

/// Bytes of the documents of a message.
fn document_bytes(part: &provost_wire::node::PushDown) -> usize {
    use provost_wire::node::push_down::Down;
    match part.down.as_ref().unwrap() {
        Down::Whole(w) => w.resources.iter().map(|r| r.len()).sum(),
        Down::Delta(d) => d.puts.iter().map(|r| r.len()).sum(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_beyond_the_ring_gets_a_whole_state_and_one_within_it_deltas() {
    let mut world = World::new();
    let track = Track::new(world.published.state.load_full()).unwrap();
    let (mut behind, mut close) = (Model::default(), Model::default());
    catch_up(&track, &mut behind);
    for i in 0..10_000 {
        if i == 10_000 - RING_BATCHES {
            catch_up(&track, &mut close);
        }
        world.put(vec![role(&format!("r{}", i % 7), &i.to_string())]);
        track.advance(world.published.state.load_full()).unwrap();
    }
    catch_up(&track, &mut behind);
    assert_eq!((behind.wholes, behind.deltas), (2, 0));
    catch_up(&track, &mut close);
    assert_eq!((close.wholes, close.deltas), (1, RING_BATCHES));
    assert_eq!(behind.documents, close.documents);
    assert_eq!(behind.read(), world.documents());
}

#[test]
fn a_node_that_is_ahead_waits_and_one_with_another_hash_starts_anew() {
    let mut world = World::new();
    let track = Track::new(world.published.state.load_full()).unwrap();
    let here = track.next(None, None).unwrap().to.clone();
    let ahead = Point { revision: here.revision + 5, hash: here.hash.clone() };
    assert!(track.next(Some(&ahead), None).is_none());
    let other = Point { revision: here.revision, hash: vec![1; 32].into() };
    assert!(track.next(Some(&other), None).unwrap().from.is_none());
    // This node passes over what the other was at, without having been there.
    world.next = 10;
    world.put(vec![role("ann", "")]);
    track.advance(world.published.state.load_full()).unwrap();
    assert!(track.next(Some(&ahead), None).unwrap().from.is_none());
    assert!(track.next(Some(&here), None).unwrap().from.is_some());
}
