//! Each rule on resources and transactions, as a table: input, expected code and field.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rules;
mod tenants;
mod transactions;

use provost_control_state::{Draft, Event, Expectation, State, Transaction};
use provost_types::{Kind, Name, ResourceKey, Revision, Spec};
use serde_json::{Value, json};

fn transaction(puts: Vec<Draft>, deletes: Vec<ResourceKey>) -> Transaction {
    Transaction {
        event: Event::Apply,
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

fn acme(kind: &str, name: &str, spec: Value) -> Draft {
    draft(kind, Some("acme"), name, spec)
}

fn key(kind: Kind, name: &str) -> ResourceKey {
    let tenant = kind.is_tenanted().then(|| Name::new("acme").unwrap());
    ResourceKey { kind, tenant, name: Name::new(name).unwrap() }
}

fn model(spec: Value) -> Draft {
    draft("Model", None, "x", spec)
}

/// A provider that is good but for what is given.
fn identity(more: Value) -> Draft {
    let mut spec = json!({"issuer": "https://id.example.com"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    acme("IdentityProvider", "x", spec)
}

fn base() -> State {
    let mut state = State::default();
    let puts = vec![
        draft("Tenant", None, "acme", json!({})),
        acme("Principal", "ann", json!({})),
        acme("Role", "reader", json!({"rules": [{"tools": ["sql.*"]}]})),
        acme("RoleBinding", "readers", json!({"role": "reader", "principals": ["ann"]})),
        acme("Secret", "token", json!({})),
        acme(
            "Plugin",
            "web",
            json!({"source": {"mcp-http": {
            "url": "https://example.com/mcp",
            "secretHeaders": {"Authorization": {"secret": "token", "prefix": "Bearer "}}}}}),
        ),
        acme("ApiKey", "k", json!({"principal": "ann", "hash": "0".repeat(64)})),
    ];
    state.apply(Revision(1), &transaction(puts, vec![])).unwrap();
    state
}

fn resilience(spec: Value) -> Value {
    json!({"source": {"builtin": {"name": "echo"}}, "resilience": spec})
}

fn guard_words<T: AsRef<str>>(words: &[T]) -> Draft {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    acme("Guard", "x", json!({"dictionaries": [{"name": "projects", "words": words, "action": "block"}]}))
}

fn many_words(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("word {n}")).collect()
}
