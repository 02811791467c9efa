//! Which guards cover a call, and what holds where several do.

use std::sync::Arc;

use bytes::Bytes;
use provost_data_guards::{GuardCall, GuardIndex, GuardTarget, Kind, Layout};
use provost_mcp::RawJson;
use provost_types::{GuardDirection, GuardKind, Metadata, Name, Resource, Revision, Snapshot, Spec};
use serde_json::{Value, json};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn snapshot(guards: &[(&str, Value)]) -> Snapshot {
    let mut snapshot = Snapshot { revision: Revision(1), ..Snapshot::default() };
    for (own, spec) in guards {
        let metadata = Metadata { name: name(own), tenant: Some(name("acme")), labels: Default::default() };
        let spec = Spec::Guard(serde_json::from_value(spec.clone()).expect("a guard"));
        let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
        snapshot.resources.insert(resource.key(), Arc::new(resource));
    }
    snapshot
}

fn card(action: &str, more: Value) -> Value {
    let mut spec = json!({ "rules": [{ "kinds": ["card"], "action": action }] });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec
}

/// What becomes of a card: `-` if no guard covers the call, else the strictest action.
fn becomes(index: &GuardIndex, principal: &str, target: GuardTarget<'_>, direction: GuardDirection) -> String {
    let (tenant, principal) = (name("acme"), name(principal));
    let call = GuardCall { tenant: &tenant, principal: &principal, target };
    let Some(guard) = index.of(&call, direction, &|_| false) else { return "-".to_owned() };
    let text = RawJson::from_checked(Bytes::from_static(b"[\"4111111111111111\"]"));
    let actions: Vec<&str> = guard.inspect_json(&text, &Layout::PLAIN).tally.iter().map(|(_, a, _)| a.name()).collect();
    actions.join(",")
}

#[test]
fn a_guard_covers_what_it_names_and_the_strictest_holds() {
    use GuardDirection::{Arguments, Results};
    use GuardTarget::{Model, Other, Tool, ToolAndModel, ToolOf, Unknown};
    let index = GuardIndex::compile(
        &snapshot(&[
            ("a", card("mask", json!({ "tools": ["sql.*"] }))),
            ("b", card("block", json!({ "tools": ["sql.query", "tiny-*"], "directions": ["results"] }))),
            ("c", card("report", json!({ "principals": ["ann"] }))),
            ("d", card("block", json!({ "principals": ["ann"], "tools": ["pay.*"], "mode": "report" }))),
        ]),
        None,
    )
    .expect("they compile");
    for (principal, target, direction, expect) in [
        ("bob", Tool("sql.query"), Arguments, "mask"),
        ("bob", Tool("sql.query"), Results, "block"),
        ("bob", Tool("sql.tables"), Results, "mask"),
        ("bob", Tool("echo.echo"), Results, "-"),
        ("bob", Model("tiny-chat"), Results, "block"),
        ("bob", ToolAndModel("ai.chat", "tiny-chat"), Results, "block"),
        ("bob", ToolAndModel("ai.chat", "other"), Results, "-"),
        ("bob", ToolOf("sql"), Results, "block"),
        ("bob", ToolOf("sq"), Results, "-"),
        ("bob", ToolOf("echo"), Results, "-"),
        ("bob", Other, Arguments, "-"),
        ("bob", Unknown, Arguments, "mask"),
        ("ann", Other, Arguments, "report"),
        ("ann", Tool("pay.card"), Arguments, "report"),
        ("ann", Tool("sql.query"), Arguments, "mask"),
        ("ann", Unknown, Results, "block"),
    ] {
        assert_eq!(becomes(&index, principal, target, direction), expect, "{principal} {target:?} {direction:?}");
    }
    assert!(index.has_any(&name("acme")) && !index.has_any(&name("other")));
}

#[test]
fn groups_stand_for_their_kinds_and_names_are_those_of_the_detectors() {
    for kind in GuardKind::ALL.into_iter().filter(|k| !k.is_group()) {
        assert!(Kind::from_name(kind.as_str()).is_some(), "no detector finds {kind}");
    }
    assert_eq!(GuardKind::ALL.len() - 2, Kind::ALL.len(), "a kind cannot be named in a guard");
    let rules = json!({ "rules": [{ "kinds": ["personal-data"], "action": "mask" }, { "kinds": ["card"], "action": "report" }] });
    let index = GuardIndex::compile(&snapshot(&[("g", rules)]), None).expect("it compiles");
    assert_eq!(becomes(&index, "ann", GuardTarget::Other, GuardDirection::Results), "mask");
}

#[test]
fn what_did_not_change_is_taken_over() {
    let (one, two) = (card("mask", json!({})), card("block", json!({})));
    let first = GuardIndex::compile(&snapshot(&[("a", one.clone()), ("b", one.clone())]), None).expect("they compile");
    let next = GuardIndex::compile(&snapshot(&[("a", one), ("b", two)]), Some(&first)).expect("they compile");
    assert_eq!(becomes(&first, "ann", GuardTarget::Other, GuardDirection::Results), "mask");
    assert_eq!(becomes(&next, "ann", GuardTarget::Other, GuardDirection::Results), "block");
}

#[test]
fn tokens_open_for_whom_every_guard_lets_them() {
    use GuardDirection::{Arguments, Results};
    let guards = |more: &[(&str, Value)]| {
        let reveal = json!({ "tools": ["sql.*"], "reveal": { "principals": ["ann"], "roles": ["billing"] } });
        let mut all = vec![("a", card("tokenise", reveal))];
        all.extend(more.iter().cloned());
        GuardIndex::compile(&snapshot(&all), None).expect("they compile")
    };
    let becomes = |index: &GuardIndex, principal: &str, role: &str, direction| {
        let (tenant, principal) = (name("acme"), name(principal));
        let call = GuardCall { tenant: &tenant, principal: &principal, target: GuardTarget::Tool("sql.query") };
        let guard = index.of(&call, direction, &|held| held.as_str() == role).expect("covered");
        let text = RawJson::from_checked(Bytes::from_static(b"[\"4111111111111111\"]"));
        let inspection = guard.inspect_json(&text, &Layout::PLAIN);
        inspection.tally.iter().map(|(_, action, _)| action.name()).collect::<Vec<_>>().join(",")
    };
    let alone = guards(&[]);
    assert!(alone.tokenises(&name("acme")) && !alone.tokenises(&name("other")));
    for (principal, role, direction, expect) in [
        ("ann", "none", Results, "reveal"),
        ("bob", "billing", Results, "reveal"),
        ("bob", "none", Results, "tokenise"),
        ("ann", "billing", Arguments, "tokenise"),
    ] {
        assert_eq!(becomes(&alone, principal, role, direction), expect, "{principal} {role} {direction:?}");
    }
    // Beside it every other guard holds, whatever it lets whom.
    for (other, expect) in [
        (card("report", json!({})), "reveal"),
        (card("tokenise", json!({})), "tokenise"),
        (card("tokenise", json!({ "reveal": { "principals": ["bob"] } })), "tokenise"),
        (card("tokenise", json!({ "reveal": { "principals": ["ann"] } })), "reveal"),
        (card("mask", json!({})), "mask"),
        (card("mask", json!({ "mode": "report" })), "reveal"),
        (card("block", json!({ "principals": ["bob"] })), "reveal"),
    ] {
        let index = guards(&[("b", other.clone())]);
        // Twice: the second time it is remembered.
        for _ in 0..2 {
            assert_eq!(becomes(&index, "ann", "none", Results), expect, "{other}");
        }
    }
    // A guard that is only tried opens nothing.
    let tried = card("tokenise", json!({ "mode": "report", "reveal": { "principals": ["ann"] } }));
    let index = GuardIndex::compile(&snapshot(&[("a", tried)]), None).expect("it compiles");
    assert_eq!(becomes(&index, "ann", "none", Results), "report");
    assert!(!index.tokenises(&name("acme")));
}

#[test]
fn external_guards_cover_calls_like_any_other() {
    let spec = |more: Value| {
        let mut spec = json!({ "external": { "url": "https://dlp.example" } });
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        spec
    };
    let index = GuardIndex::compile(
        &snapshot(&[
            ("b", spec(json!({ "tools": ["sql.*"], "directions": ["results"] }))),
            ("a", spec(json!({ "mode": "report" }))),
            ("c", card("mask", json!({}))),
        ]),
        None,
    )
    .expect("they compile");
    let (tenant, principal) = (name("acme"), name("ann"));
    let asked = |tool, direction| {
        let call = GuardCall { tenant: &tenant, principal: &principal, target: GuardTarget::Tool(tool) };
        let guards = index.external(&call, direction);
        guards.iter().map(|g| format!("{}{}", g.name, if g.reports { "?" } else { "" })).collect::<Vec<_>>().join(",")
    };
    assert_eq!(asked("sql.query", GuardDirection::Results), "a?,b");
    assert_eq!(asked("sql.query", GuardDirection::Arguments), "a?");
    assert_eq!(asked("pay.now", GuardDirection::Results), "a?");
}
