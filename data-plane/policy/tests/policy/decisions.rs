//! Tables of snapshots, calls and what is decided.

use std::collections::BTreeSet;

use provost_data_policy::{AccessRequest, Facts, SqlFacts};
use provost_types::{Action, PrincipalSpec, RoleRule, RoleSpec, Spec};

use crate::world::*;

#[test]
fn grants_allow_and_the_default_denies() {
    let engine = World::acme()
        .role("acme", "analyst", &["sql.*", "time.now"], &["ana"], None)
        .role("acme", "everything", &["*"], &[], None)
        .engine();
    for (who, tool, allowed) in [
        ("ana", "sql.query", true),
        ("ana", "time.now", true),
        ("ana", "time.zone", false),
        ("ana", "sqlite.query", false),
        ("sam", "sql.query", false),
    ] {
        assert_eq!(call(&engine, who, tool).is_allow(), allowed, "{who} {tool}");
    }
    let yes = call(&engine, "ana", "sql.query");
    assert_eq!(yes.policies, ["role:analyst"]);
    assert_eq!(yes.revision.0, 7);
    let no = call(&engine, "ana", "time.zone");
    assert_eq!(no.policies, Vec::<String>::new());
    assert_eq!(no.reason, "no role or policy of tenant acme permits principal ana to call tool time.zone");
}

#[test]
fn unknown_and_disabled_callers_are_denied() {
    let disabled = PrincipalSpec { disabled: true, ..PrincipalSpec::default() };
    let engine = World::acme()
        .add(Some("acme"), "old", Spec::Principal(disabled))
        .role("acme", "all", &["*"], &["ana", "old"], None)
        .policy("acme", "open", "permit(principal, action, resource);")
        .engine();
    for (tenant, who, reason) in [
        ("acme", "bob", "tenant acme has no principal bob"),
        ("acme", "old", "principal old of tenant acme is disabled"),
        ("evil", "ana", "there is no tenant evil"),
    ] {
        let decision = decide(&engine, tenant, who, "sql.query", &Facts::default(), NOW);
        assert!(!decision.is_allow());
        assert_eq!(decision.reason, reason);
    }
}

#[test]
fn a_grant_is_for_its_action_only() {
    let rule = RoleRule {
        resources: ["docs://*".to_owned()].into(),
        models: ["minilm".to_owned()].into(),
        ..RoleRule::default()
    };
    let role = RoleSpec { description: String::new(), rules: vec![rule] };
    let engine = World::acme()
        .role("acme", "reader", &[], &["ana"], None)
        .add(Some("acme"), "reader", Spec::Role(role))
        .engine();
    let (acme, ana, facts) = (name("acme"), name("ana"), Facts::default());
    for (action, target, allowed) in [
        (Action::ReadResource, "docs://a/b", true),
        (Action::ReadResource, "http://a", false),
        (Action::UseModel, "minilm", true),
        (Action::CallTool, "minilm", false),
        (Action::GetPrompt, "docs://a", false),
    ] {
        let request =
            AccessRequest { token: None, tenant: &acme, principal: &ana, action, plugin: None, target, facts: &facts };
        assert_eq!(engine.decide(&request, NOW).is_allow(), allowed, "{action:?} {target}");
    }
}

#[test]
fn bindings_end() {
    let engine = World::acme()
        .role("acme", "temp", &["sql.*"], &["ana"], Some("2026-11-21T01:00:00Z"))
        .policy(
            "acme",
            "temp-echo",
            r#"@id("echo") permit(principal in Provost::Role::"temp", action, resource)
               when { resource.name == "echo.echo" };"#,
        )
        .engine();
    for (tool, granted_by) in [("sql.query", "role:temp"), ("echo.echo", "temp-echo/echo")] {
        let before = decide(&engine, "acme", "ana", tool, &Facts::default(), NOW + HOUR - 1);
        assert_eq!(before.policies, [granted_by]);
        let after = decide(&engine, "acme", "ana", tool, &Facts::default(), NOW + HOUR);
        assert!(!after.is_allow(), "{tool} after the end");
    }
}

#[test]
fn forbid_wins_and_is_named() {
    let engine = World::acme()
        .role("acme", "all", &["*"], &["ana"], None)
        .policy(
            "acme",
            "no-drops",
            r#"@id("never")
               forbid(principal, action == Provost::Action::"CallTool",
                      resource in Provost::Plugin::"sql")
               when { context.args.hasTag("sql") && context.args.getTag("sql") like "*DROP*" };
               permit(principal, action, resource);"#,
        )
        .engine();
    let no = call_with(&engine, "ana", "sql.query", &arguments(r#"{"sql":"DROP TABLE x"}"#));
    assert!(!no.is_allow());
    assert_eq!(no.policies, ["no-drops/never"]);
    assert_eq!(no.reason, "policy no-drops/never of tenant acme forbids principal ana to call tool sql.query");
    let yes = call_with(&engine, "ana", "sql.query", &arguments(r#"{"sql":"SELECT 1"}"#));
    assert_eq!(yes.policies, ["role:all", "no-drops/policy1"]);
    assert!(call_with(&engine, "sam", "echo.echo", &arguments("{}")).is_allow());
}

#[test]
fn arguments_are_matched_to_attributes() {
    let engine = World::acme()
        .policy(
            "acme",
            "own-region",
            r#"permit(principal, action == Provost::Action::"CallTool",
                      resource == Provost::Tool::"crm.list")
               when {
                 principal.attributes.hasTag("region") && context.args.hasTag("region") &&
                 context.args.getTag("region") == principal.attributes.getTag("region") &&
                 (if context.ints.hasTag("limit") then context.ints.getTag("limit") <= 100 else true)
               };"#,
        )
        .engine();
    for (who, json, allowed) in [
        ("ana", r#"{"region":"eu"}"#, true),
        ("ana", r#"{"region":"eu","limit":100}"#, true),
        ("ana", r#"{"region":"eu","limit":101}"#, false),
        ("ana", r#"{"region":"us"}"#, false),
        ("ana", r#"{"region":["eu"]}"#, false),
        ("ana", "{}", false),
        ("sam", r#"{"region":"eu"}"#, false),
    ] {
        let decision = call_with(&engine, who, "crm.list", &arguments(json));
        assert_eq!(decision.is_allow(), allowed, "{who} {json}");
    }
}

#[test]
fn unreadable_arguments_are_denied_where_policies_read_them() {
    let world = World::acme().role("acme", "all", &["*"], &["ana"], None);
    let twice = arguments(r#"{"a.b":"ok","a":{"b":"bad"}}"#);
    assert!(call_with(&world.engine(), "ana", "x.y", &twice).is_allow(), "nobody reads them");
    let engine = world
        .policy(
            "acme",
            "p",
            r#"forbid(principal, action, resource)
            when { context.args.hasTag("a.b") && context.args.getTag("a.b") == "bad" };"#,
        )
        .engine();
    let decision = call_with(&engine, "ana", "x.y", &twice);
    assert!(!decision.is_allow());
    assert!(decision.reason.contains("same dotted path"), "{}", decision.reason);
    assert!(call_with(&engine, "ana", "x.y", &arguments(r#"{"a":{"b":"ok"}}"#)).is_allow());
    assert!(!call_with(&engine, "ana", "x.y", &arguments(r#"{"a":{"b":"bad"}}"#)).is_allow());
}

fn sql(kinds: &[&str], tables: &[&str], statements: u32, has_where: bool) -> SqlFacts {
    let set = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    SqlFacts { statements, kinds: set(kinds), tables: set(tables), has_where, ..SqlFacts::default() }
}

#[test]
fn sql_facts_are_read() {
    let engine = World::acme()
        .role("acme", "analyst", &["sql.*"], &["ana"], None)
        .policy(
            "acme",
            "sql",
            r#"
            @id("only-select")
            forbid(principal, action == Provost::Action::"CallTool",
                   resource == Provost::Tool::"sql.query")
            unless { context has sql && context.sql.kind == "SELECT" };
            @id("tables")
            forbid(principal, action == Provost::Action::"CallTool",
                   resource == Provost::Tool::"sql.query")
            unless { context has sql && ["customers", "orders"].containsAll(context.sql.tables) };
            @id("one-statement")
            forbid(principal, action, resource)
            when { context has sql && context.sql.statements != 1 };
            @id("where")
            forbid(principal, action, resource)
            when { context has sql && context.sql.kinds.contains("UPDATE") &&
                   !context.sql.has_where };"#,
        )
        .engine();
    for (facts, expect) in [
        (Some(sql(&["SELECT"], &["customers", "orders"], 1, false)), vec!["role:analyst"]),
        (Some(sql(&["SELECT"], &["employees"], 1, false)), vec!["sql/tables"]),
        (Some(sql(&["DROP"], &["customers"], 1, false)), vec!["sql/only-select"]),
        (Some(sql(&["DROP", "SELECT"], &["customers"], 2, false)), vec!["sql/one-statement", "sql/only-select"]),
        (Some(sql(&["UPDATE"], &["orders"], 1, false)), vec!["sql/only-select", "sql/where"]),
        (Some(sql(&["UPDATE"], &["orders"], 1, true)), vec!["sql/only-select"]),
        (None, vec!["sql/only-select", "sql/tables"]),
    ] {
        let given = Facts { sql: facts.as_ref(), ..arguments("{}") };
        assert_eq!(call_with(&engine, "ana", "sql.query", &given).policies, expect, "{facts:?}");
    }
    assert!(call(&engine, "ana", "sql.schema").is_allow());
}

#[test]
fn time_transport_and_address_are_read() {
    let engine = World::acme()
        .policy(
            "acme",
            "p",
            r#"
            permit(principal, action, resource) when {
              context.time >= datetime("2026-11-21T00:00:00Z") &&
              context.time < datetime("2026-11-22") && context.transport == "http" &&
              context has client_address && context.client_address.isInRange(ip("10.0.0.0/8"))
            };"#,
        )
        .engine();
    let facts = |transport, address: &str| Facts {
        transport,
        client_address: Some(address.parse().unwrap()),
        ..Facts::default()
    };
    for (facts, now, allowed) in [
        (facts("http", "10.1.2.3"), NOW, true),
        (facts("http", "::ffff:10.1.2.3"), NOW, true),
        (facts("http", "11.1.2.3"), NOW, false),
        (facts("ws", "10.1.2.3"), NOW, false),
        (facts("http", "10.1.2.3"), NOW - 1_000_000, false),
        (facts("http", "10.1.2.3"), NOW + 24 * HOUR, false),
        (Facts { transport: "http", ..Facts::default() }, NOW, false),
    ] {
        let decision = decide(&engine, "acme", "ana", "x.y", &facts, now);
        assert_eq!(decision.is_allow(), allowed, "{facts:?} {now}");
    }
}

#[test]
fn a_forbid_that_fails_denies_and_a_permit_that_fails_does_not_permit() {
    let overflow = "context.ints.hasTag(\"n\") && context.ints.getTag(\"n\") * 9223372036854775807 > 0";
    let world = World::acme().policy(
        "acme",
        "maths",
        &format!(
            r#"@id("permit") permit(principal, action, resource) when {{ {overflow} }};
               @id("open") permit(principal, action, resource);"#
        ),
    );
    let two = arguments(r#"{"n":2}"#);
    assert_eq!(call_with(&world.engine(), "ana", "x.y", &two).policies, ["maths/open"]);
    let engine = world
        .policy("acme", "limit", &format!(r#"@id("limit") forbid(principal, action, resource) when {{ {overflow} }};"#))
        .engine();
    let decision = call_with(&engine, "ana", "x.y", &two);
    assert_eq!(decision.policies, ["limit/limit"]);
    assert!(decision.reason.contains("could not be evaluated"), "{}", decision.reason);
    assert!(call_with(&engine, "ana", "x.y", &arguments(r#"{"n":0}"#)).is_allow());
    assert!(!call_with(&engine, "ana", "x.y", &arguments(r#"{"n":1}"#)).is_allow());
}

#[test]
fn observers_are_reported_and_have_no_effect() {
    let world = World::acme().role("acme", "analyst", &["sql.*"], &["ana"], None).observe(
        "acme",
        "trial",
        r#"
            @id("no-sql") forbid(principal, action, resource in Provost::Plugin::"sql");
            @id("echo") permit(principal, action, resource in Provost::Plugin::"echo");"#,
    );
    let engine = world.engine();
    let sql = call(&engine, "ana", "sql.query");
    assert!(sql.is_allow());
    assert_eq!((sql.policies, sql.observed), (vec!["role:analyst".into()], vec!["trial/no-sql".to_owned()]));
    let echo = call(&engine, "ana", "echo.echo");
    assert!(!echo.is_allow());
    assert_eq!(echo.observed, ["trial/echo"]);
    let other = call(&engine, "ana", "time.now");
    assert_eq!(other.observed, Vec::<String>::new());
    let forbidden = world.policy("acme", "shut", "forbid(principal, action, resource);").engine();
    assert_eq!(
        call(&forbidden, "ana", "echo.echo").observed,
        Vec::<String>::new(),
        "a permit would not change what a forbid decides"
    );
}

#[test]
fn roles_types_and_tenants_are_attributes() {
    let engine = World::acme()
        .role("acme", "analyst", &[], &["ana"], None)
        .policy(
            "acme",
            "p",
            r#"
            permit(principal in Provost::Role::"analyst", action, resource)
            when { principal.type == "agent" && principal.tenant == "acme" &&
                   resource.tenant == "acme" };"#,
        )
        .engine();
    assert!(call(&engine, "ana", "x.y").is_allow());
    assert!(!call(&engine, "sam", "x.y").is_allow());
}
