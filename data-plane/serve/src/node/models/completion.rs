//! Completions: a text that the model goes on with as it stands, without its template.
//!
//! The older of OpenAI's two forms. What is served of it is what chats have, and a clear no to the rest.

use provost_mcp::RpcError;
use provost_types::{ChatRequest, TokenLogprob};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    DEFAULT_COMPLETION_TOKENS,
    body::{OneOrMany, StreamOptions, invalid, unserved_weights},
    frame::LOWEST_LOGPROB,
};

/// A completion.
#[derive(Deserialize)]
pub(super) struct CompletionBody {
    prompt: Prompt,
    #[serde(default)]
    pub(super) stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    n: Option<u32>,
    best_of: Option<u32>,
    logprobs: Option<u32>,
    echo: Option<bool>,
    suffix: Option<String>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logit_bias: Option<Map<String, Value>>,
}

/// A text. The API also has lists of them, and of tokens.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    List(Vec<Value>),
}

impl Prompt {
    /// The one text that there is.
    fn text(self) -> Result<String, RpcError> {
        let list = match self {
            Self::Text(text) => return Ok(text),
            Self::List(list) => list,
        };
        match <[Value; 1]>::try_from(list) {
            Ok([Value::String(text)]) => Ok(text),
            _ => Err(invalid("`prompt` must be one text: lists of texts, and tokens, are not served")),
        }
    }
}

impl CompletionBody {
    /// True when a stream ends with a chunk of tokens used.
    pub(super) fn wants_usage(&self) -> bool {
        StreamOptions::wants_usage(self.stream_options.as_ref())
    }

    /// True when each token's likelihood is asked for.
    pub(super) fn wants_logprobs(&self) -> bool {
        self.logprobs.is_some()
    }

    /// The request to the model.
    pub(super) fn request(self, tenant: &str, model: &str) -> Result<ChatRequest, RpcError> {
        self.refuse_what_is_not_served()?;
        Ok(ChatRequest {
            tenant: tenant.to_owned(),
            model: model.to_owned(),
            messages: Vec::new(),
            max_tokens: self.max_tokens.unwrap_or(DEFAULT_COMPLETION_TOKENS),
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            seed: self.seed.map(i64::cast_unsigned),
            stop: self.stop.map(OneOrMany::into_vec).unwrap_or_default(),
            logprobs: self.logprobs,
            schema: None,
            tools: None,
            prompt: Some(self.prompt.text()?),
        })
    }

    fn refuse_what_is_not_served(&self) -> Result<(), RpcError> {
        let weights = [self.frequency_penalty, self.presence_penalty];
        let refusal = if self.n.is_some_and(|n| n != 1) || self.best_of.is_some_and(|best| best != 1) {
            "`n` and `best_of` other than 1 are not served"
        } else if self.max_completion_tokens.is_some() {
            // Nothing here may be bounded by another member than the one that quotas look at.
            "`max_completion_tokens` is not served here; `max_tokens` is"
        } else if self.echo == Some(true) {
            "`echo` is not served"
        } else if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            "`suffix` is not served"
        } else if let Some(weights) = unserved_weights(weights, self.logit_bias.as_ref()) {
            weights
        } else {
            return Ok(());
        };
        Err(invalid(refusal))
    }
}

/// A completion's choice: its text, and its tokens where they are told. `before` are the bytes of text before it.
pub(super) fn choice(text: &str, tokens: Option<&[TokenLogprob]>, before: usize, finish: Option<&str>) -> Value {
    let logprobs = tokens.map(|tokens| logprobs(tokens, before));
    json!({ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish })
}

/// Likelihoods as completions have them: a list for each fact.
fn logprobs(tokens: &[TokenLogprob], mut offset: usize) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut texts, mut own, mut top, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        texts.push(text(&token.chosen.bytes));
        own.push(token.chosen.logprob.max(LOWEST_LOGPROB));
        let others: Map<String, Value> =
            token.top.iter().map(|other| (text(&other.bytes), json!(other.logprob.max(LOWEST_LOGPROB)))).collect();
        top.push(others);
        offsets.push(offset);
        offset += token.chosen.bytes.len();
    }
    json!({ "tokens": texts, "token_logprobs": own, "top_logprobs": top, "text_offset": offsets })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::LikelyToken;

    use super::*;

    fn read(more: &Value) -> Result<ChatRequest, String> {
        let mut body = json!({ "prompt": "once" });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let body: CompletionBody = serde_json::from_value(body).map_err(|cause| cause.to_string())?;
        body.request("acme", "m").map_err(|error| error.message)
    }

    #[test]
    fn what_is_served_reaches_the_model() {
        let more = json!({ "max_tokens": 7, "seed": 3, "stop": ["end"], "logprobs": 2, "echo": false, "n": 1 });
        let request = read(&more).unwrap();
        assert_eq!((request.prompt.as_deref(), request.messages.len(), request.max_tokens), (Some("once"), 0, 7));
        assert_eq!((request.seed, request.logprobs, &*request.stop[0]), (Some(3), Some(2), "end"));
        assert_eq!(read(&json!({ "prompt": ["twice"] })).unwrap().prompt.as_deref(), Some("twice"));
        assert_eq!(read(&json!({})).unwrap().max_tokens, 16);
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        for (body, says) in [
            (json!({ "n": 2 }), "`n`"),
            (json!({ "best_of": 3 }), "`best_of`"),
            (json!({ "echo": true }), "`echo`"),
            (json!({ "suffix": "end" }), "`suffix`"),
            (json!({ "max_completion_tokens": 1 }), "`max_tokens` is"),
            (json!({ "frequency_penalty": 1 }), "frequency_penalty"),
            (json!({ "logit_bias": { "5": 1 } }), "logit_bias"),
            (json!({ "prompt": ["a", "b"] }), "`prompt`"),
            (json!({ "prompt": [1, 2] }), "`prompt`"),
            (json!({ "prompt": [[1, 2]] }), "`prompt`"),
        ] {
            let refused = read(&body).unwrap_err();
            assert!(refused.contains(says), "{body}: {refused}");
        }
        assert!(read(&json!({ "prompt": 7 })).is_err());
    }

    #[test]
    fn likelihoods_have_the_shape_of_completions() {
        let likely = |text: &str, logprob| LikelyToken { bytes: text.into(), logprob };
        let token = |text, logprob, top| TokenLogprob { chosen: likely(text, logprob), top };
        let tokens = [token("ab", -0.5, vec![likely("c", f32::NEG_INFINITY)]), token("d", -1.0, Vec::new())];
        assert_eq!(
            choice("abd", Some(&tokens), 4, Some("length")),
            json!({ "index": 0, "text": "abd", "finish_reason": "length", "logprobs": {
                "tokens": ["ab", "d"], "token_logprobs": [-0.5, -1.0], "top_logprobs": [{ "c": -9999.0 }, {}],
                "text_offset": [4, 6],
            } })
        );
        assert_eq!(
            choice("", None, 0, None),
            json!({ "index": 0, "text": "", "finish_reason": null, "logprobs": null })
        );
    }
}
