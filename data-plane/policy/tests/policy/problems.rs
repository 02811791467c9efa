//! Bad resources: each problem is found, placed and reported with the others.

use provost_types::ResourceKey;

use crate::world::*;

/// Key, line, column and a part of the message of each problem.
fn found(world: &World) -> Vec<(String, Option<u32>, Option<u32>, String)> {
    let key = |k: &ResourceKey| k.to_string();
    world.problems().into_iter().map(|p| (key(&p.key), p.line, p.column, p.message)).collect()
}

#[test]
fn cedar_errors_have_a_place() {
    let start = "permit(\n  principal,\n  action == Provost::Action::\"CallTool\",\n  resource\n)\n";
    for (cedar, line, column, part) in [
        (format!("{start}when {{ principal.nmae == \"ana\" }};"), 6, 8, "nmae"),
        (format!("{start}when {{ principal.name == 1 }};"), 6, 8, "not compatible"),
        (format!("{start}when {{ context.sql.has_where }};"), 6, 8, "sql"),
        (format!("{start}when {{ principal.attributes.getTag(\"region\") == \"eu\" }};"), 6, 8, "region"),
        (format!("{start}when {{ resource.name lik \"x\" }};"), 6, 22, "unexpected token"),
        ("permit(principal, action == Provost::Action::\"Call\", resource);".to_owned(), 1, 0, "Call"),
        ("permit(principal == User::\"ana\", action, resource);".to_owned(), 1, 21, "User"),
        (
            "permit(principal, action == Provost::Action::\"GetPrompt\", resource == Provost::Tool::\"x\");".to_owned(),
            1,
            1,
            "impossible",
        ),
    ] {
        let world = World::acme().policy("acme", "p", &cedar);
        let problems = found(&world);
        let (key, at_line, at_column, message) = &problems[0];
        assert_eq!(key, "Policy/acme/p", "{cedar}");
        assert!(message.contains(part), "{cedar}: {message}");
        if column > 0 {
            assert_eq!((*at_line, *at_column), (Some(line), Some(column)), "{cedar}: {message}");
        }
    }
}

#[test]
fn a_policy_with_an_id_is_named_by_it() {
    let good = "@id(\"good\") permit(principal, action, resource);\n";
    let bad = "forbid(principal, action, resource) when { principal.nmae == \"ana\" };";
    let unread = "forbid(principal, action, resource) when { resource.name lik \"x\" };";
    for (cedar, expect) in [
        (format!("{good}@id(\"bad\")\n{bad}"), "for policy `bad`, attribute"),
        (format!("{good}@id(\"bad\")\n{unread}"), "for policy `bad`, unexpected token"),
        (format!("@id(\"bad\") {bad}\n{good}"), "for policy `bad`, attribute"),
        // As answers and records name one without.
        (format!("{good}{bad}"), "for policy `policy1`, attribute"),
    ] {
        let problems = found(&World::acme().policy("acme", "p", &cedar));
        let (_, line, _, message) = &problems[0];
        assert!(line.is_some() && message.starts_with(expect), "{cedar}: {message}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let world = World::acme()
        .tenant("beta")
        .principal("beta", "bob", &[])
        .role("acme", "bad", &["a*b", "ok.*", "*.x"], &["ana"], None)
        .role("acme", "late", &["x"], &["ana"], Some("tomorrow"))
        .policy(
            "acme",
            "two",
            "forbid(principal, action, resource) when { principal.x };\n\
                                permit(principal, action, resource) when { resource.y };",
        )
        .policy(
            "acme",
            "same",
            "@id(\"a\") permit(principal, action, resource);\n\
                                 @id(\"a\") forbid(principal, action, resource);",
        )
        .policy("acme", "empty", "// nothing")
        .policy("acme", "slot", "permit(principal == ?principal, action, resource);")
        .policy("beta", "syntax", "permit(");
    let keys: Vec<String> = found(&world).into_iter().map(|p| p.0).collect();
    for (key, at_least) in [
        ("Role/acme/bad", 2),
        ("RoleBinding/acme/late", 1),
        ("Policy/acme/two", 2),
        ("Policy/acme/same", 1),
        ("Policy/acme/empty", 1),
        ("Policy/acme/slot", 1),
        ("Policy/beta/syntax", 1),
    ] {
        let count = keys.iter().filter(|k| *k == key).count();
        assert!(count >= at_least, "{key}: {count} in {keys:?}");
    }
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(keys.first().map(String::as_str), Some("Role/acme/bad"), "key order");
    let display = world.problems()[0].to_string();
    assert!(display.starts_with("Role/acme/bad: `*.x` is not a name or a prefix"), "{display}");
}

/// Every example of the guide is a policy that can be applied.
#[test]
fn the_cookbook_is_valid() {
    let guide = include_str!("../../../../docs/policy.md");
    let examples: Vec<&str> = guide.split("```cedar\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(examples.len() >= 8, "{} examples", examples.len());
    for (i, cedar) in examples.iter().enumerate() {
        World::acme().policy("acme", &format!("example-{i}"), cedar).engine();
    }
}

#[test]
fn the_schema_is_published_text() {
    assert!(provost_data_policy::SCHEMA_TEXT.contains("namespace Provost"));
}
