//! What a decision costs, with 10,000 tools and more and more policies: remembered, asked for the first time,
//! and by evaluating every policy, which is what it was before decisions were remembered.
//! `cargo bench -p provost-data-policy`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use provost_data_policy::{AccessRequest, Facts, PolicyEngine};
use provost_types::{
    Action, Metadata, Name, PolicyMode, PolicySpec, PrincipalSpec, Resource, Revision, RoleBindingSpec, RoleRule,
    RoleSpec, Snapshot, Spec, TenantSpec,
};

/// 2026-11-21T00:00:00Z.
const NOW: u64 = 1_795_219_200_000_000_000;
const TOOLS: usize = 10_000;
const TOOLS_A_PLUGIN: usize = 20;
/// Policies of one resource.
const A_RESOURCE: usize = 50;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn add(snapshot: &mut Snapshot, tenant: Option<&str>, id: &str, spec: Spec) {
    let metadata = Metadata { name: name(id), tenant: tenant.map(name), labels: BTreeMap::new() };
    let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
    snapshot.resources.insert(resource.key(), Arc::new(resource));
}

/// Policies as people write them: on one tool and its arguments, on a plugin for a role, on everything.
fn policy(n: usize) -> String {
    let (tool, plugin) = (n % TOOLS, n % (TOOLS / TOOLS_A_PLUGIN));
    match n % 10 {
        0 => format!(
            "@id(\"p{n}\") permit(principal in Provost::Role::\"r{}\", action, resource in Provost::Plugin::\"plugin-{plugin}\");",
            n % 7
        ),
        1 => format!(
            "@id(\"p{n}\") forbid(principal, action, resource) when {{ resource.name == \"plugin-0.never-{n}\" }};"
        ),
        2 => format!(
            "@id(\"p{n}\") forbid(principal, action, resource in Provost::Plugin::\"plugin-{plugin}\") \
             when {{ context.args.hasTag(\"region\") && context.args.getTag(\"region\") == \"x{n}\" }};"
        ),
        _ => format!(
            "@id(\"p{n}\") forbid(principal, action, resource == Provost::Tool::\"{}\") \
             when {{ context.ints.hasTag(\"limit\") && context.ints.getTag(\"limit\") > {n} }};",
            tool_name(tool)
        ),
    }
}

fn tool_name(n: usize) -> String {
    format!("plugin-{}.tool-{n}", n / TOOLS_A_PLUGIN)
}

fn engine(policies: usize) -> PolicyEngine {
    let mut snapshot = Snapshot { revision: Revision(7), ..Snapshot::default() };
    add(&mut snapshot, None, "acme", Spec::Tenant(TenantSpec::default()));
    add(&mut snapshot, Some("acme"), "ana", Spec::Principal(PrincipalSpec::default()));
    for role in 0..10 {
        let id = format!("r{role}");
        let rules = vec![RoleRule { tools: ["plugin-*".to_owned()].into(), ..RoleRule::default() }];
        add(&mut snapshot, Some("acme"), &id, Spec::Role(RoleSpec { description: String::new(), rules }));
        let binding = RoleBindingSpec { role: name(&id), principals: [name("ana")].into(), expires: None };
        add(&mut snapshot, Some("acme"), &id, Spec::RoleBinding(binding));
    }
    for (resource, numbers) in (0..policies).collect::<Vec<_>>().chunks(A_RESOURCE).enumerate() {
        let cedar = numbers.iter().map(|n| policy(*n)).collect::<Vec<_>>().join("\n");
        let spec = PolicySpec { description: String::new(), cedar, mode: PolicyMode::Enforce };
        add(&mut snapshot, Some("acme"), &format!("policies-{resource}"), Spec::Policy(spec));
    }
    PolicyEngine::compile(&snapshot).unwrap()
}

fn decide(c: &mut Criterion) {
    let (tenant, principal) = (name("acme"), name("ana"));
    let facts = Facts {
        arguments: Some(r#"{"limit":10,"region":"eu","text":"hello"}"#),
        transport: "http",
        ..Facts::default()
    };
    let tools: Vec<(String, String)> =
        (0..TOOLS).map(|n| (format!("plugin-{}", n / TOOLS_A_PLUGIN), tool_name(n))).collect();
    let mut group = c.benchmark_group("decide");
    for policies in [10, 1_000, 5_000] {
        let engine = engine(policies);
        let mut next = 0;
        let mut ask = |how: fn(&PolicyEngine, &AccessRequest<'_>, u64) -> provost_types::Decision| {
            // A stride that meets every tool.
            next = (next + 7_919) % TOOLS;
            let (plugin, target) = &tools[next];
            let request = AccessRequest {
                tenant: &tenant,
                principal: &principal,
                action: Action::CallTool,
                plugin: Some(plugin),
                target,
                facts: &facts,
            };
            black_box(how(&engine, &request, NOW))
        };
        for _ in 0..TOOLS {
            ask(PolicyEngine::decide);
        }
        group.bench_function(format!("{policies} policies, remembered"), |b| b.iter(|| ask(PolicyEngine::decide)));
        group.bench_function(format!("{policies} policies, first time"), |b| b.iter(|| ask(PolicyEngine::decide_anew)));
        group.bench_function(format!("{policies} policies, all evaluated"), |b| {
            b.iter(|| ask(PolicyEngine::decide_by_all))
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = decide }
criterion_main!(benches);
