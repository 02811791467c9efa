//! Laws of the mirror: it has what the control plane has, or what it had before.

use proptest::prelude::*;
use provost_wire::{
    node::{Delta, Whole},
    state_hash::{Element, Sum},
};

use super::{World, key, resource};
use crate::push::mirror::{Mirror, MirrorError};

/// The same change in parts of one document each.
fn delta_parts(delta: Delta) -> Vec<Delta> {
    let empty = || Delta { from: delta.from, to: delta.to, ..Delta::default() };
    let puts = delta.puts.iter().map(|p| Delta { puts: vec![p.clone()], ..empty() });
    let deletes = delta.deletes.iter().map(|d| Delta { deletes: vec![d.clone()], ..empty() });
    let last = Delta { hash: delta.hash.clone(), key_ring: delta.key_ring.clone(), ..empty() };
    puts.chain(deletes).chain([last]).collect()
}

fn whole_parts(whole: Whole) -> Vec<Whole> {
    let empty = || Whole { revision: whole.revision, ..Whole::default() };
    let parts = whole.resources.iter().map(|r| Whole { resources: vec![r.clone()], ..empty() });
    parts.chain([Whole { resources: vec![], ..whole.clone() }]).collect()
}

type Step = (Vec<(usize, String)>, Vec<usize>, Option<u64>, bool, bool);

fn any_step() -> impl Strategy<Value = Step> {
    let puts = proptest::collection::vec((0..6_usize, "[a-z]{0,3}"), 0..4);
    let deletes = proptest::collection::vec(0..6_usize, 0..3);
    (puts, deletes, proptest::option::weighted(0.2, 0..5_u64), any::<bool>(), any::<bool>())
}

const NAMES: [&str; 6] = ["t-acme", "t-umbra", "ann", "bob", "cleo", "dan"];

proptest! {
    #[test]
    fn deltas_and_whole_states_lead_to_the_same(steps in proptest::collection::vec(any_step(), 1..20)) {
        let mut world = World::new();
        let mut mirror = Mirror::default();
        mirror.whole(world.whole()).unwrap().unwrap();
        for (puts, deletes, key, in_parts, by_whole) in steps {
            let before = world.clone();
            let puts: Vec<_> = puts.iter().map(|(i, text)| (NAMES[*i], text.as_str())).collect();
            let deletes: Vec<_> = deletes.iter().map(|i| NAMES[*i]).collect();
            let mut delta = world.change(&puts, &deletes);
            if let Some(term) = key {
                world.key_ring.insert(term, format!("key of {}", world.revision));
                delta.key_ring = world.key_ring.clone().into_iter().collect();
                delta.hash = world.hash().to_vec().into();
            }
            // A change that is not what the control plane made of it changes nothing.
            let mut wrong = delta.clone();
            wrong.hash = before.hash().to_vec().into();
            let is_refused = matches!(mirror.delta(wrong), Err(MirrorError::Hash { .. }));
            prop_assert!(is_refused);
            prop_assert_eq!(mirror.point(), Some((before.revision, before.hash())));

            let pushed = match (by_whole, in_parts) {
                (true, false) => mirror.whole(world.whole()).unwrap(),
                (false, false) => mirror.delta(delta).unwrap(),
                (true, true) => last(whole_parts(world.whole()), |p| mirror.whole(p)),
                (false, true) => last(delta_parts(delta), |p| mirror.delta(p)),
            };
            let pushed = pushed.unwrap();
            world.assert_is(&pushed);
            prop_assert_eq!(Mirror::of(&pushed).point(), mirror.point());
        }
    }

    #[test]
    fn the_sum_knows_no_order(texts in proptest::collection::vec("[a-z]{0,9}", 0..12), turn in any::<usize>()) {
        let elements: Vec<_> = texts.iter().map(|t| Element::of_document(t.as_bytes())).collect();
        let (mut one, mut other) = (Sum::default(), Sum::default());
        elements.iter().for_each(|e| one.add(*e));
        let turn = turn % elements.len().max(1);
        elements.iter().skip(turn).chain(elements.iter().take(turn)).for_each(|e| other.add(*e));
        prop_assert_eq!(one.hash(1), other.hash(1));
        prop_assert_ne!(one.hash(1), other.hash(2));
        if let Some(first) = elements.first() {
            one.remove(*first);
            prop_assert_ne!(one.hash(1), other.hash(1));
            one.add(*first);
            prop_assert_eq!(one.hash(1), other.hash(1));
        }
    }
}

/// Only the last part gives a state.
fn last<P, T>(parts: Vec<P>, mut take: impl FnMut(P) -> Result<Option<T>, MirrorError>) -> Option<T> {
    let count = parts.len();
    let mut state = None;
    for (i, part) in parts.into_iter().enumerate() {
        assert!(state.is_none(), "a state before the last part");
        state = take(part).unwrap();
        assert_eq!(state.is_some(), i + 1 == count);
    }
    state
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let mut mirror = Mirror::default();
    assert!(matches!(mirror.delta(world.clone().change(&[], &[])), Err(MirrorError::Gap { .. })), "no base");
    mirror.whole(world.whole()).unwrap();
    let old = world.whole();
    let delta = world.change(&[("bob", "new")], &["ann"]);
    mirror.delta(delta.clone()).unwrap();
    let here = Some((world.revision, world.hash()));
    let next = world.clone().change(&[("bob", "newer")], &[]);
    let with = |change: &dyn Fn(&mut Delta)| {
        let mut delta = next.clone();
        change(&mut delta);
        delta
    };
    type Expect = fn(&MirrorError) -> bool;
    let is_gap: Expect = |e| matches!(e, MirrorError::Gap { .. });
    let is_hash: Expect = |e| matches!(e, MirrorError::Hash { .. });
    let is_document: Expect = |e| matches!(e, MirrorError::Document { .. });
    for (what, delta, expect) in [
        ("again", delta, is_gap),
        ("from the future", with(&|d| d.from += 1), is_gap),
        ("to another revision", with(&|d| d.to += 1), is_hash),
        ("a put too few", with(&|d| d.puts.clear()), is_hash),
        ("a delete too many", with(&|d| d.deletes.push(key("bob").to_string())), is_hash),
        ("a key too many", with(&|d| drop(d.key_ring.insert(9, "x".into()))), is_hash),
        ("half a document", with(&|d| drop(d.puts[0].split_off(9))), is_document),
        (
            "a later kind",
            with(&|d| d.puts[0] = br#"{"metadata":{"name":"x"},"spec":{"Later":{}}}"#.as_slice().into()),
            is_document,
        ),
        ("no key", with(&|d| d.deletes.push("Role".into())), is_document),
    ] {
        let error = mirror.delta(delta).unwrap_err();
        assert!(expect(&error), "{what}: {error:?}");
        assert_eq!(mirror.point(), here, "{what}");
    }
    assert!(matches!(mirror.whole(old), Err(MirrorError::Older { offered: 1, held: 2 })));
    assert_eq!(mirror.point(), here);
}

#[test]
fn a_stream_that_ends_between_two_parts_leaves_no_trace() {
    let mut world = World::new();
    let mut mirror = Mirror::default();
    let first = whole_parts(world.whole()).remove(0);
    assert!(mirror.whole(first).unwrap().is_none());
    mirror.new_stream();
    assert_eq!(mirror.point(), None);
    mirror.whole(world.whole()).unwrap().unwrap();
    let lost = world.clone().change(&[("dan", "lost"), ("bob", "lost")], &[]);
    assert!(mirror.delta(delta_parts(lost).remove(0)).unwrap().is_none());
    mirror.new_stream();
    let pushed = mirror.delta(world.change(&[("cleo", "kept")], &[])).unwrap().unwrap();
    world.assert_is(&pushed);
}

#[test]
fn a_distrusted_copy_takes_a_whole_state_and_shares_what_is_the_same() {
    let mut world = World::new();
    let mut mirror = Mirror::default();
    let before = mirror.whole(world.whole()).unwrap().unwrap();
    mirror.distrust();
    assert_eq!((mirror.point(), mirror.revision()), (None, 1));
    let delta = world.change(&[("ann", "second")], &[]);
    assert!(matches!(mirror.delta(delta), Err(MirrorError::Gap { .. })));
    let after = mirror.whole(world.whole()).unwrap().unwrap();
    let is_shared = |own: &str| {
        let get = |p: &super::Pushed| p.snapshot.get(&key(own)).unwrap().clone();
        std::sync::Arc::ptr_eq(&get(&before), &get(&after))
    };
    assert_eq!((is_shared("t-acme"), is_shared("ann")), (true, false));
    assert_eq!(**after.snapshot.get(&key("ann")).unwrap(), resource("ann", "second", 2));
}

#[test]
fn a_halted_change_goes_back_and_nothing_that_came_after_it() {
    let mut world = World::new();
    let base = world.whole();
    let mut mirror = Mirror::default();
    mirror.whole(base.clone()).unwrap();
    mirror.delta(world.change(&[("ann", "bad")], &[])).unwrap();
    for (back_from, expect) in [(0, false), (1, false), (2, true)] {
        let mut mirror = Mirror::of(&world.pushed());
        let taken = mirror.whole(Whole { back_from, ..base.clone() });
        assert_eq!(taken.is_ok(), expect, "back from {back_from}: {taken:?}");
        assert_eq!(mirror.revision(), if expect { 1 } else { 2 });
        if expect {
            // And deltas lead on from there.
            let mut again = World::new();
            mirror.delta(again.change(&[("ann", "good")], &[])).unwrap();
            again.assert_is(&again.pushed());
        }
    }
}
