//! Calls of tools that are streamed in pieces (OpenAI chunks), joined before anybody looks at them.
//!
//! A client can use a call only once it is whole. So pieces wait for the end of their choice, and leave as one: guards see
//! arguments as they see them in an answer that is not streamed, and what they mask leaves JSON behind.
//! What waits is bounded as the answer is, by its tokens; of an answer that breaks off it never leaves.

use std::collections::BTreeMap;

use provost_mcp::RawJson;
use serde_json::{Value, json};

/// The calls of one answer by the index of their choice, and by their own.
#[derive(Default)]
pub(super) struct Calls(BTreeMap<u64, BTreeMap<u64, Value>>);

impl Calls {
    /// Takes a chunk; what goes on now, in order: of calls only whole ones, each choice's in a chunk of their own.
    pub(super) fn join(&mut self, chunk: RawJson) -> Vec<RawJson> {
        // One that is no JSON is dealt with by who looks at texts.
        let Ok(mut parsed) = chunk.parse::<Value>() else { return vec![chunk] };
        let Some(choices) = parsed.get_mut("choices").and_then(Value::as_array_mut) else { return vec![chunk] };
        let (mut whole, mut touched) = (Vec::new(), false);
        choices.retain_mut(|choice| {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or_default();
            let delta = choice.get_mut("delta").and_then(Value::as_object_mut);
            let pieces = delta.and_then(|delta| delta.remove("tool_calls"));
            let had_pieces = pieces.is_some();
            if let Some(pieces) = pieces {
                self.add(index, pieces);
            }
            let ends = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
            let calls = if ends { self.0.remove(&index) } else { None };
            if let Some(calls) = calls {
                let calls: Vec<Value> = calls.into_values().collect();
                whole.push(json!({ "index": index, "delta": { "tool_calls": calls }, "finish_reason": null }));
            }
            touched |= had_pieces;
            !had_pieces || ends || says_more(choice)
        });
        let rest_is_empty = choices.is_empty();
        let mut out: Vec<RawJson> = whole
            .into_iter()
            .map(|choice| {
                let mut chunk = parsed.clone();
                chunk["choices"] = Value::from(vec![choice]);
                RawJson::from(chunk)
            })
            .collect();
        if !touched {
            out.push(chunk);
        } else if !rest_is_empty {
            out.push(RawJson::from(parsed));
        }
        out
    }

    fn add(&mut self, choice: u64, pieces: Value) {
        let Value::Array(pieces) = pieces else { return };
        let calls = self.0.entry(choice).or_default();
        for piece in pieces {
            let index = piece.get("index").and_then(Value::as_u64).unwrap_or_default();
            match calls.get_mut(&index) {
                Some(call) => append(call, &piece),
                None => drop(calls.insert(index, piece)),
            }
        }
    }
}

/// Adds a later piece of a call: only its arguments grow.
fn append(call: &mut Value, piece: &Value) {
    const ARGUMENTS: &str = "/function/arguments";
    let Some(more) = piece.pointer(ARGUMENTS).and_then(Value::as_str) else { return };
    match call.pointer_mut(ARGUMENTS) {
        Some(Value::String(arguments)) => arguments.push_str(more),
        Some(other) => *other = Value::from(more),
        None => {
            if let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) {
                function.insert("arguments".to_owned(), Value::from(more));
            }
        }
    }
}

fn says_more(choice: &Value) -> bool {
    choice.get("delta").and_then(Value::as_object).is_some_and(|delta| !delta.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chunk(choice: Value) -> RawJson {
        RawJson::from(json!({ "id": "c", "model": "m", "choices": [choice] }))
    }

    fn piece(choice: u64, call: Value) -> RawJson {
        chunk(json!({ "index": choice, "delta": { "tool_calls": [call] }, "finish_reason": null }))
    }

    fn begin(call: u64, arguments: &str) -> Value {
        let id = format!("call_{call}");
        json!({ "index": call, "id": id, "type": "function", "function": { "name": "f", "arguments": arguments } })
    }

    fn more(call: u64, arguments: &str) -> Value {
        json!({ "index": call, "function": { "arguments": arguments } })
    }

    #[test]
    fn calls_leave_whole_before_the_end_of_their_choice() {
        let arguments = r#"{"to": "Žofia", "n": [1, 2]}"#;
        let letters: Vec<String> = arguments.chars().map(String::from).collect();
        let mut calls = Calls::default();
        assert!(calls.join(piece(0, begin(0, ""))).is_empty());
        assert!(calls.join(piece(1, begin(0, "other"))).is_empty());
        for letter in &letters {
            assert!(calls.join(piece(0, more(0, letter))).is_empty());
        }
        assert!(calls.join(piece(0, begin(1, "{}"))).is_empty());
        let text = chunk(json!({ "index": 0, "delta": { "content": "x" }, "finish_reason": null }));
        assert_eq!(calls.join(text.clone()), [text], "texts do not wait");
        let end = chunk(json!({ "index": 0, "delta": {}, "finish_reason": "tool_calls" }));
        let expected = chunk(json!({
            "index": 0, "delta": { "tool_calls": [begin(0, arguments), begin(1, "{}")] }, "finish_reason": null,
        }));
        assert_eq!(calls.join(end.clone()), [expected, end]);
        // The other choice's go on waiting.
        let end = chunk(json!({ "index": 1, "delta": { "tool_calls": [more(0, "!")] }, "finish_reason": "length" }));
        let sent: Vec<Value> = calls.join(end).iter().map(|chunk| chunk.parse().unwrap()).collect();
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0]["choices"][0]["delta"]["tool_calls"], json!([begin(0, "other!")]));
        assert_eq!(sent[1]["choices"][0], json!({ "index": 1, "delta": {}, "finish_reason": "length" }));
    }

    #[test]
    fn nothing_of_a_call_leaves_beside_a_text_or_in_another_form() {
        let mut calls = Calls::default();
        let both = json!({ "content": "x", "tool_calls": [begin(0, "secret")] });
        let sent = calls.join(chunk(json!({ "index": 0, "delta": both, "finish_reason": null })));
        assert_eq!(sent, [chunk(json!({ "index": 0, "delta": { "content": "x" }, "finish_reason": null }))]);
        let odd = json!({ "tool_calls": { "function": "secret" } });
        assert!(calls.join(chunk(json!({ "index": 3, "delta": odd, "finish_reason": null }))).is_empty());
        let usage = RawJson::from(json!({ "choices": [], "usage": {} }));
        assert_eq!(calls.join(usage.clone()), [usage]);
    }
}
