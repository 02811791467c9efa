//! Laws that hold for every snapshot and call.

use proptest::prelude::*;
use provost_data_policy::Facts;

use crate::world::*;

const TOOLS: [&str; 4] = ["sql.query", "sql.schema", "echo.echo", "time.now"];
const WHO: [&str; 2] = ["ana", "sam"];

/// Policies that a person might write, some with errors at run time.
const POLICIES: [&str; 9] = [
    "permit(principal, action, resource);",
    "permit(principal == Provost::Principal::\"ana\", action, resource in Provost::Plugin::\"sql\");",
    "permit(principal in Provost::Role::\"r0\", action, resource) when { context.transport == \"http\" };",
    "permit(principal, action, resource) when { context.args.hasTag(\"a\") && resource.plugin == \"echo\" };",
    "forbid(principal, action, resource == Provost::Tool::\"sql.query\");",
    "forbid(principal in Provost::Role::\"r1\", action, resource);",
    "forbid(principal, action, resource) when { context.args.hasTag(\"a\") && context.args.getTag(\"a\") == \"1\" };",
    "forbid(principal, action, resource) when { context.ints.hasTag(\"a\") && context.ints.getTag(\"a\") * 9223372036854775807 > 0 };",
    "forbid(principal, action == Provost::Action::\"GetPrompt\", resource);",
];

const PATTERNS: [&str; 6] = ["*", "sql.*", "sql.query", "echo.echo", "time.*", "t*"];

fn worlds() -> impl Strategy<Value = World> {
    let roles = prop::collection::vec((0..PATTERNS.len(), prop::collection::vec(0..WHO.len(), 0..2)), 0..4);
    let policies = prop::collection::vec(0..POLICIES.len(), 0..4);
    (roles, policies).prop_map(|(roles, policies)| {
        let mut world = World::acme();
        for (i, (pattern, who)) in roles.into_iter().enumerate() {
            let who: Vec<&str> = who.into_iter().map(|w| WHO[w]).collect();
            world = world.role("acme", &format!("r{i}"), &[PATTERNS[pattern]], &who, None);
        }
        for (i, policy) in policies.into_iter().enumerate() {
            world = world.policy("acme", &format!("p{i}"), POLICIES[policy]);
        }
        world
    })
}

fn calls() -> impl Strategy<Value = (&'static str, &'static str, &'static str)> {
    let arguments = prop::sample::select(vec!["{}", r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":"1"}"#]);
    (prop::sample::select(&WHO[..]), prop::sample::select(&TOOLS[..]), arguments)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// A forbid that holds denies, whatever permits.
    #[test]
    fn forbid_wins(world in worlds(), (who, tool, json) in calls()) {
        let engine = world.policy("acme", "zz", "@id(\"stop\") forbid(principal, action, resource);").engine();
        let decision = call_with(&engine, who, tool, &arguments(json));
        prop_assert!(!decision.is_allow());
        prop_assert!(decision.policies.contains(&"zz/stop".to_owned()));
    }

    /// Adding a forbid never allows what was denied.
    #[test]
    fn a_forbid_only_takes_away(world in worlds(), forbid in 4..POLICIES.len(), (who, tool, json) in calls()) {
        let before = call_with(&world.engine(), who, tool, &arguments(json));
        let engine = world.policy("acme", "zz", POLICIES[forbid]).engine();
        let after = call_with(&engine, who, tool, &arguments(json));
        prop_assert!(before.is_allow() || !after.is_allow());
    }

    /// What another tenant has changes nothing.
    #[test]
    fn tenants_are_apart(world in worlds(), other in worlds(), (who, tool, json) in calls()) {
        let alone = call_with(&world.engine(), who, tool, &arguments(json));
        let mut both = world.tenant("beta").principal("beta", "ana", &[("region", "us")]);
        for resource in other.0.resources.values().filter(|r| r.metadata.tenant.is_some()) {
            let id = resource.metadata.name.to_string();
            both = both.add(Some("beta"), &id, resource.spec.clone());
        }
        let both = both.policy("beta", "shut", "forbid(principal, action, resource);");
        prop_assert_eq!(alone, call_with(&both.engine(), who, tool, &arguments(json)));
    }

    /// What may be called is seen: hiding is sound.
    #[test]
    fn what_may_be_called_is_listed(world in worlds(), (who, tool, json) in calls()) {
        let engine = world.engine();
        let facts = Facts { transport: "http", ..arguments(json) };
        if call_with(&engine, who, tool, &facts).is_allow() {
            let plugin = tool.split_once('.').map(|(p, _)| p);
            prop_assert!(engine.may_see(
                &name("acme"), &name(who), provost_types::Action::CallTool, plugin, tool, NOW
            ));
        }
    }

    /// Observers change no decision.
    #[test]
    fn observers_have_no_effect(world in worlds(), observer in 0..POLICIES.len(), (who, tool, json) in calls()) {
        let before = call_with(&world.engine(), who, tool, &arguments(json));
        let engine = world.observe("acme", "zz", POLICIES[observer]).engine();
        let after = call_with(&engine, who, tool, &arguments(json));
        prop_assert_eq!(before.effect, after.effect);
        prop_assert_eq!(before.policies, after.policies);
    }
}
