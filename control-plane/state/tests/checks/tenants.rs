//! What the resources of a tenant are together.

use super::*;

#[test]
fn a_tenant_has_so_many_guards_and_no_more() {
    let guard = |n: usize| acme("Guard", &format!("g{n}"), json!({"rules": [{"kinds": ["jwt"], "action": "report"}]}));
    let mut state = base();
    state.apply(Revision(2), &transaction((0..64).map(guard).collect(), vec![])).unwrap();
    let rejected = state.apply(Revision(3), &transaction(vec![guard(64)], vec![])).unwrap_err();
    let [problem] = rejected.problems.as_slice() else { panic!("{rejected}") };
    assert_eq!((&*problem.code, problem.field.as_str()), ("PV-RES-FIELD", "metadata.name"));
    // Which one is named depends on the order of names; that one more is too many does not.
    state.apply(Revision(3), &transaction(vec![guard(3)], vec![])).unwrap();
}

#[test]
fn the_prices_of_a_tenant_have_one_currency_and_a_pattern_has_one_price() {
    let price = |name: &str, currency: &str, tool: &str| {
        acme("Price", name, json!({"currency": currency, "tools": [tool], "perCallMicro": 5}))
    };
    let mut state = base();
    state.apply(Revision(2), &transaction(vec![price("a", "EUR", "sql.*"), price("b", "EUR", "*")], vec![])).unwrap();
    let before = state.clone();
    for (other, field, said) in [
        (price("c", "USD", "echo.*"), "spec.currency", "is USD, and Price/acme/a is in EUR"),
        (price("c", "EUR", "sql.*"), "spec.tools", "`sql.*` has a price in Price/acme/a already"),
    ] {
        let rejected = state.apply(Revision(3), &transaction(vec![other], vec![])).unwrap_err();
        let [problem] = rejected.problems.as_slice() else { panic!("{rejected}") };
        assert_eq!((&*problem.code, problem.field.as_str()), ("PV-RES-FIELD", field));
        assert!(problem.message.contains(said), "{}", problem.message);
        assert_eq!(state, before);
    }
    // All of them at once is a change of currency.
    let dollars = vec![price("a", "USD", "sql.*"), price("b", "USD", "*")];
    state.apply(Revision(4), &transaction(dollars, vec![])).unwrap();
}

#[test]
fn an_issuer_has_one_owner_and_a_role_that_tokens_give_stays() {
    let mut state = base();
    let globex =
        |name: &str| draft("IdentityProvider", Some("globex"), name, json!({"issuer": "https://id.example.com"}));
    let puts = vec![draft("Tenant", None, "globex", json!({})), identity(json!({"scopes": {"use": ["reader"]}}))];
    state.apply(Revision(2), &transaction(puts, vec![])).unwrap();
    let rejected = state.apply(Revision(3), &transaction(vec![globex("id")], vec![])).unwrap_err();
    let problem = &rejected.problems[0];
    assert_eq!((&*problem.code, problem.field.as_str()), ("PV-RES-FIELD", "spec.issuer"), "{rejected}");
    assert!(!problem.message.contains("acme"), "what another tenant has is not said: {rejected}");
    let readers = vec![key(Kind::Role, "reader"), key(Kind::RoleBinding, "readers")];
    let rejected = state.apply(Revision(3), &transaction(vec![], readers)).unwrap_err();
    assert_eq!(rejected.problems[0].code, "PV-RES-IN-USE", "{rejected}");
    // Once it is free another one may have it.
    let freed = transaction(vec![globex("id")], vec![key(Kind::IdentityProvider, "x")]);
    state.apply(Revision(3), &freed).unwrap();
}

#[test]
fn a_name_in_certificates_belongs_to_one_principal() {
    let mut state = base();
    let spec = json!({"certificates": ["uri:spiffe://example.com/a", "email:a@example.com"]});
    state.apply(Revision(2), &transaction(vec![acme("Principal", "one", spec.clone())], vec![])).unwrap();
    let rejected = state.apply(Revision(3), &transaction(vec![acme("Principal", "two", spec)], vec![])).unwrap_err();
    assert!(rejected.problems.iter().all(|p| p.field == "spec.certificates"), "{rejected}");
    assert_eq!(rejected.problems.len(), 2, "{rejected}");
}
