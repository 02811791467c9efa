//! The rules as a table, and the laws.

use std::collections::HashMap;

use proptest::prelude::*;
use provost_types::ChatMessage;

use super::*;

fn idle(name: &str, state: ModelState) -> Candidate {
    Candidate {
        name: name.to_owned(),
        state,
        load_ms: 4_000,
        waiting: 0,
        places: 64,
        running: 0,
        slots: 16,
        service_ms: 1_000,
        tokens_per_s: 100,
    }
}

fn wanted(conversation: u64) -> Wanted {
    Wanted { tokens: 100, conversation, model: 7 }
}

fn name_of(nodes: &[Candidate], wanted: Wanted) -> Option<&str> {
    choose(nodes, wanted).map(|index| nodes[index].name.as_str())
}

#[test]
fn the_rules_in_their_order() {
    use ModelState::{Loading, OnDisk, Resident};
    let crowd = |waiting| Candidate { running: 16, waiting, ..idle("holds", Resident) };
    let fast = Candidate { load_ms: 100, ..idle("fast", OnDisk) };
    let table: [(&str, Vec<Candidate>, Option<&str>); 9] = [
        ("nobody", vec![], None),
        (
            "who holds the weights",
            vec![idle("disk", OnDisk), idle("holds", Resident), idle("loads", Loading)],
            Some("holds"),
        ),
        ("who is loading them", vec![idle("disk", OnDisk), idle("loads", Loading)], Some("loads")),
        ("who loads them soonest", vec![idle("disk", OnDisk), fast.clone()], Some("fast")),
        // 17 ahead of 16 places: a second, and loading takes four.
        ("a short queue is waited in", vec![idle("disk", OnDisk), crowd(16)], Some("holds")),
        // 64 ahead: four seconds, and loading at the fast one takes a tenth of one.
        ("a long queue is not", vec![fast.clone(), crowd(63)], Some("fast")),
        ("who is full is not asked", vec![idle("disk", OnDisk), crowd(64)], Some("disk")),
        ("all are full", vec![crowd(64)], None),
        (
            "the faster of two",
            vec![Candidate { tokens_per_s: 10, ..idle("slow", Resident) }, idle("holds", Resident)],
            Some("holds"),
        ),
    ];
    for (what, nodes, expect) in table {
        for conversation in 0..8 {
            assert_eq!(name_of(&nodes, wanted(conversation)), expect, "{what}");
        }
    }
}

#[test]
fn conversations_keep_their_node_and_are_spread() {
    let nodes: Vec<Candidate> = ["a", "b", "c"].map(|name| idle(name, ModelState::Resident)).into();
    let mut shares: HashMap<&str, usize> = HashMap::new();
    for conversation in 0..900 {
        let key = Hash::new("acme").and(&conversation.to_string()).end();
        let kept = name_of(&nodes, wanted(key)).unwrap();
        *shares.entry(kept).or_default() += 1;
        // Who goes takes only its own conversations along.
        let gone = nodes.iter().find(|node| node.name != kept).unwrap().name.clone();
        let rest: Vec<Candidate> = nodes.iter().filter(|node| node.name != gone).cloned().collect();
        assert_eq!(name_of(&rest, wanted(key)), Some(kept));
    }
    assert!(shares.values().all(|share| (200..400).contains(share)), "{shares:?}");
}

#[test]
fn conversations_that_come_at_once_load_a_model_once_and_models_are_spread() {
    let nodes: Vec<Candidate> = ["a", "b", "c"].map(|name| idle(name, ModelState::OnDisk)).into();
    let mut used: HashMap<&str, usize> = HashMap::new();
    for model in 0..300 {
        let model = Hash::new(&model.to_string()).end();
        let of = |conversation| name_of(&nodes, Wanted { model, ..wanted(conversation) }).unwrap();
        assert!((0..8).all(|conversation| of(conversation) == of(0)));
        *used.entry(of(0)).or_default() += 1;
    }
    assert!(used.values().all(|share| (60..140).contains(share)), "{used:?}");
}

#[test]
fn a_conversation_is_known_by_its_beginning() {
    let ask = |messages: &[(&str, &str)]| ChatRequest {
        tenant: "acme".to_owned(),
        model: "m".to_owned(),
        messages: messages.iter().map(|(role, text)| ChatMessage::new(*role, *text)).collect(),
        max_tokens: 7,
        temperature: 0.0,
        top_p: 1.0,
        seed: None,
        stop: vec![],
        logprobs: None,
        schema: None,
        tools: None,
        prompt: None,
    };
    let first = Wanted::of_chat(&ask(&[("system", "be kind"), ("user", "hello")]));
    let later = ask(&[("system", "be kind"), ("user", "hello"), ("assistant", "hi"), ("user", "and now?")]);
    assert_eq!(Wanted::of_chat(&later), first);
    assert_eq!(first.tokens, 7);
    assert_ne!(Wanted::of_chat(&ask(&[("system", "be kind"), ("user", "hullo")])), first);
    assert_ne!(Wanted::of_chat(&ChatRequest { tenant: "other".to_owned(), ..later }), first);
    let goes_on = |text: &str| Wanted::of_chat(&ChatRequest { prompt: Some(text.to_owned()), ..ask(&[]) });
    assert_eq!(goes_on("once"), goes_on("once"));
    assert_ne!(goes_on("once"), goes_on("twice"));
    // Where texts end counts.
    assert_ne!(Hash::new("ab").and("c").end(), Hash::new("a").and("bc").end());
}

/// State, time to load, requests that wait, places, requests that run, slots, time of service, tokens a second.
type Drawn = (ModelState, u64, u64, u64, u64, u64, u64, u64);

fn nodes() -> impl Strategy<Value = Vec<Candidate>> {
    let state = prop_oneof![Just(ModelState::Resident), Just(ModelState::Loading), Just(ModelState::OnDisk)];
    let node = (state, 0..20_000_u64, 0..80_u64, 0..80_u64, 0..20_u64, 0..20_u64, 0..5_000_u64, 0..500_u64);
    prop::collection::vec(node, 0..6).prop_map(|all| {
        let node = |(index, of): (usize, Drawn)| {
            let (state, load_ms, waiting, places, running, slots, service_ms, tokens_per_s) = of;
            let name = format!("gpu-{index}");
            Candidate { name, state, load_ms, waiting, places, running, slots, service_ms, tokens_per_s }
        };
        all.into_iter().enumerate().map(node).collect()
    })
}

proptest! {
    /// A node without a place is never chosen, and one with a place is whenever there is one.
    #[test]
    fn a_place_is_found_if_there_is_one(nodes in nodes(), conversation in any::<u64>()) {
        let chosen = choose(&nodes, wanted(conversation));
        prop_assert_eq!(chosen.is_some(), nodes.iter().any(Candidate::has_place));
        prop_assert!(chosen.is_none_or(|index| nodes[index].has_place()));
    }

    /// The order in which nodes are known does not matter: data-plane nodes agree.
    #[test]
    fn the_order_of_nodes_does_not_matter(nodes in nodes(), conversation in any::<u64>(), turn in 0..6_usize) {
        let mut others = nodes.clone();
        others.reverse();
        if !others.is_empty() {
            let by = turn % others.len();
            others.rotate_left(by);
        }
        prop_assert_eq!(name_of(&nodes, wanted(conversation)), name_of(&others, wanted(conversation)));
    }

    /// Weights are loaded anew only where waiting for those that are there takes more than twice as long.
    #[test]
    fn weights_that_are_there_are_used(nodes in nodes(), conversation in any::<u64>()) {
        let Some(chosen) = choose(&nodes, wanted(conversation)).map(|index| &nodes[index]) else { return Ok(()) };
        let holders = nodes.iter().filter(|node| node.state == ModelState::Resident && node.has_place());
        if chosen.state != ModelState::Resident {
            let others = nodes.iter().filter(|node| node.state != ModelState::Resident && node.has_place());
            let elsewhere = others.map(Candidate::start_ms).min().unwrap();
            for holder in holders {
                prop_assert!(holder.start_ms() > SPILL * elsewhere, "{:?}", holder);
            }
        }
    }

    /// Among nodes in the same state none is clearly faster than the chosen one.
    #[test]
    fn nobody_of_the_same_state_is_clearly_faster(nodes in nodes(), conversation in any::<u64>()) {
        let wanted = wanted(conversation);
        let Some(chosen) = choose(&nodes, wanted).map(|index| &nodes[index]) else { return Ok(()) };
        for other in nodes.iter().filter(|node| node.state == chosen.state && node.has_place()) {
            let (best, had) = (other.expected_ms(wanted), chosen.expected_ms(wanted));
            prop_assert!(had <= best + (best / ALIKE_PART).max(ALIKE_MS), "{had} ms, and {:?}", other);
        }
    }

    /// What gets worse is not chosen for it.
    #[test]
    fn a_longer_queue_attracts_nobody(nodes in nodes(), conversation in any::<u64>(), at in 0..6_usize, more in 1..50_u64) {
        let wanted = wanted(conversation);
        let Some(before) = choose(&nodes, wanted) else { return Ok(()) };
        let mut later = nodes.clone();
        let Some(worse) = later.get_mut(at) else { return Ok(()) };
        worse.waiting += more;
        if before != at && worse.state == ModelState::Resident && nodes[before].state == ModelState::Resident {
            prop_assert_ne!(choose(&later, wanted), Some(at));
        }
    }
}
