//! An answer of a chat, put together from what the model says.

use provost_types::{CallDelta, CallHead, TokenLogprob};
use serde_json::{Value, json};

/// What has come of an answer.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) tokens: Vec<TokenLogprob>,
    /// Tokens that were made and told nothing when they were.
    pub(super) silent: u64,
    /// So many of the tokens have been sent.
    told: usize,
    calls: Vec<Call>,
}

struct Call {
    head: CallHead,
    arguments: String,
}

impl Answer {
    /// The tokens that were not sent yet; now they are.
    pub(super) fn untold(&mut self) -> &[TokenLogprob] {
        let untold = self.tokens.get(self.told..).unwrap_or_default();
        self.told = self.tokens.len();
        untold
    }

    /// Adds pieces of calls; as OpenAI's API streams them.
    pub(super) fn add_calls(&mut self, deltas: Vec<CallDelta>) -> Value {
        let mut shown = Vec::with_capacity(deltas.len());
        for CallDelta { index, head, arguments } in deltas {
            let mut piece = json!({ "index": index, "function": { "arguments": arguments } });
            if let Some(head) = head {
                piece["id"] = Value::from(head.id.as_str());
                piece["type"] = Value::from("function");
                piece["function"]["name"] = Value::from(head.name.as_str());
                self.calls.push(Call { head, arguments });
            } else if let Some(call) = self.calls.last_mut() {
                call.arguments.push_str(&arguments);
            }
            shown.push(piece);
        }
        Value::from(shown)
    }

    /// The message, as OpenAI's API has it.
    pub(super) fn message(&self) -> Value {
        let mut message = json!({ "role": "assistant", "content": self.text });
        if self.calls.is_empty() {
            return message;
        }
        if self.text.is_empty() {
            message["content"] = Value::Null;
        }
        let call = |Call { head: CallHead { id, name }, arguments }: &Call| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
        message["tool_calls"] = self.calls.iter().map(call).collect();
        message
    }

    /// Tokens that were made, at most: each told a byte of it at least, or nothing.
    pub(super) fn made_at_most(&self) -> u64 {
        let bytes = self.text.len() + self.calls.iter().map(|call| call.arguments.len()).sum::<usize>();
        self.silent.saturating_add(bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_streamed_and_put_together_in_openais_shapes() {
        let begins = |index, id: &str, arguments: &str| CallDelta {
            index,
            head: Some(CallHead { id: id.to_owned(), name: "f".to_owned() }),
            arguments: arguments.to_owned(),
        };
        let more = |index, arguments: &str| CallDelta { index, head: None, arguments: arguments.to_owned() };
        let mut answer = Answer::default();
        assert_eq!(answer.message(), json!({ "role": "assistant", "content": "" }));
        assert_eq!(
            answer.add_calls(vec![begins(0, "a", "{")]),
            json!([{ "index": 0, "id": "a", "type": "function", "function": { "name": "f", "arguments": "{" } }])
        );
        assert_eq!(
            answer.add_calls(vec![more(0, "}"), begins(1, "b", "")]),
            json!([
                { "index": 0, "function": { "arguments": "}" } },
                { "index": 1, "id": "b", "type": "function", "function": { "name": "f", "arguments": "" } },
            ])
        );
        let call = |id: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": "f", "arguments": arguments } });
        let calls = [call("a", "{}"), call("b", "")];
        assert_eq!(answer.message(), json!({ "role": "assistant", "content": null, "tool_calls": calls }));
        answer.text.push('x');
        assert_eq!(answer.message()["content"], "x");
        answer.silent = 7;
        assert_eq!(answer.made_at_most(), 1 + 2 + 7);
    }
}
