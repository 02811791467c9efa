//! A thousand grants: right, and looked up rather than searched.

use crate::world::*;

fn thousand_grants() -> World {
    (0..1_000).fold(World::acme(), |world, i| {
        let tool = format!("plugin-{i}.tool");
        let prefix = format!("wide-{i}.*");
        world.role("acme", &format!("role-{i}"), &[&tool, &prefix, "common.*"], &["ana"], None)
    })
}

#[test]
fn a_thousand_grants_decide_as_one() {
    let engine = thousand_grants().engine();
    for (tool, expect) in [
        ("plugin-0.tool", Some("role:role-0")),
        ("plugin-999.tool", Some("role:role-999")),
        ("wide-500.anything", Some("role:role-500")),
        ("plugin-1000.tool", None),
        ("plugin-1.tool2", None),
    ] {
        let decision = call(&engine, "ana", tool);
        assert_eq!(decision.policies.first().map(String::as_str), expect, "{tool}");
        assert!(decision.policies.len() <= 1);
    }
    assert_eq!(call(&engine, "ana", "common.x").policies.len(), 1_000);
    assert!(!call(&engine, "sam", "plugin-0.tool").is_allow());
}

#[test]
fn grants_and_policies_meet_at_scale() {
    let engine = thousand_grants()
        .policy(
            "acme",
            "p",
            r#"
            @id("no-7") forbid(principal in Provost::Role::"role-7", action,
                               resource == Provost::Tool::"plugin-7.tool");
            @id("role") permit(principal in Provost::Role::"role-999", action,
                               resource == Provost::Tool::"extra.tool");"#,
        )
        .engine();
    assert_eq!(call(&engine, "ana", "plugin-7.tool").policies, ["p/no-7"]);
    assert_eq!(call(&engine, "ana", "plugin-8.tool").policies, ["role:role-8"]);
    assert_eq!(call(&engine, "ana", "extra.tool").policies, ["p/role"]);
    assert!(!call(&engine, "sam", "extra.tool").is_allow());
}

#[test]
fn a_later_snapshot_decides_as_if_compiled_anew() {
    let first = World::acme().role("acme", "r", &["sql.*"], &["ana"], None);
    let engine = first.engine();
    let worlds = [
        first.clone(),
        first.clone().principal("acme", "new", &[]),
        first.clone().role("acme", "r", &["echo.*"], &["ana"], None),
        first.clone().role("acme", "r", &["sql.*"], &["ana", "sam"], None),
        first.clone().policy("acme", "p", "forbid(principal, action, resource);"),
        first.clone().tenant("beta").principal("beta", "bob", &[]),
        World::default().tenant("acme"),
        World::default(),
    ];
    for (i, world) in worlds.iter().enumerate() {
        let anew = world.engine();
        let later = engine.recompile(&world.0).unwrap();
        for who in ["ana", "sam", "new"] {
            for tool in ["sql.query", "echo.echo"] {
                assert_eq!(call(&later, who, tool), call(&anew, who, tool), "{i} {who} {tool}");
            }
        }
    }
    let broken = first.policy("acme", "p", "permit(");
    assert_eq!(engine.recompile(&broken.0).unwrap_err(), broken.problems());
}

#[test]
fn a_decision_costs_what_its_own_policies_cost() {
    use provost_data_policy::{AccessRequest, Facts};
    use provost_types::Action;

    let cedar = (0..600).map(|n| {
        format!(
            "@id(\"p{n}\") forbid(principal, action, resource == Provost::Tool::\"plugin-{n}.tool\") \
             when {{ context.ints.hasTag(\"limit\") && context.ints.getTag(\"limit\") > {n} }};"
        )
    });
    let cedar: Vec<String> = cedar.collect();
    let engine = World::acme()
        .role("acme", "all", &["plugin-*"], &["ana"], None)
        .policy("acme", "many", &cedar.join("\n"))
        .engine();
    let (tenant, principal) = (name("acme"), name("ana"));
    let facts = Facts { arguments: Some(r#"{"limit":300}"#), transport: "http", ..Facts::default() };
    let timed = |how: &dyn Fn(&AccessRequest<'_>) -> provost_types::Decision| {
        let began = std::time::Instant::now();
        let mut allowed = 0;
        for n in 0..100 {
            let target = format!("plugin-{}.tool", 250 + n);
            let request = AccessRequest {
                token: None,
                tenant: &tenant,
                principal: &principal,
                action: Action::CallTool,
                plugin: target.split_once('.').map(|(plugin, _)| plugin),
                target: &target,
                facts: &facts,
            };
            allowed += usize::from(how(&request).is_allow());
        }
        assert_eq!(allowed, 50, "limits below 300 forbid");
        began.elapsed() / 100
    };
    let first = timed(&|request| engine.decide(request, NOW));
    let remembered = timed(&|request| engine.decide(request, NOW));
    let all = timed(&|request| engine.decide_by_all(request, NOW));
    println!("600 policies: first time {first:?}, remembered {remembered:?}, all evaluated {all:?}");
    assert!(remembered * 5 < all, "{remembered:?} against {all:?}");
}
