//! Answers in OpenAI's shapes.

use provost_mcp::RawJson;
use provost_types::{LikelyToken, TokenLogprob, TokenUsage};
use serde_json::{Value, json};

use super::{answer::Answer, completion};

/// What OpenAI's API says for a probability of nothing: JSON has no infinity.
pub(super) const LOWEST_LOGPROB: f32 = -9999.0;

/// Which of OpenAI's answers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Completion,
}

impl Shape {
    /// What its ids begin with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl",
            Self::Completion => "cmpl",
        }
    }

    fn piece(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion.chunk",
            Self::Completion => "text_completion",
        }
    }
}

/// What one answer is called and dated, in each of its chunks.
pub(super) struct Frame<'a> {
    pub(super) shape: Shape,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: &'a str,
}

impl Frame<'_> {
    /// More text; `tokens` are its tokens, where they were asked for, and `before` the bytes of text that came before.
    pub(super) fn text(&self, text: &str, tokens: &[TokenLogprob], before: usize) -> RawJson {
        match self.shape {
            Shape::Chat => self.chunk(json!({ "content": text }), tokens, None),
            Shape::Completion => self.piece(completion::choice(text, told(tokens), before, None)),
        }
    }

    /// The end of the text, with the tokens that were told of none.
    pub(super) fn end(&self, tokens: &[TokenLogprob], before: usize, finish: &str) -> RawJson {
        match self.shape {
            Shape::Chat => self.chunk(json!({}), tokens, Some(finish)),
            Shape::Completion => self.piece(completion::choice("", told(tokens), before, Some(finish))),
        }
    }

    /// A piece of a chat's answer; `tokens` are those of the piece, where they were asked for.
    pub(super) fn chunk(&self, delta: Value, tokens: &[TokenLogprob], finish: Option<&str>) -> RawJson {
        let mut choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        if !tokens.is_empty() {
            choice["logprobs"] = logprobs(tokens);
        }
        self.piece(choice)
    }

    fn piece(&self, choice: Value) -> RawJson {
        RawJson::from(json!({
            "id": self.id, "object": self.shape.piece(), "created": self.created,
            "model": self.model, "choices": [choice],
        }))
    }

    /// The tokens used, after the last piece.
    pub(super) fn usage_chunk(&self, usage: TokenUsage) -> RawJson {
        RawJson::from(json!({
            "id": self.id, "object": self.shape.piece(), "created": self.created,
            "model": self.model, "choices": [], "usage": usage_json(usage),
        }))
    }

    /// The whole answer, and its tokens where they were asked for.
    pub(super) fn whole(&self, answer: &Answer, with_tokens: bool, finish: &str, usage: TokenUsage) -> RawJson {
        let (object, choice) = match self.shape {
            Shape::Completion => {
                let tokens = with_tokens.then_some(answer.tokens.as_slice());
                ("text_completion", completion::choice(&answer.text, tokens, 0, Some(finish)))
            }
            Shape::Chat => {
                let choice = json!({
                    "index": 0,
                    "message": answer.message(),
                    "logprobs": with_tokens.then(|| logprobs(&answer.tokens)),
                    "finish_reason": finish,
                });
                ("chat.completion", choice)
            }
        };
        RawJson::from(json!({
            "id": self.id, "object": object, "created": self.created,
            "model": self.model, "choices": [choice], "usage": usage_json(usage),
        }))
    }
}

/// The tokens of a piece, where it has any.
fn told(tokens: &[TokenLogprob]) -> Option<&[TokenLogprob]> {
    Some(tokens).filter(|tokens| !tokens.is_empty())
}

fn usage_json(usage: TokenUsage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    })
}

fn logprobs(tokens: &[TokenLogprob]) -> Value {
    let content: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let mut entry = likely(&token.chosen);
            entry["top_logprobs"] = token.top.iter().map(likely).collect();
            entry
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

/// A token as text, and its bytes: half a character is no text.
fn likely(token: &LikelyToken) -> Value {
    json!({
        "token": String::from_utf8_lossy(&token.bytes),
        "bytes": token.bytes,
        "logprob": token.logprob.max(LOWEST_LOGPROB),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihoods_have_openais_shape() {
        let chosen = LikelyToken { bytes: vec![0xc3], logprob: -0.5 };
        let top = vec![LikelyToken { bytes: b"a".to_vec(), logprob: f32::NEG_INFINITY }];
        let shape = logprobs(&[TokenLogprob { chosen, top }]);
        assert_eq!(
            shape,
            json!({ "content": [{
                "token": "\u{fffd}", "bytes": [0xc3], "logprob": -0.5,
                "top_logprobs": [{ "token": "a", "bytes": [97], "logprob": -9999.0 }],
            }], "refusal": null })
        );
    }
}
