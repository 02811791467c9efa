//! What is remembered of calls, and what is not known of them, changes no decision.

use proptest::prelude::*;
use provost_data_policy::{AccessRequest, Facts, PolicyEngine, SqlFacts, Unknown};
use provost_types::{Action, Decision, TokenFacts};

use crate::world::*;

const TOOLS: [&str; 5] = ["sql.query", "sql.schema", "echo.echo", "time.now", "tool-without-plugin"];
const WHO: [&str; 3] = ["ana", "sam", "nobody"];
const ARGUMENTS: [&str; 5] = ["{}", r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":"1"}"#, r#"{"a":9223372036854775807}"#];
const TIMES: [u64; 4] = [NOW - 3 * HOUR, NOW, NOW + HOUR, NOW + 3 * HOUR];
/// Ends of bindings: between the times above, at one of them, and never.
const ENDS: [Option<&str>; 4] =
    [None, Some("2026-11-20T23:00:00Z"), Some("2026-11-21T01:00:00Z"), Some("2026-11-21T02:00:00Z")];
const PATTERNS: [&str; 6] = ["*", "sql.*", "sql.query", "echo.echo", "time.*", "t*"];

/// Policies of every form: by scope, by attribute, by each part of `context`, with errors before and behind
/// the first condition on `context`.
const POLICIES: [&str; 18] = [
    "permit(principal, action, resource);",
    "permit(principal == Provost::Principal::\"ana\", action, resource in Provost::Plugin::\"sql\");",
    "permit(principal in Provost::Role::\"r0\", action, resource) when { context.transport == \"http\" };",
    "permit(principal is Provost::Principal, action, resource is Provost::Tool) when { context has sql };",
    "permit(principal, action, resource) when { context.args.hasTag(\"a\") && resource.plugin == \"echo\" };",
    "permit(principal, action == Provost::Action::\"CallTool\", resource == Provost::Tool::\"time.now\");",
    "permit(principal, action, resource) when { context.time < datetime(\"2026-11-21T00:30:00Z\") };",
    "permit(principal in Provost::Role::\"r1\", action, resource in Provost::Plugin::\"echo\");",
    "forbid(principal, action, resource == Provost::Tool::\"sql.query\");",
    "forbid(principal in Provost::Role::\"r1\", action, resource);",
    "forbid(principal, action, resource) when { context.args.hasTag(\"a\") && context.args.getTag(\"a\") == \"1\" };",
    "forbid(principal, action, resource) when { context.ints.hasTag(\"a\") && context.ints.getTag(\"a\") * 2 > 2 };",
    "forbid(principal, action, resource in Provost::Plugin::\"sql\") unless { context has sql && context.sql.has_where };",
    "forbid(principal, action, resource) when { context has client_address && context.client_address.isLoopback() };",
    "forbid(principal, action, resource) when { context.ints.hasTag(\"a\") && context.ints.getTag(\"a\") * 2 > 2 \
     && principal.name == \"sam\" };",
    "forbid(principal, action, resource) when { principal.attributes.hasTag(\"region\") } \
     unless { context.args.hasTag(\"a\") || resource.name == \"echo.echo\" };",
    "forbid(principal, action == Provost::Action::\"GetPrompt\", resource);",
    "forbid(principal == Provost::Principal::\"sam\", action, resource) when { context.time > datetime(\"2026-11-21\") };",
];

fn worlds() -> impl Strategy<Value = World> {
    let role = (0..PATTERNS.len(), prop::collection::vec(0..2usize, 0..2), 0..ENDS.len());
    let policy = (0..POLICIES.len(), prop::bool::weighted(0.2));
    (prop::collection::vec(role, 0..4), prop::collection::vec(policy, 0..6)).prop_map(|(roles, policies)| {
        let mut world = World::acme();
        for (i, (pattern, who, end)) in roles.into_iter().enumerate() {
            let who: Vec<&str> = who.into_iter().map(|w| WHO[w]).collect();
            world = world.role("acme", &format!("r{i}"), &[PATTERNS[pattern]], &who, ENDS[end]);
        }
        for (i, (policy, observes)) in policies.into_iter().enumerate() {
            world = match observes {
                true => world.observe("acme", &format!("p{i}"), POLICIES[policy]),
                false => world.policy("acme", &format!("p{i}"), POLICIES[policy]),
            };
        }
        world
    })
}

#[derive(Clone, Copy, Debug)]
struct Call {
    who: &'static str,
    tool: &'static str,
    arguments: &'static str,
    now_ns: u64,
    transport: &'static str,
    is_local: bool,
    sql: Option<bool>,
    token: Option<usize>,
}

/// What tokens say: nothing, roles, attributes, and that there is such a caller at all.
fn tokens() -> [TokenFacts; 6] {
    let plain = TokenFacts::default();
    let mut eu = plain.clone();
    eu.principal.attributes.insert("region".to_owned(), "eu".to_owned());
    let mut us = eu.clone();
    us.principal.attributes.insert("region".to_owned(), "us".to_owned());
    let made = TokenFacts { is_made: true, ..eu.clone() };
    let of_role = TokenFacts { roles: [name("r1")].into(), ..plain.clone() };
    let both = TokenFacts { roles: [name("r0")].into(), is_made: true, ..us.clone() };
    [plain, eu, us, made, of_role, both]
}

fn calls() -> impl Strategy<Value = Call> {
    let who = prop::sample::select(&WHO[..]);
    let tool = prop::sample::select(&TOOLS[..]);
    let arguments = prop::sample::select(&ARGUMENTS[..]);
    let now_ns = prop::sample::select(&TIMES[..]);
    let transport = prop::sample::select(&["http", "quic"][..]);
    let token = prop::option::of(0..tokens().len());
    (who, tool, arguments, now_ns, transport, any::<bool>(), any::<Option<bool>>(), token).prop_map(
        |(who, tool, arguments, now_ns, transport, is_local, sql, token)| Call {
            who,
            tool,
            arguments,
            now_ns,
            transport,
            is_local,
            sql,
            token,
        },
    )
}

impl Call {
    fn ask<T>(&self, ask: impl FnOnce(&AccessRequest<'_>, u64) -> T) -> T {
        let sql = self.sql.map(|has_where| SqlFacts { has_where, ..SqlFacts::default() });
        let facts = Facts {
            arguments: Some(self.arguments),
            sql: sql.as_ref(),
            transport: self.transport,
            client_address: Some(if self.is_local { [127, 0, 0, 1].into() } else { [10, 0, 0, 7].into() }),
        };
        let (tenant, principal) = (name("acme"), name(self.who));
        let tokens = tokens();
        let request = AccessRequest {
            token: self.token.map(|token| &tokens[token]),
            tenant: &tenant,
            principal: &principal,
            action: Action::CallTool,
            plugin: self.tool.split_once('.').map(|(plugin, _)| plugin),
            target: self.tool,
            facts: &facts,
        };
        ask(&request, self.now_ns)
    }

    fn decide(&self, engine: &PolicyEngine) -> Decision {
        self.ask(|request, now| engine.decide(request, now))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same engine asked many things, in any order and at any time, says what one that is asked for the
    /// first time says, and what evaluating every policy says.
    #[test]
    fn remembering_changes_no_decision(world in worlds(), asked in prop::collection::vec(calls(), 1..24)) {
        let engine = world.engine();
        for call in asked.iter().chain(&asked) {
            let remembered = call.decide(&engine);
            let anew = call.ask(|request, now| engine.decide_anew(request, now));
            let by_all = call.ask(|request, now| engine.decide_by_all(request, now));
            prop_assert_eq!(&remembered, &anew, "{:?}", call);
            prop_assert_eq!(&remembered, &by_all, "{:?}", call);
        }
    }

    /// What is said without the arguments or the address holds whatever they were.
    #[test]
    fn what_is_certain_without_facts_is_certain(world in worlds(), call in calls(), arguments: bool, address: bool) {
        let engine = world.engine();
        let unknown = Unknown { arguments, address };
        let certain = call.ask(|request, now| engine.decide_without(request, unknown, now));
        let Some(certain) = certain else {
            prop_assert!(arguments || address, "nothing is unknown");
            return Ok(());
        };
        for other in ARGUMENTS {
            for is_local in [true, false] {
                for sql in [None, Some(true), Some(false)] {
                    let mut with = call;
                    if arguments {
                        (with.arguments, with.sql) = (other, sql);
                    }
                    if address {
                        with.is_local = is_local;
                    }
                    prop_assert_eq!(with.decide(&engine).effect, certain.effect, "{:?}", with);
                }
            }
        }
    }

    /// A later state is not answered from what was remembered of an earlier one.
    #[test]
    fn a_change_forgets(first in worlds(), second in worlds(), asked in prop::collection::vec(calls(), 1..12)) {
        let engine = first.engine();
        for call in &asked {
            call.decide(&engine);
        }
        let later = engine.recompile(&second.0).unwrap();
        let anew = second.engine();
        for call in &asked {
            prop_assert_eq!(call.decide(&later), call.decide(&anew));
        }
    }
}

#[test]
fn a_grant_that_ends_ends_whatever_is_remembered() {
    let engine = World::acme()
        .role("acme", "r", &["sql.*"], &["ana"], Some("2026-11-21T01:00:00Z"))
        .policy("acme", "p", "permit(principal in Provost::Role::\"r\", action, resource == Provost::Tool::\"x.y\");")
        .engine();
    for tool in ["sql.query", "x.y"] {
        for (now, expect) in [(NOW, true), (NOW + HOUR - 1, true), (NOW + HOUR, false), (NOW, true)] {
            assert_eq!(decide(&engine, "acme", "ana", tool, &Facts::default(), now).is_allow(), expect, "{tool} {now}");
        }
    }
}

#[test]
fn what_is_remembered_is_kept_while_policy_stays_the_same() {
    let engine = World::acme().policy("acme", "p", "permit(principal, action, resource);").engine();
    let long = "x".repeat(600);
    call(&engine, "ana", &long);
    assert_eq!(engine.remembered(), 0, "names that are made up to be long are not kept");
    for n in 0..100 {
        call(&engine, "ana", &format!("t.{}", n % 10));
    }
    assert_eq!(engine.remembered(), 10);
    // What a token says is a part of whom it is remembered for, unless it says very much.
    let (tenant, ana, facts) = (name("acme"), name("ana"), Facts::default());
    let mut large = TokenFacts::default();
    large.principal.attributes.insert("x".to_owned(), "y".repeat(2_000));
    for (token, remembered) in
        [(Some(&tokens()[1]), 11), (Some(&tokens()[1]), 11), (Some(&tokens()[2]), 12), (Some(&large), 12)]
    {
        let (action, plugin) = (Action::CallTool, Some("t"));
        let request =
            AccessRequest { token, tenant: &tenant, principal: &ana, action, plugin, target: "t.1", facts: &facts };
        engine.decide(&request, NOW);
        assert_eq!(engine.remembered(), remembered);
    }
    // A revision that changes nothing about policy keeps what is known.
    let mut same = World::acme().policy("acme", "p", "permit(principal, action, resource);").0;
    same.revision.0 += 1;
    let kept = engine.recompile(&same).unwrap();
    assert_eq!(kept.remembered(), 12);
    assert_eq!(call(&kept, "ana", "t.9").revision, same.revision, "and says its own revision");
    engine.give_way(&kept);
    assert_eq!(kept.remembered(), 12, "and goes on with it");
}

#[test]
fn an_engine_whose_place_another_took_remembers_nothing_and_decides_the_same() {
    let engine = World::acme().policy("acme", "p", "permit(principal, action, resource);").engine();
    let later = World::acme().policy("acme", "p", "forbid(principal, action, resource);");
    let later = engine.recompile(&later.0).unwrap();
    for engine in [&engine, &later] {
        call(engine, "ana", "t.1");
        assert_eq!(engine.remembered(), 1);
    }
    engine.give_way(&later);
    assert_eq!((engine.remembered(), later.remembered()), (0, 1));
    // A call that came under it and still runs.
    assert!(call(&engine, "ana", "t.1").is_allow() && !call(&later, "ana", "t.1").is_allow());
}

#[test]
fn arguments_that_cannot_be_read_deny_where_a_policy_that_could_apply_reads_them() {
    let engine = World::acme()
        .role("acme", "r", &["*"], &["ana", "sam"], None)
        .policy(
            "acme",
            "p",
            "forbid(principal == Provost::Principal::\"ana\", action, resource in Provost::Plugin::\"sql\")
             when { context.args.hasTag(\"a\") };",
        )
        .observe("acme", "trial", "forbid(principal, action, resource) when { context.args.hasTag(\"a\") };")
        .engine();
    let unclear = arguments(r#"{"a.b":1,"a":{"b":2}}"#);
    for (who, tool, expect) in [("ana", "sql.query", false), ("ana", "echo.echo", true), ("sam", "sql.query", true)] {
        assert_eq!(call_with(&engine, who, tool, &unclear).is_allow(), expect, "{who} {tool}");
    }
}

#[test]
fn what_is_kept_of_a_caller_and_object_holds_no_arguments_and_ends_with_its_policies() {
    let world = |word: &str| {
        let when = format!("context.args.hasTag(\"a\") && context.args.getTag(\"a\") == \"{word}\"");
        World::acme().role("acme", "r", &["*"], &["ana"], None).policy(
            "acme",
            "p",
            &format!("forbid(principal, action, resource) when {{ {when} }};"),
        )
    };
    let may = |engine: &PolicyEngine, json: &str| call_with(engine, "ana", "echo.echo", &arguments(json)).is_allow();
    let engine = world("one").engine();
    for _ in 0..2 {
        for (json, expect) in [("{}", true), (r#"{"a":"one"}"#, false), (r#"{"a":"two"}"#, true), (r#"{"b":1}"#, true)]
        {
            assert_eq!(may(&engine, json), expect, "{json}");
        }
    }
    let later = engine.recompile(&world("two").0).unwrap();
    for (json, expect) in [("{}", true), (r#"{"a":"one"}"#, true), (r#"{"a":"two"}"#, false)] {
        assert_eq!(may(&later, json), expect, "{json}, by the later policy");
    }
    let needed = "forbid(principal, action, resource) unless { context.args.hasTag(\"a\") };";
    let last = World::acme().role("acme", "r", &["*"], &["ana"], None).policy("acme", "p", needed);
    let last = later.recompile(&last.0).unwrap();
    for (json, expect) in [("{}", false), (r#"{"a":1}"#, true), ("{}", false), (r#"{"b":1}"#, false)] {
        assert_eq!(may(&last, json), expect, "{json}, by the last policy");
    }
    assert!(may(&last.recompile(&world("one").0).unwrap(), "{}"), "and by the first one again");
}
