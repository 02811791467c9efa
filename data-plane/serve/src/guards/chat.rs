//! Texts that are streamed in pieces, each in a JSON message of its own (OpenAI chunks), and calls of tools, which come
//! whole (see `calls`).
//!
//! Invariants: what leaves, put together, is what the guard makes of the whole text; of a blocked value
//! no part leaves, and after it nothing does.

use std::{collections::BTreeMap, sync::Arc};

use provost_data_guards::{Blocked, Guard, GuardStream, JsonInspection, Tally, Vault};
use provost_mcp::RawJson;
use serde_json::{Value, json};

use super::layouts;

/// The texts of one answer by the index of their choice.
#[derive(Default)]
pub(super) struct ChatStreams {
    choices: BTreeMap<u64, Text>,
    /// What was found in calls.
    in_calls: Tally,
    blocked: Option<Blocked>,
    vault: Option<Arc<dyn Vault>>,
}

/// One text.
struct Text {
    stream: GuardStream<Arc<Guard>>,
    /// Released bytes of a character that is not whole yet.
    rest: Vec<u8>,
}

impl ChatStreams {
    /// Texts with tokens of this vault.
    pub(super) fn new(vault: Option<Arc<dyn Vault>>) -> Self {
        Self { vault, ..Self::default() }
    }

    /// What was found in all of them.
    pub(super) fn tally(&self) -> Tally {
        let mut all = self.in_calls.clone();
        self.choices.values().for_each(|text| all.merge(text.stream.tally()));
        all
    }

    /// Why nothing leaves any more.
    pub(super) fn blocked(&self) -> Option<Blocked> {
        self.blocked
    }

    /// Takes a chunk and sends what may leave. The end of a text sends what was held back of it first.
    pub(super) fn pass(&mut self, guard: &Arc<Guard>, chunk: RawJson, send: &mut dyn FnMut(RawJson)) {
        if self.blocked.is_some() {
            return;
        }
        // Chunks are made by this node's executors; one that is none of theirs does not leave.
        let Ok(mut chunk) = chunk.parse::<Value>() else { return };
        let Some(choices) = chunk.get("choices").and_then(Value::as_array).filter(|c| !c.is_empty()) else {
            return send(RawJson::from(chunk));
        };
        let mut passed = Vec::with_capacity(choices.len());
        for choice in choices.clone() {
            match self.choice(guard, choice) {
                Ok(choices) => passed.extend(choices),
                Err(blocked) => {
                    self.blocked = Some(blocked);
                    return;
                }
            }
        }
        for choice in passed {
            if let Some(choices) = chunk.get_mut("choices") {
                *choices = Value::Array(vec![choice]);
            }
            send(RawJson::from(chunk.clone()));
        }
    }

    /// One choice of a chunk: what of it leaves now, in order.
    fn choice(&mut self, guard: &Arc<Guard>, mut choice: Value) -> Result<Vec<Value>, Blocked> {
        self.calls(guard, &mut choice)?;
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or_default();
        let stream = || GuardStream::new(guard.clone()).with_vault(self.vault.clone());
        let text = self.choices.entry(index).or_insert_with(|| Text { stream: stream(), rest: Vec::new() });
        let mut out = Vec::new();
        if let Some(content) = choice.pointer("/delta/content").and_then(Value::as_str) {
            let was_empty = content.is_empty();
            let released = text.push(content)?;
            // A piece that is held back leaves with a later one; one that was empty said something else.
            if released.is_empty() && !was_empty && says_nothing_else(&choice) {
                return Ok(out);
            }
            if let Some(content) = choice.pointer_mut("/delta/content") {
                *content = Value::from(released);
            }
        }
        if choice.get("finish_reason").is_some_and(|reason| !reason.is_null()) {
            let held = text.finish()?;
            if !held.is_empty() {
                out.push(json!({ "index": index, "delta": { "content": held }, "finish_reason": null }));
            }
        }
        out.push(choice);
        Ok(out)
    }
}

impl ChatStreams {
    /// Looks at the calls of a choice, as at those of an answer that is not streamed.
    fn calls(&mut self, guard: &Guard, choice: &mut Value) -> Result<(), Blocked> {
        let Some(calls) = choice.pointer_mut("/delta/tool_calls") else { return Ok(()) };
        let json = RawJson::from(json!({ "tool_calls": calls.take() }));
        let inspection = guard.inspect_json_with(&json, &layouts::CALLS, self.vault.as_deref());
        let JsonInspection { tally, blocked, rewritten, sent } = inspection;
        self.in_calls.merge(&tally);
        blocked.map_or(Ok(()), Err)?;
        let passed = sent.or(rewritten).unwrap_or(json);
        // What a guard leaves is JSON of the same shape.
        let passed: Value = passed.parse().unwrap_or_default();
        *calls = passed.get("tool_calls").cloned().unwrap_or_default();
        Ok(())
    }
}

fn says_nothing_else(choice: &Value) -> bool {
    let only_content = choice.get("delta").and_then(Value::as_object).is_some_and(|delta| delta.len() == 1);
    only_content && choice.get("finish_reason").is_none_or(Value::is_null)
}

impl Text {
    fn push(&mut self, piece: &str) -> Result<String, Blocked> {
        let mut out = std::mem::take(&mut self.rest);
        self.stream.push(piece.as_bytes(), &mut out)?;
        Ok(self.whole(out))
    }

    fn finish(&mut self) -> Result<String, Blocked> {
        let mut out = std::mem::take(&mut self.rest);
        self.stream.finish(&mut out)?;
        Ok(self.whole(out))
    }

    /// The characters that are whole; what is left of one is kept.
    fn whole(&mut self, mut bytes: Vec<u8>) -> String {
        let end = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            Err(cut) => cut.valid_up_to(),
        };
        self.rest = bytes.split_off(end);
        // Checked right above.
        String::from_utf8(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_data_guards::{Action, Kind, Paths, Rules};
    use provost_types::ContentPath;

    use super::*;
    use crate::guards::calls::Calls;

    fn chunk(index: u64, text: &str) -> RawJson {
        RawJson::from(
            json!({ "id": "c", "choices": [{ "index": index, "delta": { "content": text }, "finish_reason": null }] }),
        )
    }

    fn end(index: u64) -> RawJson {
        RawJson::from(json!({ "id": "c", "choices": [{ "index": index, "delta": {}, "finish_reason": "stop" }] }))
    }

    /// What leaves of each choice, and the last chunk.
    fn run(
        guard: Guard,
        chunks: impl IntoIterator<Item = RawJson>,
    ) -> (BTreeMap<u64, String>, Option<Value>, ChatStreams) {
        let guard = Arc::new(guard);
        let (mut streams, mut texts, mut last) = (ChatStreams::default(), BTreeMap::<u64, String>::new(), None);
        for chunk in chunks {
            streams.pass(&guard, chunk, &mut |sent| {
                let sent: Value = sent.parse().unwrap();
                let choice = &sent["choices"][0];
                let text = choice["delta"]["content"].as_str().unwrap_or_default();
                texts.entry(choice["index"].as_u64().unwrap()).or_default().push_str(text);
                last = Some(sent);
            });
        }
        (texts, last, streams)
    }

    #[test]
    fn a_value_in_pieces_is_masked_in_each_choice_by_itself() {
        let text = "Müller pays with 4111 1111 1111 1111, élan";
        let guard = || Guard::new(Rules::default().with(Kind::Card, Action::Mask));
        for size in [1, 2, 3, 7, 100] {
            let letters: Vec<char> = text.chars().collect();
            let pieces: Vec<String> = letters.chunks(size).map(|c| c.iter().collect()).collect();
            // The other choice's pieces stand between and must not join.
            let chunks = pieces.iter().flat_map(|p| [chunk(0, p), chunk(1, "4")]);
            let (texts, last, streams) = run(guard(), chunks.chain([end(1), end(0)]));
            assert_eq!(texts[&0], "Müller pays with **** **** **** 1111, élan", "in pieces of {size}");
            assert_eq!(texts[&1], "4".repeat(pieces.len()));
            assert_eq!(last.unwrap()["choices"][0]["finish_reason"], "stop");
            assert_eq!(streams.tally().iter().collect::<Vec<_>>(), [(Kind::Card, Action::Mask, 1)]);
        }
    }

    #[test]
    fn after_a_block_nothing_leaves_any_more() {
        let guard = Guard::new(Rules::default().with(Kind::Card, Action::Block));
        let chunks =
            [chunk(0, "pay with 4111 1111"), chunk(0, " 1111 1111 and"), chunk(0, &" go on".repeat(50)), end(0)];
        let (texts, last, streams) = run(guard, chunks);
        let left = texts.get(&0).cloned().unwrap_or_default();
        assert!("pay with ".starts_with(&left), "{left}");
        assert!(last.is_none_or(|l| l["choices"][0]["finish_reason"].is_null()));
        assert_eq!(streams.blocked().unwrap().kind, Kind::Card);
    }

    /// Streams a call in pieces of so many letters; its arguments as they leave.
    fn call_in_pieces(guard: Guard, arguments: &str, size: usize) -> (Option<String>, ChatStreams) {
        let guard = Arc::new(guard);
        let letters: Vec<char> = arguments.chars().collect();
        let mut pieces: Vec<String> = letters.chunks(size).map(|c| c.iter().collect()).collect();
        let delta = |delta: Value, finish: Value| {
            RawJson::from(json!({ "id": "c", "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] }))
        };
        let first = json!([{
            "index": 0, "id": "call_a", "type": "function", "function": { "name": "f", "arguments": pieces.remove(0) },
        }]);
        let mut chunks = vec![delta(json!({ "tool_calls": first }), Value::Null)];
        chunks.extend(pieces.iter().map(|piece| {
            delta(json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] }), Value::Null)
        }));
        chunks.push(delta(json!({}), json!("tool_calls")));
        let (mut calls, mut streams, mut sent) = (Calls::default(), ChatStreams::default(), Vec::<Value>::new());
        for chunk in chunks {
            for chunk in calls.join(chunk) {
                streams.pass(&guard, chunk, &mut |chunk| sent.push(chunk.parse().unwrap()));
            }
        }
        let arguments = "/choices/0/delta/tool_calls/0/function/arguments";
        let left: Vec<&str> = sent.iter().filter_map(|chunk| chunk.pointer(arguments)?.as_str()).collect();
        assert!(left.len() <= 1);
        let ended = sent.last().is_some_and(|chunk| chunk["choices"][0]["finish_reason"] == "tool_calls");
        assert_eq!(ended, streams.blocked().is_none());
        (left.first().map(|text| (*text).to_owned()), streams)
    }

    #[test]
    fn a_value_in_the_arguments_of_a_call_is_found_however_it_is_cut_and_written() {
        let mask = || Guard::new(Rules::default().with(Kind::Card, Action::Mask));
        for (arguments, left) in [
            (r#"{"pay": {"with": "4111 1111 1111 1111"}}"#, r#"{"pay": {"with": "**** **** **** 1111"}}"#),
            (r#"{"with": "\u0034111 1111 1111 1111"}"#, r#"{"with": "**** **** **** 1111"}"#),
            (r#"{"é": "4111\u00201111 1111 1111"}"#, r#"{"é": "**** **** **** 1111"}"#),
        ] {
            for size in 1..=arguments.chars().count() {
                let (sent, streams) = call_in_pieces(mask(), arguments, size);
                let sent = sent.unwrap();
                assert!(!sent.contains("1111 1111"), "{sent} in pieces of {size}");
                let (sent, left): (Value, Value) = (sent.parse().unwrap(), left.parse().unwrap());
                assert_eq!(sent, left, "in pieces of {size}");
                assert_eq!(streams.tally().iter().collect::<Vec<_>>(), [(Kind::Card, Action::Mask, 1)]);
            }
        }
        let arguments = r#"{"n": 7, "text": "nothing to hide"}"#;
        assert_eq!(call_in_pieces(mask(), arguments, 3).0.as_deref(), Some(arguments));
    }

    #[test]
    fn a_call_that_may_not_pass_ends_the_stream() {
        let block = Guard::new(Rules::default().with(Kind::Card, Action::Block));
        let (sent, streams) = call_in_pieces(block, r#"{"with": "4111 1111 1111 1111"}"#, 2);
        assert_eq!(sent, None);
        assert_eq!(streams.blocked().unwrap().kind, Kind::Card);
    }

    #[test]
    fn a_protected_place_in_a_call_is_not_passed_by_one_that_is_cut_off_or_names_it_twice() {
        for (arguments, left) in [
            (r#"{"pin": "77", "n": 1}"#, r#"{"pin": "[masked]", "n": 1}"#),
            (r#"{"pin": "77", "n": "#, "[masked]"),
            (r#"{"pin": "77", "pin": "77"}"#, "[masked]"),
        ] {
            let path = ContentPath::new("$.pin").unwrap();
            let guard = Guard::new(Rules::default()).with(Vec::new(), Paths::new([(path, Action::Mask)]));
            let (sent, streams) = call_in_pieces(guard, arguments, 3);
            assert_eq!(sent.as_deref(), Some(left));
            assert_eq!(streams.tally().iter().collect::<Vec<_>>(), [(Kind::Path, Action::Mask, 1)]);
        }
    }

    #[test]
    fn what_is_no_text_passes() {
        let role = RawJson::from(
            json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }] }),
        );
        let usage = RawJson::from(json!({ "choices": [], "usage": { "total_tokens": 3 } }));
        let guard = Arc::new(Guard::new(Rules::all(Action::Mask)));
        let mut sent = Vec::new();
        let mut streams = ChatStreams::default();
        for chunk in [role.clone(), usage.clone()] {
            streams.pass(&guard, chunk, &mut |s| sent.push(s.parse::<Value>().unwrap()));
        }
        assert_eq!(sent, [role.parse::<Value>().unwrap(), usage.parse().unwrap()]);
    }
}
