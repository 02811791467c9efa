//! A node's part of quotas, with units enough: what a decision is made of.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use provost_data_policy::{
    PriceIndex,
    quota::{Held, LeaseAnswer, LeaseBook, LeaseGrant, QuotaCall, QuotaIndex},
};
use provost_types::{Metadata, Name, PriceSpec, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource, Revision, Spec};

use crate::sample::{name, snapshot};

/// More than a bench takes.
const UNITS: u64 = 1 << 40;

/// A call of `sql.query`.
pub fn quota_call<'a>(tenant: &'a Name, principal: &'a Name) -> QuotaCall<'a> {
    QuotaCall { tenant, principal, tool: Some("sql.query"), model: None, workflow: "", tokens: 0, cost_micro: 0 }
}

/// What a node keeps for `ana`'s tenant under so many quotas.
pub struct QuotaNode {
    quotas: QuotaIndex,
    prices: PriceIndex,
    book: LeaseBook,
    started: Instant,
}

impl QuotaNode {
    /// With a price of `sql.*` and so many quotas of it.
    pub fn new(quotas: usize, per: QuotaPer) -> Self {
        let mut snapshot = snapshot(1, 0);
        let mut add = |id: &str, spec| {
            let metadata = Metadata { name: name(id), tenant: Some(name("acme")), labels: Default::default() };
            let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
            snapshot.resources.insert(resource.key(), Arc::new(resource));
        };
        for i in 0..quotas {
            let spec = QuotaSpec {
                limit: UNITS,
                unit: QuotaUnit::Calls,
                per,
                window: Some(QuotaWindow::Month),
                principals: BTreeSet::new(),
                tools: BTreeSet::from(["sql.*".to_owned()]),
            };
            add(&format!("q-{i}"), Spec::Quota(spec));
        }
        let price = PriceSpec {
            currency: "EUR".to_owned(),
            tools: BTreeSet::from(["sql.*".to_owned()]),
            models: BTreeSet::new(),
            per_call_micro: 1_500,
            per_million_input_tokens_micro: 0,
            per_million_output_tokens_micro: 0,
        };
        add("price", Spec::Price(price));
        Self {
            quotas: QuotaIndex::compile(&snapshot),
            prices: PriceIndex::compile(&snapshot),
            book: LeaseBook::default(),
            started: Instant::now(),
        }
    }

    /// Takes units of every quota as the limit stage does; `None`: one has none yet.
    pub fn take(&self, call: &QuotaCall<'_>) -> Option<Vec<Held>> {
        let mut held = Vec::new();
        if !self.quotas.has_any(call.tenant) {
            return Some(held);
        }
        let price = self.prices.of(call.tenant, call.tool, call.model);
        let call = QuotaCall { cost_micro: price.cost_micro(0, 0), ..*call };
        for quota in self.quotas.matching(&call) {
            let now_ns = u64::try_from(self.started.elapsed().as_nanos()).ok()?.max(1);
            held.push(quota.slot(&self.book, &call)?.take(quota.units(&call), now_ns).ok()?);
        }
        Some(held)
    }

    /// One exchange, so that every account has units.
    #[expect(clippy::expect_used, reason = "the book is new: there is room")]
    pub fn supply(&self, call: &QuotaCall<'_>) {
        let Self { quotas: index, book, .. } = self;
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
}
