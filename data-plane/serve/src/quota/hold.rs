//! The units of one call.

use std::time::{SystemTime, UNIX_EPOCH};

use provost_data_pipeline::{Hold, LimitKind, LimitState, Usage};
use provost_data_policy::quota::{Actual, Held, Slot};
use provost_types::QuotaUnit;

/// What a call holds of each quota that covers it.
#[derive(Debug, Default)]
pub(super) struct CallHold(pub(super) Vec<Held>);

impl Hold for CallHold {
    fn begin(&self) {
        self.0.iter().for_each(Held::begin);
    }

    fn settle(&self, usage: &Usage) {
        let tokens = usage.tokens_in.saturating_add(usage.tokens_out);
        for held in &self.0 {
            held.settle(&Actual { tokens, cost_micro: usage.cost_micro });
        }
    }

    fn limits(&self) -> Vec<LimitState> {
        self.0.iter().map(|held| state(held.slot())).collect()
    }
}

/// What is left of an account's limit.
pub(super) fn state(slot: &Slot) -> LimitState {
    let facts = slot.facts();
    let account = slot.account();
    let reset_ms = match (facts.window_end_ns, slot.unit()) {
        (_, QuotaUnit::Concurrent) => None,
        (0, _) => Some(1_000),
        // Up: whoever comes again then must not be early.
        (end_ns, _) => Some(end_ns.saturating_sub(wall_ns()).div_ceil(1_000_000)),
    };
    LimitState {
        quota: account.split('#').next().unwrap_or(account).to_owned(),
        kind: kind(slot.unit(), slot.is_rate()),
        unit: slot.unit(),
        limit: facts.limit,
        remaining: facts.remaining,
        reset_ms,
    }
}

/// How what is used of a quota comes back.
pub(super) fn kind(unit: QuotaUnit, is_rate: bool) -> LimitKind {
    match (unit, is_rate) {
        (QuotaUnit::Concurrent, _) => LimitKind::Concurrency,
        (_, true) => LimitKind::Rate,
        (_, false) => LimitKind::Consumable,
    }
}

/// Nanoseconds since the Unix epoch: only for what people are told.
pub(super) fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
