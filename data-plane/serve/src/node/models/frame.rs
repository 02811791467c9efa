//! Answers in OpenAI's shapes.

use provost_mcp::RawJson;
use provost_types::{LikelyToken, TokenLogprob, TokenUsage};
use serde_json::{Value, json};

use super::answer::Answer;

/// What OpenAI's API says for a probability of nothing: JSON has no infinity.
const LOWEST_LOGPROB: f32 = -9999.0;

/// What one chat answer is called and dated, in each of its chunks.
pub(super) struct Frame<'a> {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: &'a str,
}

impl Frame<'_> {
    /// A piece of the answer; `tokens` are those of the piece, where they were asked for.
    pub(super) fn chunk(&self, delta: Value, tokens: &[TokenLogprob], finish: Option<&str>) -> RawJson {
        let mut choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        if !tokens.is_empty() {
            choice["logprobs"] = logprobs(tokens);
        }
        RawJson::from(json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": [choice],
        }))
    }

    /// The tokens used, after the last piece.
    pub(super) fn usage_chunk(&self, usage: TokenUsage) -> RawJson {
        RawJson::from(json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": [], "usage": usage_json(usage),
        }))
    }

    /// The whole answer, and its tokens where they were asked for.
    pub(super) fn whole(&self, answer: &Answer, with_tokens: bool, finish: &str, usage: TokenUsage) -> RawJson {
        RawJson::from(json!({
            "id": self.id, "object": "chat.completion", "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": answer.message(),
                "logprobs": with_tokens.then(|| logprobs(&answer.tokens)),
                "finish_reason": finish,
            }],
            "usage": usage_json(usage),
        }))
    }
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
