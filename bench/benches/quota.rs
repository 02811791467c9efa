//! What quotas cost a call on its node: the decision (may it run: the price, the quotas that cover it, the
//! account of each, the clock, the units) and the same with the settlement at its end. It is what the
//! limit stage does when there are units; asking the ledger is not part of it.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use provost_bench::{QuotaNode, name, quota_call};
use provost_data_policy::quota::{Actual, Held};
use provost_types::QuotaPer;

fn quota(c: &mut Criterion) {
    let mut group = c.benchmark_group("quota");
    let (tenant, principal) = (name("acme"), name("ana"));
    let call = quota_call(&tenant, &principal);
    for (quotas, per) in [(0, QuotaPer::Tenant), (1, QuotaPer::Tenant), (3, QuotaPer::Tenant), (1, QuotaPer::Principal)]
    {
        let node = QuotaNode::new(quotas, per);
        node.supply(&call);
        assert_eq!(node.take(&call).expect("units").len(), quotas);
        let under = format!("{quotas} quotas per {per:?}").to_lowercase();
        group.bench_function(BenchmarkId::new("decide", &under), |b| {
            // What is dropped before the call began goes back: part of what is measured.
            b.iter(|| node.take(black_box(&call)).expect("units").len());
        });
        group.bench_function(BenchmarkId::new("decide and settle", &under), |b| {
            b.iter(|| {
                let held = node.take(black_box(&call)).expect("units");
                held.iter().for_each(Held::begin);
                held.iter().for_each(|h| h.settle(&Actual::default()));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, quota);
criterion_main!(benches);
