//! What one decision costs, and that it does not grow with what other calls need.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use provost_bench::{NOW_NS, name, snapshot};
use provost_data_policy::{AccessRequest, Facts, PolicyEngine};
use provost_types::Action;

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    let (tenant, principal) = (name("acme"), name("ana"));
    let facts = Facts { transport: "http", ..Facts::default() };
    let request = AccessRequest {
        token: None,
        tenant: &tenant,
        principal: &principal,
        action: Action::CallTool,
        plugin: Some("sql"),
        target: "sql.query",
        facts: &facts,
    };
    for (roles, policies) in [(1, 0), (1_000, 0), (10, 5), (10, 100)] {
        let engine = PolicyEngine::compile(&snapshot(roles, policies)).expect("a sound snapshot");
        assert!(engine.decide(&request, NOW_NS).is_allow());
        let id = BenchmarkId::from_parameter(format!("{roles} roles, {policies} policies"));
        group.bench_function(id, |b| b.iter(|| engine.decide(black_box(&request), NOW_NS)));
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
