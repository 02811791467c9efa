//! What the end of an attempt says: of the upstream, and of trying again. Pure tables.
//!
//! Invariant: what may have been executed is tried again only where that is safe by its nature or by the operator's
//! word; an answer of any kind, an error answer and a refused credential are ends.

use provost_data_pipeline::{Execution, Operation};
use provost_mcp::{RawJson, RawObject};
use provost_types::{CallStatus, RetryOn, RetrySpec};

use super::{breaker::Verdict, policy::names};
use crate::UpstreamError;

/// What an attempt says of its upstream. `in_policy_time`: the time that ran out was the policy's, not a shorter one
/// that the caller asked for.
pub(crate) fn verdict(outcome: &Result<Execution, UpstreamError>, in_policy_time: bool) -> Verdict {
    match outcome {
        Ok(execution) if execution.status == CallStatus::Cancelled => Verdict::Neither,
        Ok(_) => Verdict::Good,
        Err(cause) => of_failure(cause, in_policy_time),
    }
}

/// What a failure says.
pub(crate) fn of_failure(cause: &UpstreamError, in_policy_time: bool) -> Verdict {
    match cause {
        UpstreamError::Unreachable(_)
        | UpstreamError::Unavailable(_)
        | UpstreamError::Died(_)
        | UpstreamError::NotRunning(_)
        | UpstreamError::Isolation(_)
        | UpstreamError::Outgrown(_) => Verdict::Bad,
        UpstreamError::Http { status, .. } if *status >= 500 => Verdict::Bad,
        UpstreamError::Deadline if in_policy_time => Verdict::Bad,
        // It answered, if not what was hoped for.
        UpstreamError::Http { .. }
        | UpstreamError::Unauthorized(_)
        | UpstreamError::Garbage(_)
        | UpstreamError::TooLarge(_)
        | UpstreamError::SessionGone
        | UpstreamError::Rpc(_) => Verdict::Good,
        // It was not asked.
        _ => Verdict::Neither,
    }
}

/// As what a failure may be tried again.
pub(crate) fn retry_on(cause: &UpstreamError) -> Option<RetryOn> {
    match cause {
        UpstreamError::Unreachable(_) | UpstreamError::NotRunning(_) => Some(RetryOn::NotSent),
        UpstreamError::Died(_) | UpstreamError::Outgrown(_) => Some(RetryOn::ConnectionLost),
        // Whether it has begun with the call is not said.
        UpstreamError::Http { status: 502..=504, .. } | UpstreamError::Unavailable(_) => Some(RetryOn::Unavailable),
        _ => None,
    }
}

/// Whether the operation may be tried again after this failure. `definition` gives the tool's, if it is known.
pub(crate) fn may_retry(
    spec: &RetrySpec,
    operation: &Operation,
    cause: &UpstreamError,
    definition: impl FnOnce(&str) -> Option<RawJson>,
) -> bool {
    let Some(on) = retry_on(cause).filter(|on| spec.on.contains(on)) else { return false };
    on == RetryOn::NotSent || is_repeatable(spec, operation, definition)
}

/// Whether doing it twice is as good as once.
fn is_repeatable(spec: &RetrySpec, operation: &Operation, definition: impl FnOnce(&str) -> Option<RawJson>) -> bool {
    match operation {
        Operation::ReadResource(_) | Operation::GetPrompt(_) | Operation::Complete { .. } => true,
        Operation::CallTool(tool) => {
            names(&spec.tools, tool) || (spec.trust_annotations && definition(tool).is_some_and(|d| is_marked(&d)))
        }
        _ => false,
    }
}

/// Whether its server marks the tool as one that only reads, or that may be repeated.
fn is_marked(definition: &RawJson) -> bool {
    let annotations = RawObject::parse(definition).ok().and_then(|d| d.get_object("annotations"));
    annotations
        .is_some_and(|a| ["readOnlyHint", "idempotentHint"].iter().any(|h| a.get(h).is_some_and(|v| v.is_true())))
}

#[cfg(test)]
mod tests {
    use provost_mcp::RpcError;
    use serde_json::json;

    use super::*;

    fn failures() -> Vec<(UpstreamError, Verdict, Option<RetryOn>)> {
        let http = |status| UpstreamError::Http { status, body: String::new() };
        vec![
            (UpstreamError::Unreachable(String::new()), Verdict::Bad, Some(RetryOn::NotSent)),
            (UpstreamError::NotRunning(String::new()), Verdict::Bad, Some(RetryOn::NotSent)),
            (UpstreamError::Unavailable(String::new()), Verdict::Bad, Some(RetryOn::Unavailable)),
            (UpstreamError::Died(String::new()), Verdict::Bad, Some(RetryOn::ConnectionLost)),
            (http(500), Verdict::Bad, None),
            (http(502), Verdict::Bad, Some(RetryOn::Unavailable)),
            (http(503), Verdict::Bad, Some(RetryOn::Unavailable)),
            (http(504), Verdict::Bad, Some(RetryOn::Unavailable)),
            (http(404), Verdict::Good, None),
            (http(429), Verdict::Good, None),
            (UpstreamError::Deadline, Verdict::Bad, None),
            (UpstreamError::Unauthorized(401), Verdict::Good, None),
            (UpstreamError::Garbage(String::new()), Verdict::Good, None),
            (UpstreamError::TooLarge(1), Verdict::Good, None),
            (UpstreamError::SessionGone, Verdict::Good, None),
            (UpstreamError::Rpc(RpcError::new(-32602, "no")), Verdict::Good, None),
            (UpstreamError::Egress(String::new()), Verdict::Neither, None),
            (UpstreamError::Config(String::new()), Verdict::Neither, None),
            (UpstreamError::Busy(String::new()), Verdict::Neither, None),
            (UpstreamError::Unsupported(String::new()), Verdict::Neither, None),
            (UpstreamError::Unwatched, Verdict::Neither, None),
        ]
    }

    #[test]
    fn only_the_upstreams_own_failures_count() {
        for (cause, expect, on) in failures() {
            assert_eq!((of_failure(&cause, true), retry_on(&cause)), (expect, on), "{cause:?}");
        }
        assert_eq!(of_failure(&UpstreamError::Deadline, false), Verdict::Neither, "the caller was in a hurry");
        let answers = [
            (Execution::result(RawJson::EMPTY_OBJECT, true), Verdict::Good),
            (Execution::input_required(RawJson::EMPTY_OBJECT), Verdict::Good),
            (Execution::cancelled(), Verdict::Neither),
        ];
        for (execution, expect) in answers {
            assert_eq!(verdict(&Ok(execution), true), expect);
        }
    }

    #[test]
    fn what_may_have_been_executed_is_repeated_only_where_that_is_safe() {
        let tool = || Operation::CallTool("pay".to_owned());
        let read = || Operation::ReadResource("file:///a".to_owned());
        let marked = |hint: &str| Some(RawJson::from(json!({"name": "pay", "annotations": {hint: true}})));
        let plain = RetrySpec::default();
        let trusting = RetrySpec { trust_annotations: true, ..plain.clone() };
        let listed = RetrySpec { tools: ["pa*".to_owned()].into(), ..plain.clone() };
        let narrow = RetrySpec { on: [RetryOn::ConnectionLost].into(), ..plain.clone() };
        let (unsent, lost) = (UpstreamError::Unreachable(String::new()), UpstreamError::Died(String::new()));
        let table = [
            (&plain, tool(), &unsent, None, true),
            (&plain, tool(), &lost, None, false),
            (&plain, read(), &lost, None, true),
            (&plain, tool(), &lost, marked("readOnlyHint"), false),
            (&trusting, tool(), &lost, marked("readOnlyHint"), true),
            (&trusting, tool(), &lost, marked("idempotentHint"), true),
            (&trusting, tool(), &lost, marked("destructiveHint"), false),
            (&trusting, tool(), &lost, None, false),
            (&listed, tool(), &lost, None, true),
            (&narrow, tool(), &unsent, None, false),
            (&narrow, read(), &lost, None, true),
            (&plain, Operation::Subscribe(String::new()), &lost, None, false),
        ];
        for (i, (spec, operation, cause, definition, expect)) in table.into_iter().enumerate() {
            assert_eq!(may_retry(spec, &operation, cause, |_| definition), expect, "case {i}: {operation:?}");
        }
        // Whatever the policy says, an answer is an end.
        let all = RetrySpec { tools: ["*".to_owned()].into(), ..trusting };
        for (cause, _, on) in failures().into_iter().filter(|(_, _, on)| on.is_none()) {
            assert!(!may_retry(&all, &read(), &cause, |_| None), "{cause:?} {on:?}");
        }
    }
}
