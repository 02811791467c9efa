//! Why a call is decided as it is.

use provost_data_policy::{AccessRequest, Explanation, Facts};
use provost_types::{Action, Effect, PolicyMode};

use crate::world::*;

fn explain(world: &World, who: &str, tool: &str, facts: &Facts<'_>) -> Explanation {
    let (tenant, principal) = (name("acme"), name(who));
    let request = AccessRequest {
        token: None,
        tenant: &tenant,
        principal: &principal,
        action: Action::CallTool,
        plugin: tool.split_once('.').map(|(plugin, _)| plugin),
        target: tool,
        facts,
    };
    world.engine().explain(&request, NOW)
}

fn world() -> World {
    World::acme()
        .role("acme", "analyst", &["sql.*", "sql.query"], &["ana"], Some("2026-11-22T00:00:00Z"))
        .role("acme", "former", &["time.*"], &["ana"], Some("2026-11-20T00:00:00Z"))
        .role("acme", "others", &["time.now"], &["sam"], None)
        .policy(
            "acme",
            "guard",
            "// first a comment\n@id(\"no-drop\")\nforbid(principal, action, resource == Provost::Tool::\"sql.query\")\n\
             when { context.args.hasTag(\"sql\") && context.args.getTag(\"sql\") like \"DROP*\" };\n\
             @id(\"in-time\") permit(principal, action, resource == Provost::Tool::\"time.now\")\n\
             when { principal.name == \"ana\" && context.args.hasTag(\"zone\") };",
        )
        .policy(
            "acme",
            "broken",
            "@id(\"over\") forbid(principal, action, resource == Provost::Tool::\"echo.echo\")
             when { context.ints.hasTag(\"n\") && context.ints.getTag(\"n\") * 2 > 0 };",
        )
        .observe("acme", "trial", "@id(\"all\") forbid(principal, action, resource == Provost::Tool::\"sql.query\");")
}

#[test]
fn a_grant_is_told_with_its_binding_and_its_end() {
    let told = explain(&world(), "ana", "sql.query", &arguments(r#"{"sql":"SELECT 1"}"#));
    assert_eq!(told.decision.effect, Effect::Allow);
    let role = &told.roles[0];
    assert_eq!(
        (role.role.as_str(), role.grants.as_slice()),
        ("analyst", &["sql.*".to_owned(), "sql.query".to_owned()][..])
    );
    assert_eq!(role.bindings[0].expires.as_deref(), Some("2026-11-22T00:00:00Z"));
    assert_eq!(told.policies.len(), 1, "the observer that would have said otherwise");
    assert_eq!((told.policies[0].id.as_str(), told.policies[0].mode), ("trial/all", PolicyMode::Observe));
    assert_eq!(told.decision.observed, ["trial/all"]);
}

#[test]
fn a_forbid_is_told_with_its_text_and_line() {
    let told = explain(&world(), "ana", "sql.query", &arguments(r#"{"sql":"DROP TABLE t"}"#));
    assert_eq!(told.decision.policies, ["guard/no-drop"]);
    let policy = told.policies.iter().find(|p| p.id == "guard/no-drop").unwrap();
    assert_eq!((policy.effect, policy.line, policy.error.as_deref()), (Effect::Deny, Some(2), None));
    assert!(policy.text.contains("like \"DROP*\""), "{}", policy.text);
    assert_eq!(told.roles.len(), 1, "the grant that it takes away is told too");
    assert!(told.near_roles.is_empty() && told.near_policies.is_empty());
}

#[test]
fn the_nearest_miss_of_a_default_denial_is_told() {
    let told = explain(&world(), "ana", "time.now", &arguments("{}"));
    assert_eq!(told.decision.effect, Effect::Deny);
    let roles: Vec<_> = told.near_roles.iter().map(|near| (near.role.as_str(), near.ended.len())).collect();
    assert_eq!(roles, [("former", 1), ("others", 0)]);
    assert_eq!(told.near_roles[0].ended[0].expires.as_deref(), Some("2026-11-20T00:00:00Z"));
    assert_eq!(told.near_policies.len(), 1);
    let near = &told.near_policies[0];
    assert_eq!((near.id.as_str(), near.line), ("guard/in-time", Some(5)));
    assert!(near.missing.as_deref().unwrap().contains("zone"), "{near:?}");
    let told = explain(&world(), "sam", "other.tool", &Facts::default());
    assert!(told.near_roles.is_empty() && told.near_policies.is_empty() && told.policies.is_empty());
}

#[test]
fn what_cannot_be_evaluated_is_told() {
    let told = explain(&world(), "ana", "echo.echo", &arguments(r#"{"n":9223372036854775807}"#));
    assert_eq!(told.decision.policies, ["broken/over"]);
    assert!(told.policies[0].error.as_deref().unwrap().contains("overflow"), "{:?}", told.policies[0]);
    let told = explain(&world(), "nobody", "echo.echo", &Facts::default());
    assert!(told.decision.reason.contains("no principal nobody") && told.policies.is_empty());
}
