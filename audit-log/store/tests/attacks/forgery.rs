//! A forger with the log's key signs what does not belong together.

use crate::{
    case::{found, try_all},
    scene::{head_of, leaves, scene, set_checkpoints},
};

const HISTORY: &str = "tenants/acme/checkpoints";
const TIME_NS: u64 = 1_763_000_000_000_000_000;

#[test]
fn tree_and_chain_are_both_held_to() {
    let scene = scene();
    let s = &scene;
    let all = leaves(&s.audit());
    let honest = head_of(&all[..680], TIME_NS);
    let other = head_of(&all[..679], TIME_NS);
    let mut tree_differs = honest.clone();
    tree_differs.root = other.root;
    let mut chain_differs = honest.clone();
    chain_differs.chain = other.chain;
    let place = || (0, HISTORY.to_owned(), 0);
    try_all(
        s,
        &[
            found("chain valid, tree differs", "INTEGRITY", place(), |d| {
                set_checkpoints(d, &[tree_differs.sign(&s.key)])
            }),
            found("tree valid, chain differs", "INTEGRITY", place(), |d| {
                set_checkpoints(d, &[chain_differs.sign(&s.key)])
            }),
            found(
                "two signed checkpoints of one size",
                "AUTHENTICITY",
                (680, HISTORY.to_owned(), second(&honest.sign(&s.key))),
                |d| {
                    set_checkpoints(d, &[honest.sign(&s.key), tree_differs.sign(&s.key)]);
                },
            ),
        ],
    );
}

/// Where the second note begins when this one is the first.
fn second(first: &str) -> u64 {
    first.len() as u64 + 1
}
