//! Several changes at once: what holds them together.

use super::*;

#[test]
fn what_is_used_cannot_be_deleted_unless_its_users_go_too() {
    for (used, users) in [
        (key(Kind::Secret, "token"), 1),
        (key(Kind::Role, "reader"), 1),
        (key(Kind::Principal, "ann"), 2),
        (key(Kind::Tenant, "acme"), 6),
    ] {
        let rejected = base().apply(Revision(2), &transaction(vec![], vec![used.clone()])).unwrap_err();
        assert_eq!(rejected.problems.len(), users, "{rejected}");
        assert!(rejected.problems.iter().all(|p| p.code == "PV-RES-IN-USE"));
    }
    let all: Vec<_> = base().resources().keys().cloned().collect();
    let mut state = base();
    state.apply(Revision(2), &transaction(vec![], all)).unwrap();
    assert!(state.resources().is_empty());
}

#[test]
fn expectations_hold_or_nothing_happens() {
    let update = |expect| {
        let mut t = transaction(vec![acme("Principal", "ann", json!({"admin": true}))], vec![]);
        t.expect = expect;
        t
    };
    let ann = |modified| vec![Expectation { key: key(Kind::Principal, "ann"), modified }];
    for (expect, fits) in
        [(vec![], true), (ann(Some(Revision(1))), true), (ann(Some(Revision(7))), false), (ann(None), false)]
    {
        let result = base().apply(Revision(2), &update(expect.clone()));
        assert_eq!(result.is_ok(), fits, "{expect:?}");
        if let Err(rejected) = result {
            assert_eq!(rejected.problems[0].code, "PV-CTL-CONFLICT");
        }
    }
    let mut stale = update(vec![]);
    stale.expect_revision = Some(Revision(9));
    assert!(base().apply(Revision(2), &stale).is_err());
}

#[test]
fn applying_what_is_there_changes_nothing() {
    let mut state = base();
    let same = transaction(vec![acme("Principal", "ann", json!({}))], vec![]);
    let applied = state.apply(Revision(2), &same).unwrap();
    assert_eq!(applied.revision, Revision(1));
    assert!(applied.entry.is_none());
    assert_eq!(state, base());
}

#[test]
fn deleting_what_is_not_there_and_naming_twice_are_errors() {
    let missing = transaction(vec![], vec![key(Kind::Role, "nope")]);
    let rejected = base().apply(Revision(2), &missing).unwrap_err();
    assert_eq!(rejected.problems[0].code, "PV-RES-NOT-FOUND");
    let twice = acme("Role", "twice", json!({}));
    let rejected = base().apply(Revision(2), &transaction(vec![twice.clone(), twice], vec![])).unwrap_err();
    assert_eq!(rejected.problems[0].code, "PV-RES-DUPLICATE");
}
