//! What a caller is told who gets no units: which quota, its limit and window, and when to retry.

use provost_data_pipeline::{LimitState, Rejection, RejectionKind};
use provost_data_policy::quota::{CompiledQuota, Slot};
use provost_mcp::{RawJson, RpcError};
use provost_types::{QuotaUnit, QuotaWindow};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::hold::{kind, state, wall_ns};

const EXCEEDED: &str = "PV-QUOTA-EXCEEDED";
const UNREACHABLE: &str = "PV-QUOTA-UNREACHABLE";
/// When to try again where nothing better is known.
const RETRY_MS: u64 = 1_000;
const MS: u64 = 1_000_000;

/// `100 calls a day`, `4 calls at once`.
fn describe(quota: &CompiledQuota, limit: u64) -> String {
    let unit = match quota.unit {
        QuotaUnit::Calls | QuotaUnit::Concurrent => "calls",
        QuotaUnit::Tokens => "tokens",
        QuotaUnit::CostMicro => "millionths",
    };
    match quota.window {
        _ if quota.unit == QuotaUnit::Concurrent => format!("{limit} {unit} at once"),
        Some(QuotaWindow::Hour) => format!("{limit} {unit} an hour"),
        Some(window) => format!("{limit} {unit} a {}", window.as_str()),
        None => format!("{limit} {unit}"),
    }
}

fn rfc3339(ns: u64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns)).ok()?.format(&Rfc3339).ok()
}

/// When the limit begins anew: the end of its window to the nanosecond, or what time it is in so long.
fn resets_at(limit: &LimitState, window_end_ns: u64) -> Option<String> {
    let reset_ms = limit.reset_ms?;
    match window_end_ns {
        0 => rfc3339(wall_ns().saturating_add(reset_ms.saturating_mul(MS))),
        end_ns => rfc3339(end_ns),
    }
}

fn reject(
    (kind, code): (RejectionKind, &'static str),
    message: String,
    limit: LimitState,
    quota: &CompiledQuota,
    window_end_ns: u64,
) -> Rejection {
    let mut rejection = Rejection::new(kind, code, message);
    let (resets_at, window) = (resets_at(&limit, window_end_ns), window(quota));
    rejection.error = RpcError {
        data: Some(RawJson::from(serde_json::json!({
            "code": code,
            "quota": limit.quota,
            "kind": limit.kind.as_str(),
            "unit": limit.unit.as_str(),
            "limit": limit.limit,
            "remaining": limit.remaining,
            "window": window,
            "resetsAt": resets_at,
        }))),
        ..rejection.error
    };
    rejection.limit = Some(Box::new(limit));
    rejection
}

fn with_retry(mut rejection: Rejection, retry_ms: u64) -> Rejection {
    use provost_mcp::RawObject;
    rejection.retry_after_ms = Some(retry_ms);
    if let Some(mut data) = rejection.error.data.as_ref().and_then(|d| RawObject::parse(d).ok()) {
        data.set("retryAfterMs", RawJson::from(serde_json::Value::from(retry_ms)));
        rejection.error.data = Some(data.finish());
    }
    rejection
}

fn window(quota: &CompiledQuota) -> &'static str {
    match quota.unit {
        QuotaUnit::Concurrent => "now",
        _ => quota.window.map_or("", QuotaWindow::as_str),
    }
}

/// The quota is used up, or too little is left for this call.
pub(super) fn exceeded(quota: &CompiledQuota, slot: &Slot, units: u64, retry_ns: u64) -> Rejection {
    let limit = LimitState { limit: quota.limit, ..state(slot) };
    let window_end_ns = slot.facts().window_end_ns;
    let what = describe(quota, quota.limit);
    let name = &quota.name;
    let retry_ms = match limit.reset_ms {
        Some(reset_ms) if !quota.is_rate() => reset_ms.max(1),
        _ => retry_ns.div_ceil(MS).max(1),
    };
    let message = match (quota.unit, units) {
        (QuotaUnit::Concurrent, _) => format!("quota {name}: {what} run already"),
        _ if quota.is_rate() => format!("quota {name}: {what}; try again in {retry_ms} ms"),
        (_, 1) => format!("quota {name}: {what} are used up; it begins anew {}", when(&limit, window_end_ns)),
        _ => format!(
            "quota {name}: this call may use {units}, and of {what} at most {} are left; it begins anew {}",
            limit.remaining,
            when(&limit, window_end_ns)
        ),
    };
    with_retry(reject((RejectionKind::Limited, EXCEEDED), message, limit, quota, window_end_ns), retry_ms)
}

fn when(limit: &LimitState, window_end_ns: u64) -> String {
    resets_at(limit, window_end_ns).map_or_else(|| "later".to_owned(), |text| format!("at {text}"))
}

/// The call is larger than the quota can ever admit.
pub(super) fn too_large(quota: &CompiledQuota, slot: &Slot, units: u64) -> Rejection {
    let limit = LimitState { limit: quota.limit, ..state(slot) };
    let what = describe(quota, quota.limit);
    let message =
        format!("quota {}: this call may use {units} at once, more than {what} admit; ask for less", quota.name);
    reject((RejectionKind::Limited, EXCEEDED), message, limit, quota, slot.facts().window_end_ns)
}

/// There may be units, and nobody can say so now.
pub(super) fn unreachable(quota: &CompiledQuota, slot: Option<&Slot>, cause: &str) -> Rejection {
    let limit = LimitState {
        quota: quota.name.to_string(),
        kind: kind(quota.unit, quota.is_rate()),
        unit: quota.unit,
        limit: quota.limit,
        remaining: slot.map_or(0, |s| s.facts().remaining),
        reset_ms: None,
    };
    let message = format!("quota {}: {cause}; the call was refused, try again", quota.name);
    with_retry(reject((RejectionKind::LimitUnknown, UNREACHABLE), message, limit, quota, 0), RETRY_MS)
}

/// A node that was composed without a client admits nothing that a quota covers.
pub(crate) fn no_client(tenant: &str) -> Rejection {
    let message = format!("tenant {tenant} has quotas, and this node has no leases; the call was refused");
    let mut rejection = Rejection::new(RejectionKind::LimitUnknown, UNREACHABLE, message);
    rejection.retry_after_ms = Some(RETRY_MS);
    rejection
}
