//! A call as a trace: what of it is told, and the ids of its spans.
//!
//! Ids are made of the call's own, so that nothing has to be kept while a call runs: the span that an upstream's spans
//! belong to has its id before it is over, and one that no client's trace leads to has the call's id as its trace's.

use provost_data_pipeline::{Ended, Marks, Operation, Reply, Request, Stage, Usage};
use provost_mcp::TraceParent;
use provost_types::{CallId, Name};

use super::tallies::code_of;

/// The longest id of a request that is told: clients choose them.
const MAX_REQUEST_ID_CHARS: usize = 64;
/// The longest name of what is called that is told. While an upstream does not say what it has, that is as the caller wrote it.
const MAX_NAME_CHARS: usize = 256;

/// The beginning of a text: what waits to be sent has a bound.
fn beginning(text: &str, most_chars: usize) -> String {
    text.chars().take(most_chars).collect()
}

/// The ids of a call's spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds(CallId);

impl SpanIds {
    /// Those of a call.
    pub fn of(call: CallId) -> Self {
        Self(call)
    }

    /// The call as a whole.
    pub fn call(self) -> u64 {
        self.number(0)
    }

    /// One of its stages; what an upstream does belongs to [`Stage::Execute`].
    pub fn stage(self, stage: Stage) -> u64 {
        self.number(stage as u64 + 1)
    }

    /// The finaliser of SplitMix64 over the random half of the call's id: ids of one call differ, and look random.
    #[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    fn number(self, which: u64) -> u64 {
        let mut x = (self.0.0 as u64).wrapping_add((which + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // 0 is no id.
        (x ^ (x >> 31)).max(1)
    }
}

/// The trace that a request belongs to: its client's, or one that begins with it.
pub(super) fn trace_of(request: &Request) -> (u128, Option<TraceParent>) {
    let parent = request.trace.traceparent.as_deref().and_then(TraceParent::parse);
    (parent.map_or(request.call_id.0, |parent| parent.trace_id), parent)
}

/// What is called, by the name that callers know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceSubject {
    /// A tool.
    Tool(String),
    /// A prompt.
    Prompt(String),
    /// A model.
    Model(String),
    /// Nothing that has a name, or none that may be told: addresses of resources carry contents.
    Unnamed,
}

/// How a call ended that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEnd {
    /// The stable code; empty: it has none of ours.
    pub code: String,
    /// The JSON-RPC code; `None`: a tool's own failure.
    pub rpc_code: Option<i64>,
}

/// A call that is over, for whoever exports traces. It holds neither arguments nor answers, nor who called.
#[derive(Clone, Debug)]
pub struct CallTrace {
    /// The call.
    pub call_id: CallId,
    /// The trace that it belongs to.
    pub trace_id: u128,
    /// The span that it belongs to; `None`: the trace begins here.
    pub parent: Option<u64>,
    /// What tracing systems on the way added.
    pub tracestate: Option<String>,
    /// `tools/call`, …
    pub method: String,
    /// What is called.
    pub subject: TraceSubject,
    /// The same by the upstream's own name; empty where it is not told.
    pub local: String,
    /// The plugin that serves it.
    pub plugin: Option<Name>,
    /// Whose call it is; `None`: nobody's who is known.
    pub tenant: Option<Name>,
    /// `http`, `ws`, …
    pub transport: &'static str,
    /// The client's revision of MCP; `None`: it speaks the OpenAI-compatible API.
    pub protocol_version: Option<&'static str>,
    /// The JSON-RPC id as text.
    pub request_id: Option<String>,
    /// A plugin made it in the course of another call.
    pub is_nested: bool,
    /// Nanoseconds since the Unix epoch.
    pub arrived_ns: u64,
    /// When each stage ended.
    pub marks: Marks,
    /// What it used.
    pub usage: Usage,
    /// How often it was tried.
    pub attempts: u32,
    /// `None`: it ended well.
    pub error: Option<TraceEnd>,
}

impl CallTrace {
    pub(super) fn new(ended: &Ended<'_>) -> Self {
        let request = &**ended.request;
        let (trace_id, parent) = trace_of(request);
        let target = ended.target.filter(|_| !ended.is_target_hidden);
        let named = target.map(|target| beginning(&target.full, MAX_NAME_CHARS)).filter(|full| !full.is_empty());
        let subject = match (&request.operation, named) {
            (Operation::CallTool(_), Some(name)) => TraceSubject::Tool(name),
            (Operation::GetPrompt(_), Some(name)) => TraceSubject::Prompt(name),
            (Operation::Chat(_) | Operation::Embed(_) | Operation::Transcribe(_), Some(name)) => {
                TraceSubject::Model(name)
            }
            _ => TraceSubject::Unnamed,
        };
        let local =
            target.filter(|_| subject != TraceSubject::Unnamed).map(|target| beginning(&target.local, MAX_NAME_CHARS));
        let is_mcp = !matches!(
            request.operation,
            Operation::Chat(_) | Operation::Embed(_) | Operation::Transcribe(_) | Operation::ListModels
        );
        Self {
            call_id: request.call_id,
            trace_id,
            parent: parent.map(|parent| parent.span_id),
            tracestate: parent.and_then(|_| request.trace.tracestate.clone()),
            method: request.operation.method().to_owned(),
            subject,
            local: local.unwrap_or_default(),
            plugin: ended.target.and_then(|target| target.plugin.clone()),
            tenant: ended.caller.map(|caller| caller.principal.tenant.clone()),
            transport: request.client.transport,
            protocol_version: is_mcp.then(|| request.client.protocol_version.as_str()),
            request_id: request.trace.request_id.as_deref().map(|id| beginning(id, MAX_REQUEST_ID_CHARS)),
            is_nested: request.within.is_some(),
            arrived_ns: request.arrived_ns,
            marks: *ended.marks,
            usage: ended.usage,
            attempts: ended.attempts,
            error: error_of(ended),
        }
    }
}

fn error_of(ended: &Ended<'_>) -> Option<TraceEnd> {
    match &ended.answer.outcome {
        Ok(Reply::Result { is_error: false, .. } | Reply::InputRequired(_)) => None,
        Ok(Reply::Result { is_error: true, .. }) => Some(TraceEnd { code: String::new(), rpc_code: None }),
        Ok(Reply::Error(error)) => {
            Some(TraceEnd { code: code_of(error).unwrap_or_default(), rpc_code: Some(error.code) })
        }
        Err(rejection) => Some(TraceEnd { code: rejection.code.to_owned(), rpc_code: Some(rejection.error.code) }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn spans_of_calls_have_ids_of_their_own() {
        let mut ids = HashSet::new();
        for call in 0..100 {
            let of = SpanIds::of(CallId(call));
            assert_eq!(of, SpanIds::of(CallId(call)));
            ids.insert(of.call());
            ids.extend(Stage::ALL.map(|stage| of.stage(stage)));
        }
        assert_eq!(ids.len(), 100 * (1 + Stage::COUNT));
        assert!(!ids.contains(&0));
    }
}
