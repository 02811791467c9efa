//! What OpenAI clients are told of limits: the type of the error, its facts, and the headers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use provost_data_pipeline::{LimitKind, LimitState, Rejection};
use provost_types::QuotaUnit;

/// OpenAI tells a limit that comes back by waiting a little from one that is used up for good or for
/// long: clients retry the first. `limit` has the facts that MCP's error data has.
pub(super) fn limited_body(rejection: &Rejection, limit: &LimitState) -> Bytes {
    let kind = match limit.kind {
        LimitKind::Consumable => "insufficient_quota",
        LimitKind::Rate | LimitKind::Concurrency => "rate_limit_exceeded",
    };
    let facts = rejection.error.data.as_ref().and_then(|data| data.parse::<serde_json::Value>().ok());
    let body = serde_json::json!({
        "error": {
            "message": rejection.error.message,
            "type": kind,
            "param": null,
            "code": rejection.code,
            "limit": facts,
        }
    });
    body.to_string().into()
}

/// OpenAI's headers of rate limits: of requests and of tokens, each the limit that is nearest. A
/// stream's headers leave before the call is over, so it has none.
pub(super) fn add_limits<'a>(headers: &mut HeaderMap, limits: impl Iterator<Item = &'a LimitState> + Clone) {
    let units = [(QuotaUnit::Calls, "requests"), (QuotaUnit::Tokens, "tokens")];
    for (unit, name) in units {
        let of_unit = limits.clone().filter(|l| l.unit == unit && l.limit > 0);
        let Some(nearest) = of_unit.min_by_key(|l| l.remaining) else { continue };
        let mut set = |what: &str, value: String| {
            let header = HeaderName::try_from(format!("x-ratelimit-{what}-{name}"));
            if let (Ok(header), Ok(value)) = (header, HeaderValue::try_from(value)) {
                headers.insert(header, value);
            }
        };
        set("limit", nearest.limit.to_string());
        set("remaining", nearest.remaining.to_string());
        if let Some(ms) = nearest.reset_ms {
            set("reset", reset_text(ms));
        }
    }
}

/// `6m0s`, `1s`, `20ms`, as OpenAI writes them.
fn reset_text(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    match (hours, minutes, seconds) {
        (0, 0, 0) => format!("{ms}ms"),
        (0, 0, _) => format!("{seconds}s"),
        (0, _, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}
