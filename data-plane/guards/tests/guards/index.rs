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
