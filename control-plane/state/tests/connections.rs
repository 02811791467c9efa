//! Connections of users: what they leave behind, and what they end with.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use provost_control_state::{Draft, Event, SealingKey, State, Transaction};
use provost_types::{Kind, Name, ResourceKey, Revision, Spec};
use serde_json::{Value, json};

fn transaction(event: Event, puts: Vec<Draft>, deletes: Vec<ResourceKey>) -> Transaction {
    Transaction {
        event,
        time_ns: 0,
        author: "test".into(),
        message: String::new(),
        expect_revision: None,
        expect: Vec::new(),
        puts,
        deletes,
        sealing_key: None,
        authorship: None,
    }
}

fn draft(kind: &str, tenant: Option<&str>, name: &str, spec: Value) -> Draft {
    let mut metadata = json!({ "name": name });
    if let Some(tenant) = tenant {
        metadata["tenant"] = json!(tenant);
    }
    let spec: Spec = serde_json::from_value(json!({ kind: spec })).unwrap();
    Draft { metadata: serde_json::from_value(metadata).unwrap(), spec }
}

fn connection(name: &str, principal: &str, plugin: &str, version: u64) -> Draft {
    let sealed = json!({"version": version, "keyTerm": 1, "ciphertext": "sealed-text"});
    let spec = json!({"principal": principal, "plugin": plugin, "authority": "0".repeat(64),
                      "since": "2027-01-01T00:00:00Z", "beganNs": 1, "sealed": sealed});
    draft("Connection", Some("acme"), name, spec)
}

fn key(kind: Kind, name: &str) -> ResourceKey {
    let tenant = kind.is_tenanted().then(|| Name::new("acme").unwrap());
    ResourceKey { kind, tenant, name: Name::new(name).unwrap() }
}

/// Two people, two plugins, and a connection of each with each.
fn base() -> State {
    let mut state = State::default();
    let plugin = |name: &str| {
        draft(
            "Plugin",
            Some("acme"),
            name,
            json!({"source": {"mcp-http": {"url": "https://example.com/mcp",
            "auth": {"perUser": {"clientId": "gateway"}}}}}),
        )
    };
    let puts = vec![
        draft("Tenant", None, "acme", json!({})),
        draft("Principal", Some("acme"), "ann", json!({})),
        draft("Principal", Some("acme"), "bob", json!({})),
        plugin("mail"),
        plugin("files"),
        connection("c-1", "ann", "mail", 1),
        connection("c-2", "ann", "files", 1),
        connection("c-3", "bob", "mail", 1),
        // Of a principal that an identity provider vouches for.
        connection("c-4", "jwt.carol", "files", 1),
    ];
    let mut made = transaction(Event::Apply, puts, Vec::new());
    made.sealing_key = Some(SealingKey { term: 1, wrapped: "2|x|AAAA".to_owned(), keeps: 0 });
    state.apply(Revision(1), &made).unwrap();
    state
}

fn left(state: &State) -> Vec<String> {
    let connections = state.resources().keys().filter(|key| key.kind == Kind::Connection);
    connections.map(|key| key.name.to_string()).collect()
}

#[test]
fn a_connection_ends_with_its_plugin_and_with_its_principal() {
    for (gone, expect) in [
        (key(Kind::Plugin, "mail"), vec!["c-2", "c-4"]),
        (key(Kind::Plugin, "files"), vec!["c-1", "c-3"]),
        (key(Kind::Principal, "ann"), vec!["c-3", "c-4"]),
        (key(Kind::Principal, "bob"), vec!["c-1", "c-2", "c-4"]),
    ] {
        let mut state = base();
        state.apply(Revision(2), &transaction(Event::Delete, Vec::new(), vec![gone.clone()])).unwrap();
        assert_eq!(left(&state), expect, "{gone}");
    }
    let mut state = base();
    let all = vec![
        key(Kind::Principal, "ann"),
        key(Kind::Principal, "bob"),
        key(Kind::Plugin, "mail"),
        key(Kind::Plugin, "files"),
        key(Kind::Tenant, "acme"),
    ];
    state.apply(Revision(2), &transaction(Event::Delete, Vec::new(), all)).unwrap();
    assert!(state.resources().is_empty(), "a tenant cannot be removed");
}

#[test]
fn tokens_are_in_no_history_and_their_upkeep_makes_none() {
    let mut state = base();
    let before = state.history().len();
    for revision in 2..50 {
        let kept = connection("c-1", "ann", "mail", revision);
        state.apply(Revision(revision), &transaction(Event::ConnectionKept, vec![kept], Vec::new())).unwrap();
    }
    assert_eq!((state.history().len(), state.revision()), (before, Revision(49)));
    state
        .apply(Revision(50), &transaction(Event::ConnectionEnded, Vec::new(), vec![key(Kind::Connection, "c-1")]))
        .unwrap();
    assert_eq!(state.history().len(), before + 1);
    let told = serde_json::to_string(&state.history().iter().map(|entry| &**entry).collect::<Vec<_>>()).unwrap();
    assert!(told.contains("c-1") && !told.contains("sealed-text"), "{told}");
    // Nor does a rollback bring one back, or take one away.
    let (puts, deletes) = state.rollback(Revision(1)).unwrap();
    assert!(puts.is_empty() && deletes.is_empty(), "{puts:?} {deletes:?}");
}

#[test]
fn what_nobody_can_open_is_not_kept() {
    let mut state = base();
    let mut foreign = connection("c-1", "ann", "mail", 2);
    let Spec::Connection(spec) = &mut foreign.spec else { unreachable!() };
    spec.sealed.as_mut().unwrap().key_term = 7;
    let rejected = state.apply(Revision(2), &transaction(Event::ConnectionKept, vec![foreign], Vec::new()));
    assert_eq!(rejected.unwrap_err().problems[0].code, "PV-CTL-CONFLICT");
    let unknown = connection("c-9", "ann", "nothing", 1);
    let rejected = state.apply(Revision(2), &transaction(Event::ConnectionMade, vec![unknown], Vec::new()));
    assert_eq!(rejected.unwrap_err().problems[0].code, "PV-RES-REFERENCE");
}
