//! What is content in each kind of message, and what is the protocol's own.
//!
//! As little as possible is passed over: whatever is, could carry a value past the guards.

use provost_data_guards::{Layout, Root};
use provost_data_pipeline::Operation;

/// Members of a request's `_meta` that are the protocol's: ids and traces, which look random, and words that must stay. What
/// goes on under the names of a trace is one. `baggage` is what somebody wrote, and is looked at. In what comes back nothing has to
/// stand under these names, and nobody checks what does: there all of `_meta` is content.
const META: &[&str] = &[
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
    "progressToken",
    "traceparent",
    "tracestate",
];

/// Of calls of tools in OpenAI's API: JSON in a text.
const ARGUMENTS: &[&str] = &["arguments"];

/// The `params` of MCP requests.
const PARAMS: Layout = Layout {
    // Opened by the front end: an executor's own words, which the caller cannot change.
    skipped: &["requestState"],
    // They say what is called, and policy has decided about that.
    fixed: &["name", "uri", "ref", "taskId"],
    meta_skipped: META,
    json_texts: &[],
    root: Root::Member("arguments"),
};

/// Bodies of OpenAI requests.
const OPENAI_REQUEST: Layout =
    Layout { skipped: &[], fixed: &["model"], meta_skipped: &[], json_texts: ARGUMENTS, root: Root::Whole };

/// The fields of a recording to be written down.
const SPEECH_REQUEST: Layout = Layout {
    // Ours: length and digest of the sound, which looks random.
    skipped: &["file"],
    ..OPENAI_REQUEST
};

/// Results of MCP requests.
const RESULT: Layout = Layout {
    // It is sealed before it leaves.
    skipped: &["requestState"],
    fixed: &[],
    meta_skipped: &[],
    json_texts: &[],
    root: Root::MemberAndTexts("structuredContent", &["text"]),
};

/// OpenAI completions.
const COMPLETION: Layout = Layout {
    skipped: &["id", "object", "created", "model", "usage"],
    fixed: &[],
    meta_skipped: &[],
    json_texts: ARGUMENTS,
    root: Root::MemberAndTexts("", &["content", "text"]),
};

/// What was said, in pieces or not.
const TRANSCRIPT: Layout = Layout {
    skipped: &["usage"],
    fixed: &[],
    meta_skipped: &[],
    json_texts: &[],
    root: Root::MemberAndTexts("", &["text"]),
};

/// Calls of tools in a streamed completion.
pub(super) const CALLS: Layout =
    Layout { skipped: &[], fixed: &[], meta_skipped: &[], json_texts: ARGUMENTS, root: Root::Nowhere };

/// Notifications that belong to a call.
pub(super) const NOTIFICATION: Layout = Layout {
    // The token is the client's own, and the others are numbers.
    skipped: &["progressToken", "progress", "total"],
    fixed: &[],
    meta_skipped: &[],
    json_texts: &[],
    root: Root::Nowhere,
};

/// Questions to the client and its answers, and details of errors.
pub(super) const EXCHANGE: Layout =
    Layout { skipped: &[], fixed: &[], meta_skipped: &[], json_texts: &[], root: Root::Nowhere };

/// How the parameters of an operation are looked at; `None`: they hold nothing of the caller's.
pub(super) fn params(operation: &Operation) -> Option<&'static Layout> {
    match operation {
        Operation::CallTool(_)
        | Operation::GetPrompt(_)
        | Operation::ReadResource(_)
        | Operation::Complete { .. }
        | Operation::Subscribe(_)
        | Operation::Unsubscribe(_)
        | Operation::Task { .. } => Some(&PARAMS),
        Operation::Chat(_) | Operation::Embed(_) => Some(&OPENAI_REQUEST),
        Operation::Transcribe(_) => Some(&SPEECH_REQUEST),
        Operation::Discover
        | Operation::ListTools
        | Operation::ListPrompts
        | Operation::ListResources
        | Operation::ListResourceTemplates
        | Operation::Listen
        | Operation::SetLogLevel
        | Operation::ListModels => None,
    }
}

/// How what comes back is looked at; `None`: it holds no content.
pub(super) fn result(operation: &Operation) -> Option<&'static Layout> {
    match operation {
        Operation::CallTool(_)
        | Operation::GetPrompt(_)
        | Operation::ReadResource(_)
        | Operation::Complete { .. }
        | Operation::Task { .. }
        // Its events, that is.
        | Operation::Listen => Some(&RESULT),
        Operation::Chat(_) => Some(&COMPLETION),
        Operation::Transcribe(_) => Some(&TRANSCRIPT),
        Operation::Embed(_)
        | Operation::Subscribe(_)
        | Operation::Unsubscribe(_)
        | Operation::Discover
        | Operation::ListTools
        | Operation::ListPrompts
        | Operation::ListResources
        | Operation::ListResourceTemplates
        | Operation::SetLogLevel
        | Operation::ListModels => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_data_guards::{Action, Guard, Rules};
    use provost_mcp::RawJson;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_comes_back_hides_nothing_under_the_names_of_a_trace() {
        let guard = Guard::new(Rules::all(Action::Mask));
        for layout in [&RESULT, &NOTIFICATION] {
            for member in META.iter().chain(&["baggage"]) {
                for text in ["4111111111111111", "a=ann@example.org"] {
                    let back = RawJson::from(json!({ "content": [], "_meta": { (*member): text } }));
                    let masked = guard.inspect_json(&back, layout).rewritten.unwrap();
                    assert!(!masked.as_str().contains(text), "{member}: {}", masked.as_str());
                }
            }
            // A trace stays one.
            let trace = json!({ "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "tracestate": "rojo=00f067aa0ba902b7" });
            let inspection = guard.inspect_json(&RawJson::from(json!({ "_meta": trace })), layout);
            assert!(inspection.rewritten.is_none() && inspection.blocked.is_none());
        }
    }
}
