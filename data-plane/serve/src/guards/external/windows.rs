//! Streamed texts, checked window by window.
//!
//! A text is checked when [`WINDOW_BYTES`] of it have come, or its end. The last [`OVERLAP_BYTES`] of a
//! window stay back and begin the next one, so that a short value on the border is whole in one of them.
//! What leaves is what was checked, as it was changed. Calls of tools come whole and are checked so.

use std::collections::BTreeMap;

use provost_mcp::RawJson;
use serde_json::{Value, json};

/// So much is checked at once.
const WINDOW_BYTES: usize = 1024;
/// So much is checked twice.
const OVERLAP_BYTES: usize = 128;

/// The texts of one answer, by the index of their choice: what of each has not left.
#[derive(Default)]
pub(crate) struct Windows(BTreeMap<u64, Held>);

#[derive(Clone, Default)]
struct Held {
    text: String,
    /// Bytes of it that were checked.
    checked: usize,
}

/// A chunk, and what has to be checked before it leaves.
pub(crate) struct Piece {
    index: u64,
    /// The text up to here; `None`: there is nothing to check yet.
    pub(crate) window: Option<RawJson>,
    text: String,
    ends: bool,
    /// What is checked is the calls of the chunk, and not the text.
    calls: bool,
    chunk: Value,
}

impl Windows {
    /// Looks at a chunk of one choice; `None`: it is none, and leaves as it is.
    pub(crate) fn look(&self, chunk: &RawJson) -> Option<Piece> {
        let chunk: Value = chunk.parse().ok()?;
        let choice = chunk.get("choices")?.get(0)?;
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or_default();
        if let Some(calls) = choice.pointer("/delta/tool_calls") {
            let window = Some(RawJson::from(calls.clone()));
            return Some(Piece { index, window, text: String::new(), ends: false, calls: true, chunk });
        }
        let ends = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
        let content = choice.pointer("/delta/content").and_then(Value::as_str);
        if content.is_none() && !ends {
            return None;
        }
        let held = self.0.get(&index).cloned().unwrap_or_default();
        let text = held.text + content.unwrap_or_default();
        let fresh = text.len() - held.checked.min(text.len());
        let due = fresh >= WINDOW_BYTES || (ends && fresh > 0);
        let window = due.then(|| RawJson::from_text(&text));
        Some(Piece { index, window, text, ends, calls: false, chunk })
    }

    /// What leaves now that the window was checked; `changed`: as what it passes.
    pub(crate) fn pass(&mut self, piece: Piece, changed: Option<RawJson>) -> Vec<RawJson> {
        let Piece { index, window, text, ends, calls, mut chunk } = piece;
        if calls {
            // What is changed is an array of calls still, or it would not be JSON of the same type.
            let changed = changed.and_then(|changed| changed.parse::<Value>().ok());
            if let (Some(calls), Some(changed)) = (chunk.pointer_mut("/choices/0/delta/tool_calls"), changed) {
                *calls = changed;
            }
            return vec![RawJson::from(chunk)];
        }
        let text = changed.and_then(|changed| changed.as_text().map(|text| text.into_owned())).unwrap_or(text);
        let mut out = Vec::new();
        let stays = match (ends, window.is_some()) {
            (true, _) => text.len(),
            (false, false) => 0,
            (false, true) => {
                let end = text.len().saturating_sub(OVERLAP_BYTES);
                (0..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
            }
        };
        let (leaves, rest) = text.split_at_checked(stays).unwrap_or((text.as_str(), ""));
        let held = self.0.entry(index).or_default();
        held.checked = if window.is_some() { rest.len() } else { held.checked };
        held.text = rest.to_owned();
        if !leaves.is_empty() {
            let mut piece = chunk.clone();
            if let Some(choices) = piece.get_mut("choices") {
                *choices = json!([{ "index": index, "delta": { "content": leaves }, "finish_reason": null }]);
            }
            out.push(RawJson::from(piece));
        }
        if let Some(delta) = chunk.pointer_mut("/choices/0/delta").and_then(Value::as_object_mut) {
            let was_empty = delta.get("content").is_some_and(|content| content == "");
            if !was_empty {
                delta.remove("content");
            }
        }
        let says_more = chunk.pointer("/choices/0/delta").and_then(Value::as_object).is_some_and(|d| !d.is_empty());
        if ends || says_more {
            out.push(RawJson::from(chunk));
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chunk(content: Option<&str>, ends: bool) -> RawJson {
        let delta = content.map_or(json!({}), |content| json!({ "content": content }));
        let reason = if ends { json!("stop") } else { Value::Null };
        RawJson::from(json!({ "id": "c", "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] }))
    }

    #[test]
    fn everything_leaves_once_and_every_border_is_checked_whole() {
        let text: String = (0..900).map(|n| format!("word{n} ")).collect();
        let letters: Vec<char> = text.chars().collect();
        for size in [1, 7, 500, 4_000] {
            let (mut windows, mut left, mut seen) = (Windows::default(), String::new(), Vec::new());
            let pieces: Vec<String> = letters.chunks(size).map(|c| c.iter().collect()).collect();
            let mut chunks: Vec<RawJson> = pieces.iter().map(|p| chunk(Some(p), false)).collect();
            chunks.push(chunk(None, true));
            for chunk in chunks {
                let piece = windows.look(&chunk).unwrap();
                let window = piece.window.as_ref().map(|w| w.as_text().unwrap().into_owned());
                seen.extend(window.clone());
                // The guard masks in what it is shown.
                let changed = window.map(|w| RawJson::from_text(&w.replace("word100 ", "******* ")));
                for sent in windows.pass(piece, changed) {
                    let sent: Value = sent.parse().unwrap();
                    left += sent.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or_default();
                }
            }
            assert_eq!(left, text.replace("word100 ", "******* "), "in pieces of {size}");
            assert!(seen.iter().any(|w| w.contains("word250 word251")), "in pieces of {size}");
        }
    }

    #[test]
    fn calls_are_checked_whole_and_leave_as_they_were_changed() {
        let call =
            |arguments: &str| json!([{ "index": 0, "id": "a", "function": { "name": "f", "arguments": arguments } }]);
        let chunk = |calls: Value| {
            RawJson::from(
                json!({ "choices": [{ "index": 0, "delta": { "tool_calls": calls }, "finish_reason": null }] }),
            )
        };
        let mut windows = Windows::default();
        let piece = windows.look(&chunk(call("{\"bird\": \"Lynx\"}"))).unwrap();
        let window: Value = piece.window.as_ref().unwrap().parse().unwrap();
        assert_eq!(window, call("{\"bird\": \"Lynx\"}"));
        let changed = RawJson::from(call("{\"bird\": \"****\"}"));
        let sent: Vec<Value> = windows.pass(piece, Some(changed)).iter().map(|c| c.parse().unwrap()).collect();
        assert_eq!(sent, [chunk(call("{\"bird\": \"****\"}")).parse::<Value>().unwrap()]);
        let untouched = windows.look(&chunk(call("{}"))).unwrap();
        assert_eq!(windows.pass(untouched, None), [chunk(call("{}"))]);
    }

    #[test]
    fn what_is_no_text_leaves_at_once() {
        let windows = Windows::default();
        assert!(windows.look(&chunk(None, false)).is_none());
        assert!(windows.look(&RawJson::from(json!({ "choices": [], "usage": {} }))).is_none());
    }
}
