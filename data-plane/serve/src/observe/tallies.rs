//! Counts whose labels are not known beforehand: codes, quotas, tenants. Looked up only where a call was refused, failed,
//! used a model or comes near a limit.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_data_pipeline::{LimitState, Usage};
use provost_mcp::RpcError;
use provost_types::Name;

/// Distinct codes of answers that are counted apart; of more, the rest is `other`.
const MAX_CODES: usize = 256;
/// The longest code. Upstreams may write codes of their own.
const MAX_CODE_CHARS: usize = 48;
/// Quotas, and tenants, that are counted apart.
const MAX_NAMES: usize = 1_000;
/// What is not counted apart.
const OTHER: &str = "other";
/// How long a quota is shown as near its limit after a call last found it so.
const NEAR_FOR: Duration = Duration::from_secs(60);
/// Near its limit is a quota of which less than one part in so many is left.
const NEAR_PART: u64 = 5;

/// What a tenant's calls used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantUse {
    /// Model tokens read.
    pub tokens_in: u64,
    /// Model tokens made.
    pub tokens_out: u64,
    /// In millionths of the tenant's currency.
    pub cost_micro: u64,
}

/// A quota of which little is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearLimit {
    /// `TENANT/QUOTA`.
    pub quota: String,
    /// The most in one window.
    pub limit: u64,
    /// What was left for the last caller that was near the limit.
    pub remaining: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tallies {
    /// Apart from `codes`: whatever upstreams write, refusals have room.
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    codes: Mutex<BTreeMap<String, u64>>,
    limit_hits: Mutex<BTreeMap<String, u64>>,
    near: Mutex<BTreeMap<String, (u64, u64, Instant)>>,
    tenants: Mutex<BTreeMap<String, TenantUse>>,
}

/// Changes the value of a key, or that of all for which there is no room. Nothing is allocated for a key that is there.
fn count<V: Default>(map: &mut BTreeMap<String, V>, key: &str, most: usize, change: impl FnOnce(&mut V)) {
    let key = if map.contains_key(key) || map.len() < most { key } else { OTHER };
    if let Some(value) = map.get_mut(key) {
        change(value);
    } else {
        change(map.entry(key.to_owned()).or_default());
    }
}

/// Whether a code has the form of ours.
fn is_code(code: &str) -> bool {
    let fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
    code.len() <= MAX_CODE_CHARS && code.starts_with("PV-") && code.bytes().all(fits)
}

/// The stable code of an error that is answered. What an upstream wrote in its place and is none is not told.
pub(crate) fn code_of(error: &RpcError) -> Option<String> {
    error.stable_code().filter(|code| is_code(code))
}

impl Tallies {
    /// A call was refused with a code of this program.
    pub(super) fn refused(&self, code: &'static str) {
        *self.refusals.lock().entry(code).or_default() += 1;
    }

    /// A call was answered with an error of this code; one that is not ours is an upstream's.
    pub(super) fn error(&self, code: Option<&str>) {
        let code = code.unwrap_or("upstream");
        count(&mut self.codes.lock(), code, MAX_CODES, |calls| *calls += 1);
    }

    pub(super) fn limit_hit(&self, quota: &str) {
        count(&mut self.limit_hits.lock(), quota, MAX_NAMES, |calls| *calls += 1);
    }

    /// What is left of a limit that a call counts in.
    pub(super) fn left(&self, state: &LimitState) {
        // Not `limit / NEAR_PART`: of a limit below that it is 0, and one that is used up would count as far from its limit.
        if state.remaining.saturating_mul(NEAR_PART) >= state.limit {
            return;
        }
        let seen = (state.limit, state.remaining, Instant::now());
        let mut near = self.near.lock();
        if let Some(before) = near.get_mut(&state.quota) {
            *before = seen;
        } else if near.len() < MAX_NAMES {
            near.insert(state.quota.clone(), seen);
        }
    }

    pub(super) fn used(&self, tenant: &Name, usage: &Usage) {
        if usage.tokens_in == 0 && usage.tokens_out == 0 && usage.cost_micro == 0 {
            return;
        }
        count(&mut self.tenants.lock(), tenant.as_str(), MAX_NAMES, |of_tenant: &mut TenantUse| {
            of_tenant.tokens_in += usage.tokens_in;
            of_tenant.tokens_out += usage.tokens_out;
            of_tenant.cost_micro += usage.cost_micro;
        });
    }

    /// Refusals and errors together, by code.
    pub(super) fn errors(&self) -> Vec<(String, u64)> {
        let mut all = self.codes.lock().clone();
        for (code, calls) in self.refusals.lock().iter() {
            *all.entry((*code).to_owned()).or_default() += *calls;
        }
        all.into_iter().collect()
    }

    pub(super) fn limit_hits(&self) -> Vec<(String, u64)> {
        self.limit_hits.lock().iter().map(|(quota, count)| (quota.clone(), *count)).collect()
    }

    pub(super) fn near(&self) -> Vec<NearLimit> {
        let mut near = self.near.lock();
        near.retain(|_, (_, _, seen)| seen.elapsed() < NEAR_FOR);
        let each = near.iter().map(|(quota, (limit, remaining, _))| NearLimit {
            quota: quota.clone(),
            limit: *limit,
            remaining: *remaining,
        });
        each.collect()
    }

    pub(super) fn tenants(&self) -> Vec<(String, TenantUse)> {
        self.tenants.lock().iter().map(|(tenant, used)| (tenant.clone(), *used)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_data_pipeline::LimitKind;
    use provost_types::QuotaUnit;

    use super::*;

    #[test]
    fn whatever_codes_come_there_are_only_so_many() {
        let tallies = Tallies::default();
        for code in ["PV-POLICY-DENIED", "PV-POLICY-DENIED", "", "my \"code\"", "PV-x"] {
            let error = RpcError::with_code(RpcError::INTERNAL, code, "no");
            tallies.error(code_of(&error).as_deref());
        }
        assert_eq!(tallies.errors(), [("PV-POLICY-DENIED".to_owned(), 2), ("upstream".to_owned(), 3)]);
        (0..2 * MAX_CODES).for_each(|n| tallies.error(Some(&format!("PV-{n}"))));
        let errors = tallies.errors();
        assert_eq!(errors.len(), MAX_CODES + 1);
        assert_eq!(errors.iter().map(|(_, count)| count).sum::<u64>(), 5 + 2 * MAX_CODES as u64);
        // And none of them takes the place of a refusal's.
        (0..2).for_each(|_| tallies.refused("PV-QUOTA-EXCEEDED"));
        tallies.refused("PV-POLICY-DENIED");
        let errors = tallies.errors();
        for (code, expect) in [("PV-QUOTA-EXCEEDED", 2), ("PV-POLICY-DENIED", 3)] {
            assert!(errors.contains(&(code.to_owned(), expect)), "{code}");
        }
    }

    #[test]
    fn a_quota_is_near_its_limit_below_a_fifth() {
        let tallies = Tallies::default();
        let left = |quota: &str, limit, remaining| {
            tallies.left(&LimitState {
                quota: quota.to_owned(),
                kind: LimitKind::Consumable,
                unit: QuotaUnit::Calls,
                limit,
                remaining,
                reset_ms: None,
            });
        };
        left("acme/calls", 100, 20);
        left("acme/tokens", 100, 19);
        left("acme/tokens", 100, 3);
        // Of three a day one is more than a fifth, and none is less.
        left("acme/few", 3, 1);
        left("acme/gone", 3, 0);
        let near = |quota: &str, limit, remaining| NearLimit { quota: quota.to_owned(), limit, remaining };
        assert_eq!(tallies.near(), [near("acme/gone", 3, 0), near("acme/tokens", 100, 3)]);
    }

    #[test]
    fn only_what_uses_a_model_is_counted_to_a_tenant() {
        let tallies = Tallies::default();
        let tenant = Name::new("acme").unwrap();
        tallies.used(&tenant, &Usage { rows: 3, ..Usage::default() });
        assert!(tallies.tenants().is_empty());
        let used = Usage { tokens_in: 5, tokens_out: 7, cost_micro: 9, ..Usage::default() };
        tallies.used(&tenant, &used);
        tallies.used(&tenant, &used);
        let twice = TenantUse { tokens_in: 10, tokens_out: 14, cost_micro: 18 };
        assert_eq!(tallies.tenants(), [("acme".to_owned(), twice)]);
    }
}
