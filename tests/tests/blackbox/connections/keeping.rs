//! Tokens over time: refreshed by one, ended by whoever may.

use serde_json::Value;

use super::{asked, call, connect, documents, said, token_of, world::World};
use crate::harness::{Dev, text, until};

#[test]
fn tokens_are_refreshed_once_each_and_asked_for_anew_when_they_were_taken_back() {
    // So short a life that nearly every call has to refresh.
    let world = World::start(2);
    let dev = Dev::start(Some(&documents(&world)), &[]);
    let bot = dev.token().to_owned();
    connect(&dev, &bot, "ann-account");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(said(&call(&dev, &bot, None)), "for ann-account, Bearer [redacted]");
                }
            });
        }
    });
    let refreshes = world.asked().iter().filter(|f| f["grant_type"] == "refresh_token").count();
    println!("40 calls with tokens of 2 s: {refreshes} refreshes");
    assert!(refreshes > 0 && !world.was_reused(), "a refresh token was used twice ({refreshes} refreshes)");

    // The upstream takes the access token no more: refreshed, and the call is executed once.
    let before = world.calls().len();
    world.end_access();
    assert_eq!(said(&call(&dev, &bot, None)), "for ann-account, Bearer [redacted]");
    assert!(world.calls().len() - before <= 2);

    // Everything is taken back: the user is asked again, and may come with another account.
    world.revoke_all();
    let answer = until(|| {
        let answer = call(&dev, &bot, None);
        (answer["result"]["resultType"] == "input_required").then_some(answer)
    });
    asked(&answer);
    assert_eq!(said(&connect(&dev, &bot, "second-account")), "for second-account, Bearer [redacted]");
    assert!(!world.was_reused());
}

#[test]
fn an_administrator_ends_connections_and_a_restart_does_not() {
    let world = World::start(3_600);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut dev = Dev::start_in(&data, Some(&documents(&world)), &[]);
    let (bot, eve) = (dev.token().to_owned(), token_of(&dev, "eve"));
    connect(&dev, &bot, "ann-account");
    connect(&dev, &eve, "eve-account");
    assert!(dev.terminate().1);
    let dev = Dev::start_in(&data, Some(&documents(&world)), &[]);
    assert_eq!(said(&call(&dev, &bot, None)), "for ann-account, Bearer [redacted]");

    let rotated = dev.cli(&["cluster", "rotate-keys"]);
    assert!(rotated.status.success(), "{}", text(&rotated));
    assert_eq!(said(&call(&dev, &eve, None)), "for eve-account, Bearer [redacted]");

    let nothing = dev.cli(&["connections", "revoke"]);
    assert!(nothing.status.code() == Some(2) && text(&nothing).contains("PV-CONNECT-WHICH"), "{}", text(&nothing));
    let revoked = dev.cli(&["connections", "revoke", "--principal", "bot", "--reason", "laptop stolen", "--json"]);
    let revoked: Value = serde_json::from_slice(&revoked.stdout).unwrap_or_else(|_| panic!("{}", text(&revoked)));
    assert_eq!(revoked["revoked"][0]["plugin"], "up", "{revoked}");
    let calls = world.calls().len();
    until(|| (call(&dev, &bot, None)["result"]["resultType"] == "input_required").then_some(()));
    assert!(world.calls().len() <= calls + 1);
    assert_eq!(said(&call(&dev, &eve, None)), "for eve-account, Bearer [redacted]");
    // The authorization server is told: of the refresh token first, and of nobody else's.
    let told = until(|| Some(world.taken_back()).filter(|told| told.len() >= 2));
    let hints: Vec<&str> = told.iter().map(|fields| fields["token_type_hint"].as_str()).collect();
    assert_eq!(hints, ["refresh_token", "access_token"], "{told:?}");
    let events = text(&dev.cli(&["audit", "query", "--json"]));
    assert!(events.contains("connection.ended") && events.contains("laptop stolen"), "{events}");

    // What is not made by a document is not undone by one.
    let deleted = dev.cli(&["get", "Connection", "-o", "json"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    // A plugin that goes takes its connections along.
    let gone = dev.cli(&["delete", "Plugin", "up", "--tenant", "acme"]);
    assert!(gone.status.success(), "{}", text(&gone));
    let left = text(&dev.cli(&["connections", "list"]));
    assert!(left.contains("no plugin acts in anybody's name"), "{left}");
}
