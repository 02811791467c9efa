//! Which objects a caller sees.

use provost_data_policy::PolicyEngine;
use provost_types::Action;

use crate::world::*;

fn sees(engine: &PolicyEngine, who: &str, tool: &str) -> bool {
    let plugin = tool.split_once('.').map(|(plugin, _)| plugin);
    engine.may_see(&name("acme"), &name(who), Action::CallTool, plugin, tool, NOW)
}

#[test]
fn lists_show_what_some_call_may_do() {
    let granted = World::acme().role("acme", "analyst", &["sql.*"], &["ana"], None);
    for (policy, who, tool, expect) in [
        ("", "ana", "sql.query", true),
        ("", "ana", "echo.echo", false),
        ("", "sam", "sql.query", false),
        ("", "nobody", "sql.query", false),
        // A forbid that looks at arguments does not hide.
        ("forbid(principal, action, resource) unless { context has sql };", "ana", "sql.query", true),
        (
            "forbid(principal, action, resource) when { context.time > datetime(\"2020-01-01\") };",
            "ana",
            "sql.query",
            true,
        ),
        // One that does not, does.
        ("forbid(principal, action, resource);", "ana", "sql.query", false),
        ("forbid(principal, action, resource == Provost::Tool::\"sql.query\");", "ana", "sql.query", false),
        ("forbid(principal, action, resource == Provost::Tool::\"sql.query\");", "ana", "sql.schema", true),
        ("forbid(principal, action, resource) when { resource.name like \"*.drop\" };", "ana", "sql.drop", false),
        ("forbid(principal, action == Provost::Action::\"ReadResource\", resource);", "ana", "sql.query", true),
        // Permits show what they might permit.
        ("permit(principal, action, resource in Provost::Plugin::\"echo\");", "sam", "echo.echo", true),
        ("permit(principal, action, resource in Provost::Plugin::\"echo\");", "sam", "time.now", false),
        (
            "permit(principal, action, resource) when { context has sql && resource.plugin == \"sql\" };",
            "sam",
            "sql.query",
            true,
        ),
        (
            "permit(principal, action, resource) when { context has sql && resource.plugin == \"sql\" };",
            "sam",
            "echo.echo",
            false,
        ),
        (
            "permit(principal in Provost::Role::\"analyst\", action, resource) when { context has sql };",
            "sam",
            "echo.echo",
            false,
        ),
        (
            "permit(principal in Provost::Role::\"analyst\", action, resource) when { context has sql };",
            "ana",
            "echo.echo",
            true,
        ),
    ] {
        let world = if policy.is_empty() { granted.clone() } else { granted.clone().policy("acme", "p", policy) };
        assert_eq!(sees(&world.engine(), who, tool), expect, "{who} {tool} under {policy}");
    }
}

#[test]
fn observers_and_other_actions_do_not_show_or_hide() {
    let engine = World::acme()
        .role("acme", "analyst", &["sql.*"], &["ana"], None)
        .observe("acme", "o", "forbid(principal, action, resource);")
        .observe("acme", "o2", "permit(principal, action, resource);")
        .engine();
    assert!(sees(&engine, "ana", "sql.query"));
    assert!(!sees(&engine, "sam", "sql.query"));
}

#[test]
fn ended_bindings_show_nothing() {
    let engine = World::acme().role("acme", "temp", &["sql.*"], &["ana"], Some("2026-11-20T23:59:59Z")).engine();
    assert!(!sees(&engine, "ana", "sql.query"));
}
