//! Laws of the state: deterministic, all or nothing, snapshot equals replay, rollback restores.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use provost_control_state::{
    Draft, Event, HistoryEntry, MAX_HISTORY, RollbackError, State, StoredCommand, Transaction,
};
use provost_types::{
    ApiKeySpec, Kind, Metadata, Name, PrincipalSpec, Resource, ResourceKey, Revision, RoleBindingSpec, RoleSpec, Spec,
    TenantSpec,
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn draft(tenant: Option<&str>, own: &str, spec: Spec) -> Draft {
    let metadata = Metadata { name: name(own), tenant: tenant.map(name), labels: BTreeMap::new() };
    Draft { metadata, spec }
}

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

/// A small world, so that random transactions meet: two tenants, two principals, two roles each.
fn any_draft() -> impl Strategy<Value = Draft> {
    let tenant = prop_oneof![Just("acme"), Just("umbra")];
    let own = prop_oneof![Just("ann"), Just("bob")];
    (tenant, own, 0..5_u8, "[a-z]{0,3}").prop_map(|(tenant, own, kind, text)| match kind {
        0 => draft(None, tenant, Spec::Tenant(TenantSpec { display_name: text })),
        1 => {
            let spec = PrincipalSpec { display_name: text, ..Default::default() };
            draft(Some(tenant), own, Spec::Principal(spec))
        }
        2 => draft(Some(tenant), own, Spec::Role(RoleSpec { description: text, rules: vec![] })),
        3 => {
            let spec = ApiKeySpec {
                principal: name("ann"),
                hash: format!("{:064x}", u64::from(own == "ann") + 2 * u64::from(tenant == "acme")),
                expires: None,
            };
            draft(Some(tenant), own, Spec::ApiKey(spec))
        }
        _ => {
            let principals = [name("ann"), name("bob")].into();
            let spec = RoleBindingSpec { role: name(own), principals, expires: None };
            draft(Some(tenant), own, Spec::RoleBinding(spec))
        }
    })
}

fn any_transaction() -> impl Strategy<Value = Transaction> {
    let puts = proptest::collection::vec(any_draft(), 0..6);
    let deletes = proptest::collection::vec(any_draft().prop_map(|d| d.key()), 0..2);
    (puts, deletes).prop_map(|(puts, deletes)| transaction(puts, deletes))
}

fn replay(transactions: &[Transaction]) -> State {
    let mut state = State::default();
    for (i, t) in transactions.iter().enumerate() {
        let before = state.clone();
        if state.apply(Revision(i as u64 + 1), t).is_err() {
            assert_eq!(state, before, "a rejected transaction changed the state");
        }
    }
    state
}

fn stored(state: &State) -> State {
    let resources: Vec<Resource> = state
        .resources()
        .values()
        .map(|r| serde_json::from_slice(&serde_json::to_vec(&**r).unwrap()).unwrap())
        .collect();
    let history: Vec<HistoryEntry> =
        state.history().iter().map(|e| serde_json::from_slice(&serde_json::to_vec(&**e).unwrap()).unwrap()).collect();
    State::from_parts(state.revision(), resources, history, state.compacted(), state.key_ring().clone())
}

proptest! {
    #[test]
    fn apply_is_deterministic_and_commands_survive_storage(
        transactions in proptest::collection::vec(any_transaction(), 0..30)
    ) {
        let first = replay(&transactions);
        let decoded: Vec<_> = transactions
            .iter()
            .map(|t| {
                let bytes = StoredCommand::V1(t.clone()).encode().unwrap();
                match StoredCommand::decode(&bytes).unwrap() {
                    StoredCommand::V1(transaction) => transaction,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        prop_assert_eq!(&first, &replay(&decoded));
    }

    #[test]
    fn a_stored_snapshot_then_the_rest_equals_replay(
        transactions in proptest::collection::vec(any_transaction(), 1..30),
        cut in 0..30_usize,
    ) {
        let cut = cut.min(transactions.len());
        let mut resumed = stored(&replay(&transactions[..cut]));
        for (i, t) in transactions.iter().enumerate().skip(cut) {
            let _ = resumed.apply(Revision(i as u64 + 1), t);
        }
        prop_assert_eq!(resumed, replay(&transactions));
    }

    #[test]
    fn every_reference_points_at_something(
        transactions in proptest::collection::vec(any_transaction(), 0..40)
    ) {
        let state = replay(&transactions);
        for resource in state.resources().values() {
            if let Some(tenant) = &resource.metadata.tenant {
                let key = ResourceKey { kind: Kind::Tenant, tenant: None, name: tenant.clone() };
                prop_assert!(state.resources().contains_key(&key));
            }
            if let Spec::RoleBinding(spec) = &resource.spec {
                let sibling = |kind, name: &Name| ResourceKey {
                    kind, tenant: resource.metadata.tenant.clone(), name: name.clone(),
                };
                prop_assert!(state.resources().contains_key(&sibling(Kind::Role, &spec.role)));
                for p in &spec.principals {
                    prop_assert!(state.resources().contains_key(&sibling(Kind::Principal, p)));
                }
            }
        }
    }

    #[test]
    fn rollback_restores_everything_but_keys(
        transactions in proptest::collection::vec(any_transaction(), 1..30),
        to in 0..30_u64,
    ) {
        let mut state = replay(&transactions);
        let to = Revision(to.min(state.revision().0));
        let then = replay(&transactions[..usize::try_from(to.0).unwrap()]);
        let (puts, deletes) = state.rollback(to).unwrap();
        state.apply(Revision(1_000), &transaction(puts, deletes)).unwrap();
        let without_keys = |s: &State| -> Vec<_> {
            s.resources()
                .values()
                .filter(|r| r.spec.kind() != Kind::ApiKey)
                .map(|r| (r.metadata.clone(), r.spec.clone()))
                .collect()
        };
        prop_assert_eq!(without_keys(&state), without_keys(&then));
    }
}

#[test]
fn a_revoked_key_stays_revoked_and_a_new_one_stays_valid() {
    let key = |own: &str, n: u8| {
        let spec = ApiKeySpec { principal: name("ann"), hash: format!("{n:064x}"), expires: None };
        draft(Some("acme"), own, Spec::ApiKey(spec))
    };
    let mut state = State::default();
    let base = vec![
        draft(None, "acme", Spec::Tenant(TenantSpec::default())),
        draft(Some("acme"), "ann", Spec::Principal(PrincipalSpec::default())),
        key("leaked", 1),
    ];
    state.apply(Revision(1), &transaction(base, vec![])).unwrap();
    let leaked = key("leaked", 1).key();
    state.apply(Revision(2), &transaction(vec![key("fresh", 2)], vec![leaked.clone()])).unwrap();
    let (puts, deletes) = state.rollback(Revision(1)).unwrap();
    assert_eq!((puts, deletes), (vec![], vec![]));
    assert!(!state.resources().contains_key(&leaked));
}

#[test]
fn a_principal_that_was_disabled_since_stays_so() {
    let ann = |text: &str, disabled| {
        let spec = PrincipalSpec { display_name: text.to_owned(), disabled, ..Default::default() };
        draft(Some("acme"), "ann", Spec::Principal(spec))
    };
    let tenant = draft(None, "acme", Spec::Tenant(TenantSpec::default()));
    for (then, now, expect) in [(false, true, true), (true, false, true), (false, false, false)] {
        let mut state = State::default();
        state.apply(Revision(1), &transaction(vec![tenant.clone(), ann("then", then)], vec![])).unwrap();
        state.apply(Revision(2), &transaction(vec![ann("now", now)], vec![])).unwrap();
        let (puts, deletes) = state.rollback(Revision(1)).unwrap();
        assert_eq!((puts, deletes), (vec![ann("then", expect)], vec![]), "{then} and then {now}");
    }
}

#[test]
fn names_of_certificates_stay_as_they_are_now() {
    let ann = |text: &str, names: &[&str]| {
        let certificates = names.iter().map(|name| format!("dns:{name}")).collect();
        let spec = PrincipalSpec { display_name: text.to_owned(), certificates, ..Default::default() };
        draft(Some("acme"), "ann", Spec::Principal(spec))
    };
    let tenant = draft(None, "acme", Spec::Tenant(TenantSpec::default()));
    let mut state = State::default();
    state.apply(Revision(1), &transaction(vec![tenant, ann("then", &["lost", "kept"])], vec![])).unwrap();
    state.apply(Revision(2), &transaction(vec![ann("now", &["kept", "new"])], vec![])).unwrap();
    let (puts, deletes) = state.rollback(Revision(1)).unwrap();
    assert_eq!((puts, deletes), (vec![ann("then", &["kept", "new"])], vec![]));
    // One that was removed comes back without.
    state.apply(Revision(3), &transaction(vec![], vec![ann("", &[]).key()])).unwrap();
    assert_eq!(state.rollback(Revision(1)).unwrap(), (vec![ann("then", &[])], vec![]));
}

#[test]
fn identity_providers_stay_as_they_are_now() {
    let provider = |own: &str, issuer: &str, roles: &[&str]| {
        let spec = serde_json::json!({ "issuer": issuer, "scopes": { "read": roles } });
        draft(Some("acme"), own, Spec::IdentityProvider(serde_json::from_value(spec).unwrap()))
    };
    let role = |own: &str| draft(Some("acme"), own, Spec::Role(RoleSpec { description: String::new(), rules: vec![] }));
    let base = vec![
        draft(None, "acme", Spec::Tenant(TenantSpec::default())),
        role("old"),
        provider("leaked", "https://leaked.example", &["old"]),
        provider("corp", "https://old.example", &["old"]),
    ];
    let mut state = State::default();
    state.apply(Revision(1), &transaction(base, vec![])).unwrap();
    let now = vec![role("new"), provider("corp", "https://new.example", &["new", "old"])];
    let leaked = provider("leaked", "https://leaked.example", &[]).key();
    state.apply(Revision(2), &transaction(now, vec![leaked.clone()])).unwrap();
    let (puts, deletes) = state.rollback(Revision(1)).unwrap();
    // The one that was taken away stays away; the other gives no role that goes.
    assert_eq!(puts, vec![provider("corp", "https://new.example", &["old"])]);
    assert_eq!(deletes, vec![role("new").key()]);
    state.apply(Revision(3), &transaction(puts, deletes)).unwrap();
    assert!(!state.resources().contains_key(&leaked));
    // With its tenant it goes.
    let (_, deletes) = state.rollback(Revision(0)).unwrap();
    assert_eq!(deletes.len(), state.resources().len());
}

#[test]
fn history_is_bounded_and_says_so() {
    let mut state = State::default();
    let rounds = MAX_HISTORY as u64 + 10;
    for i in 1..=rounds {
        let spec = TenantSpec { display_name: i.to_string() };
        let t = transaction(vec![draft(None, "acme", Spec::Tenant(spec))], vec![]);
        state.apply(Revision(i), &t).unwrap();
    }
    assert_eq!(state.history().len(), MAX_HISTORY);
    assert_eq!(state.compacted(), Revision(10));
    assert_eq!(
        state.rollback(Revision(9)).unwrap_err(),
        RollbackError::Compacted { to: Revision(9), oldest: Revision(10) }
    );
    assert!(state.rollback(Revision(10)).is_ok());
    assert!(matches!(state.rollback(Revision(rounds + 1)), Err(RollbackError::Future { .. })));
}
