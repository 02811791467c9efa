//! Callers with tokens: what these give comes on top, and makes a caller only where it may.

use provost_data_policy::{AccessRequest, Facts};
use provost_types::{Action, Decision, PrincipalSpec, PrincipalType, TokenFacts};

use crate::world::{NOW, World, name};

fn token(roles: &[&str], attributes: &[(&str, &str)], is_made: bool) -> TokenFacts {
    let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let principal = PrincipalSpec { principal_type: PrincipalType::User, attributes, ..PrincipalSpec::default() };
    TokenFacts { principal, is_made, roles: roles.iter().map(|r| name(r)).collect(), ..TokenFacts::default() }
}

/// What is decided, and whether it is shown in lists.
fn ask(engine: &provost_data_policy::PolicyEngine, who: &str, tool: &str, token: &TokenFacts) -> (Decision, bool) {
    let (tenant, principal, facts) = (name("acme"), name(who), Facts::default());
    let request = AccessRequest {
        tenant: &tenant,
        principal: &principal,
        token: Some(token),
        action: Action::CallTool,
        plugin: tool.split_once('.').map(|(plugin, _)| plugin),
        target: tool,
        facts: &facts,
    };
    (engine.decide(&request, NOW), engine.may_see_object(&request, NOW))
}

#[test]
fn a_token_adds_to_bindings_and_makes_nobody_unless_told() {
    let engine = World::acme()
        .role("acme", "reader", &["sql.*"], &["ana"], None)
        .role("acme", "clock", &["time.*"], &[], None)
        .role("acme", "other", &["other.*"], &["sam"], None)
        .engine();
    for (who, roles, is_made, tool, allowed) in [
        ("ana", &[][..], false, "sql.query", true),
        ("ana", &["clock"], false, "sql.query", true),
        ("ana", &["clock"], false, "time.now", true),
        ("ana", &[], false, "time.now", false),
        ("ana", &["clock", "no-such-role"], false, "other.x", false),
        ("eve", &["clock"], true, "time.now", true),
        ("eve", &["clock"], true, "sql.query", false),
        ("eve", &["clock"], false, "time.now", false),
        ("eve", &[], true, "time.now", false),
        // A principal whose token was made before there was one has its bindings all the same.
        ("ana", &[], true, "sql.query", true),
    ] {
        let (decision, seen) = ask(&engine, who, tool, &token(roles, &[], is_made));
        assert_eq!((decision.is_allow(), seen), (allowed, allowed), "{who} {roles:?} {tool}: {}", decision.reason);
    }
    let (decision, _) = ask(&engine, "ana", "time.now", &token(&["clock"], &[], false));
    assert_eq!(decision.policies, ["role:clock"]);
}

#[test]
fn policies_see_the_claims_and_the_roles() {
    let engine = World::acme()
        .role("acme", "clock", &["time.*"], &[], None)
        .policy(
            "acme",
            "eu",
            r#"@id("eu") forbid(principal, action, resource) unless
               { principal.attributes.hasTag("region") && principal.attributes.getTag("region") == "eu" };"#,
        )
        .policy(
            "acme",
            "echo",
            r#"@id("echo") permit(principal in Provost::Role::"clock", action, resource)
               when { resource.name == "echo.echo" && principal.type == "user" };"#,
        )
        .engine();
    for (who, roles, region, is_made, tool, allowed) in [
        ("eve", &["clock"][..], Some("eu"), true, "time.now", true),
        ("eve", &["clock"], Some("us"), true, "time.now", false),
        ("eve", &["clock"], None, true, "time.now", false),
        ("eve", &["clock"], Some("eu"), true, "echo.echo", true),
        ("eve", &[], Some("eu"), true, "echo.echo", false),
        ("sam", &["clock"], Some("eu"), false, "echo.echo", true),
    ] {
        let attributes: Vec<(&str, &str)> = region.map(|r| ("region", r)).into_iter().collect();
        let (decision, _) = ask(&engine, who, tool, &token(roles, &attributes, is_made));
        assert_eq!(decision.is_allow(), allowed, "{who} {roles:?} {region:?} {tool}: {}", decision.reason);
    }
}

#[test]
fn who_is_disabled_stays_so() {
    let off = PrincipalSpec { disabled: true, ..PrincipalSpec::default() };
    let engine = World::acme()
        .role("acme", "clock", &["time.*"], &[], None)
        .add(Some("acme"), "off", provost_types::Spec::Principal(off))
        .engine();
    for is_made in [true, false] {
        let (decision, seen) = ask(&engine, "off", "time.now", &token(&["clock"], &[], is_made));
        assert!(!decision.is_allow() && !seen, "{}", decision.reason);
        assert!(decision.reason.contains("disabled"), "{}", decision.reason);
    }
}
