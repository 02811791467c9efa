//! What it costs to take a unit of each quota that covers a call, and to settle it.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::{collections::BTreeSet, hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use provost_bench::{name, snapshot};
use provost_data_policy::quota::{Actual, Held, LeaseAnswer, LeaseBook, LeaseGrant, QuotaCall, QuotaIndex};
use provost_types::{Metadata, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource, Revision, Spec};

/// More than a bench takes.
const UNITS: u64 = 1 << 40;

/// Index and balances of `ana`'s tenant under so many quotas.
fn setup(quotas: usize, per: QuotaPer) -> (QuotaIndex, LeaseBook) {
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
    (QuotaIndex::compile(&snapshot), LeaseBook::default())
}

/// Takes units of every quota as the gate does; `None`: one has none yet.
fn take(index: &QuotaIndex, book: &LeaseBook, call: &QuotaCall<'_>) -> Option<Vec<Held>> {
    let mut held = Vec::new();
    for quota in index.matching(call) {
        held.push(quota.slot(book, call)?.take(quota.units(call), 1).ok()?);
    }
    Some(held)
}

/// One exchange, so that every account has units.
fn supply(index: &QuotaIndex, book: &LeaseBook, call: &QuotaCall<'_>) {
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
        let (index, book) = setup(quotas, per);
        supply(&index, &book, &call);
        assert_eq!(take(&index, &book, &call).expect("units").len(), quotas);
        let id = BenchmarkId::from_parameter(format!("{quotas} quotas per {per:?}").to_lowercase());
        group.bench_function(id, |b| {
            b.iter(|| {
                let held = take(&index, &book, black_box(&call)).expect("units");
                held.iter().for_each(Held::begin);
                held.iter().for_each(|h| h.settle(&Actual::default()));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, quota);
criterion_main!(benches);
