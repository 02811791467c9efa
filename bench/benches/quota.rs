//! What quotas cost a call on its node: the decision (may it run: the price, the quotas that cover it, the
//! account of each, the clock, the units) and the same with the settlement at its end. It is what the
//! limit stage does when there are units; asking the ledger is not part of it.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::{collections::BTreeSet, hint::black_box, sync::Arc, time::Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use provost_bench::{name, snapshot};
use provost_data_policy::{
    PriceIndex,
    quota::{Actual, Held, LeaseAnswer, LeaseBook, LeaseGrant, QuotaCall, QuotaIndex},
};
use provost_types::{Metadata, PriceSpec, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource, Revision, Spec};

/// More than a bench takes.
const UNITS: u64 = 1 << 40;

/// What a node keeps for `ana`'s tenant under so many quotas.
struct Node {
    quotas: QuotaIndex,
    prices: PriceIndex,
    book: LeaseBook,
    started: Instant,
}

fn setup(quotas: usize, per: QuotaPer) -> Node {
    let mut snapshot = snapshot(1, 0);
    for i in 0..quotas {
        let spec = QuotaSpec {
            limit: UNITS,
            unit: QuotaUnit::Calls,
            per,
            window: Some(QuotaWindow::Month),
            principals: BTreeSet::new(),
            tools: BTreeSet::from(["sql.*".to_owned()]),
        };
        let metadata =
            Metadata { name: name(&format!("q-{i}")), tenant: Some(name("acme")), labels: Default::default() };
        let quota = Resource { metadata, spec: Spec::Quota(spec), created: Revision(1), modified: Revision(1) };
        snapshot.resources.insert(quota.key(), Arc::new(quota));
    }
    let price = PriceSpec {
        currency: "EUR".to_owned(),
        tools: BTreeSet::from(["sql.*".to_owned()]),
        models: BTreeSet::new(),
        per_call_micro: 1_500,
        per_million_input_tokens_micro: 0,
        per_million_output_tokens_micro: 0,
    };
    let metadata = Metadata { name: name("price"), tenant: Some(name("acme")), labels: Default::default() };
    let price = Resource { metadata, spec: Spec::Price(price), created: Revision(1), modified: Revision(1) };
    snapshot.resources.insert(price.key(), Arc::new(price));
    Node {
        quotas: QuotaIndex::compile(&snapshot),
        prices: PriceIndex::compile(&snapshot),
        book: LeaseBook::default(),
        started: Instant::now(),
    }
}

/// Takes units of every quota as the limit stage does; `None`: one has none yet.
fn take(node: &Node, call: &QuotaCall<'_>) -> Option<Vec<Held>> {
    let mut held = Vec::new();
    if !node.quotas.has_any(call.tenant) {
        return Some(held);
    }
    let price = node.prices.of(call.tenant, call.tool, call.model);
    let call = QuotaCall { cost_micro: price.cost_micro(0, 0), ..*call };
    for quota in node.quotas.matching(&call) {
        let now_ns = u64::try_from(node.started.elapsed().as_nanos()).ok()?.max(1);
        held.push(quota.slot(&node.book, &call)?.take(quota.units(&call), now_ns).ok()?);
    }
    Some(held)
}

/// One exchange, so that every account has units.
fn supply(node: &Node, call: &QuotaCall<'_>) {
    let Node { quotas: index, book, .. } = node;
    let waiting: Vec<_> =
        index.matching(call).map(|quota| quota.slot(book, call).expect("there is room").wait(1)).collect();
    let Some(exchange) = book.next(1) else { return };
    let grants = exchange.wants.iter().zip(1..).map(|(want, lease)| LeaseGrant {
        account: want.account.clone(),
        lease,
        units: UNITS,
        remaining: UNITS,
        limit: UNITS,
        window_end_ns: u64::MAX,
        ttl_ms: u64::MAX,
        ..LeaseGrant::default()
    });
    book.answered(exchange.seq, &LeaseAnswer { grants: grants.collect(), fenced: false }, 1);
    drop(waiting);
}

fn quota(c: &mut Criterion) {
    let mut group = c.benchmark_group("quota");
    let (tenant, principal) = (name("acme"), name("ana"));
    let call = QuotaCall {
        tenant: &tenant,
        principal: &principal,
        tool: Some("sql.query"),
        model: None,
        workflow: "",
        tokens: 0,
        cost_micro: 0,
    };
    for (quotas, per) in [(0, QuotaPer::Tenant), (1, QuotaPer::Tenant), (3, QuotaPer::Tenant), (1, QuotaPer::Principal)]
    {
        let node = setup(quotas, per);
        supply(&node, &call);
        assert_eq!(take(&node, &call).expect("units").len(), quotas);
        let under = format!("{quotas} quotas per {per:?}").to_lowercase();
        group.bench_function(BenchmarkId::new("decide", &under), |b| {
            // What is dropped before the call began goes back: part of what is measured.
            b.iter(|| take(&node, black_box(&call)).expect("units").len());
        });
        group.bench_function(BenchmarkId::new("decide and settle", &under), |b| {
            b.iter(|| {
                let held = take(&node, black_box(&call)).expect("units");
                held.iter().for_each(Held::begin);
                held.iter().for_each(|h| h.settle(&Actual::default()));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, quota);
criterion_main!(benches);
