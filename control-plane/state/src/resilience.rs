//! The rules that a plugin's `resilience` keeps: bounds that a node can hold, and nothing that does nothing.

use provost_types::{BreakerSpec, CacheSpec, HedgeSpec, OutlierSpec, ResilienceSpec, RetrySpec};

use crate::fields::{Check, MAX_CONCURRENCY, MAX_TIMEOUT_MS};

/// Entries of `tools`.
const MAX_TOOL_RULES: usize = 64;
/// Calls that wait.
const MAX_QUEUED: u32 = 65_536;
/// Attempts of one call.
const MAX_ATTEMPTS: u32 = 10;
/// Bytes of one plugin's cache on one node.
const MAX_CACHE_BYTES: u64 = 256 << 20;
/// Failures that open a breaker, and calls below which shares say nothing.
const MAX_BREAKER_CALLS: u32 = 100_000;
/// Every waiting, and the window of a breaker: ten minutes.
const MAX_WAIT_MS: u64 = 600_000;
/// How long an answer may be kept: a day.
const MAX_TTL_MS: u64 = 24 * 3_600_000;

const BASE: &str = "spec.resilience";

/// Checks the field by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &ResilienceSpec) {
    let queue = &spec.queue;
    at_most(check, "queue.maxQueued", queue.max_queued.into(), MAX_QUEUED.into());
    between(check, "queue.timeoutMs", queue.timeout_ms, 1, MAX_WAIT_MS);
    at_most(check, "tools", spec.tools.len() as u64, MAX_TOOL_RULES as u64);
    for (i, rule) in spec.tools.iter().enumerate() {
        let field = |name: &str| format!("{BASE}.tools[{i}].{name}");
        check.require(!rule.tools.is_empty(), &field("tools"), || "names no tool; `*` names all".into());
        check.patterns(&field("tools"), &rule.tools);
        check.require(rule.timeout_ms > 0 || rule.max_concurrent > 0, &format!("{BASE}.tools[{i}]"), || {
            "changes nothing: give `timeoutMs` or `maxConcurrent`".into()
        });
        at_most(check, &format!("tools[{i}].timeoutMs"), rule.timeout_ms, MAX_TIMEOUT_MS);
        at_most(check, &format!("tools[{i}].maxConcurrent"), rule.max_concurrent.into(), MAX_CONCURRENCY.into());
    }
    breaker(check, &spec.breaker);
    if let Some(spec) = &spec.outliers {
        outliers(check, spec);
    }
    retry(check, &spec.retry);
    cache(check, &spec.cache);
    if let Some(hedge) = &spec.hedge {
        hedged(check, hedge);
    }
}

fn breaker(check: &mut Check<'_>, spec: &BreakerSpec) {
    let calls = u64::from(MAX_BREAKER_CALLS);
    between(check, "breaker.consecutiveFailures", spec.consecutive_failures.into(), 1, calls);
    at_most(check, "breaker.failurePercent", spec.failure_percent.into(), 100);
    between(check, "breaker.minCalls", spec.min_calls.into(), 1, calls);
    between(check, "breaker.windowMs", spec.window_ms, 100, MAX_WAIT_MS);
    between(check, "breaker.openMs", spec.open_ms, 10, MAX_WAIT_MS);
    between(check, "breaker.maxOpenMs", spec.max_open_ms, 10, MAX_WAIT_MS);
    check.require(spec.open_ms <= spec.max_open_ms, &format!("{BASE}.breaker.openMs"), || {
        format!("is {}, longer than `maxOpenMs`, which is {}", spec.open_ms, spec.max_open_ms)
    });
}

fn outliers(check: &mut Check<'_>, spec: &OutlierSpec) {
    between(check, "outliers.consecutiveFailures", spec.consecutive_failures.into(), 1, MAX_BREAKER_CALLS.into());
    between(check, "outliers.ejectMs", spec.eject_ms, 10, MAX_WAIT_MS);
    between(check, "outliers.maxEjectMs", spec.max_eject_ms, 10, MAX_WAIT_MS);
    check.require(spec.eject_ms <= spec.max_eject_ms, &format!("{BASE}.outliers.ejectMs"), || {
        format!("is {}, longer than `maxEjectMs`, which is {}", spec.eject_ms, spec.max_eject_ms)
    });
    between(check, "outliers.maxEjectedPercent", spec.max_ejected_percent.into(), 1, 100);
}

fn retry(check: &mut Check<'_>, spec: &RetrySpec) {
    between(check, "retry.attempts", spec.attempts.into(), 1, MAX_ATTEMPTS.into());
    check.require(!spec.on.is_empty() || spec.attempts == 1, &format!("{BASE}.retry.on"), || {
        "is empty, so nothing is tried again: say so with `attempts: 1`".into()
    });
    check.patterns(&format!("{BASE}.retry.tools"), &spec.tools);
    at_most(check, "retry.backoffMs", spec.backoff_ms, MAX_WAIT_MS);
    at_most(check, "retry.maxBackoffMs", spec.max_backoff_ms, MAX_WAIT_MS);
    at_most(check, "retry.budgetPercent", spec.budget_percent.into(), 100);
}

fn cache(check: &mut Check<'_>, spec: &CacheSpec) {
    at_most(check, "cache.maxTtlMs", spec.max_ttl_ms, MAX_TTL_MS);
    at_most(check, "cache.ttlMs", spec.ttl_ms, MAX_TTL_MS);
    at_most(check, "cache.maxBytes", spec.max_bytes, MAX_CACHE_BYTES);
    check.patterns(&format!("{BASE}.cache.tools"), &spec.tools);
    check.require(spec.tools.is_empty() == (spec.ttl_ms == 0), &format!("{BASE}.cache.ttlMs"), || {
        "goes with `tools`: results of these tools are kept for so long; give both or neither".into()
    });
}

fn hedged(check: &mut Check<'_>, spec: &HedgeSpec) {
    check.require(!spec.tools.is_empty(), &format!("{BASE}.hedge.tools"), || "names no tool that only reads".into());
    check.patterns(&format!("{BASE}.hedge.tools"), &spec.tools);
    between(check, "hedge.afterMs", spec.after_ms, 1, MAX_WAIT_MS);
}

fn at_most(check: &mut Check<'_>, field: &str, given: u64, most: u64) {
    check.require(given <= most, &format!("{BASE}.{field}"), || format!("is {given}; at most {most}"));
}

fn between(check: &mut Check<'_>, field: &str, given: u64, least: u64, most: u64) {
    let fits = (least..=most).contains(&given);
    check.require(fits, &format!("{BASE}.{field}"), || format!("is {given}; from {least} to {most}"));
}
