//! A conversation: what was said, and the request for what comes next.

use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// The longest conversation that is sent: what nodes take of texts.
const MAX_CONVERSATION_BYTES: usize = 8 << 20;

/// How an answer is made; what is not given is for the node to choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sampling {
    /// The longest answer, in tokens.
    pub max_tokens: Option<u32>,
    /// 0: the likeliest token each time.
    pub temperature: Option<f64>,
    /// Repeats what is left to chance.
    pub seed: Option<i64>,
}

/// See the module.
pub struct Conversation {
    model: String,
    sampling: Sampling,
    messages: Vec<Value>,
    /// Of the texts of `messages`.
    bytes: usize,
}

impl Conversation {
    /// One in which nothing was said, but for what the model is told before.
    pub fn new(model: String, system: Option<&str>, sampling: Sampling) -> Self {
        let mut new = Self { model, sampling, messages: Vec::new(), bytes: 0 };
        if let Some(system) = system {
            new.add("system", system);
        }
        new
    }

    /// Who answers.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The body of the request for the answer to a prompt. Error: all together is too long.
    pub fn request(&self, prompt: &str) -> Result<Value, Failure> {
        if self.bytes + prompt.len() > MAX_CONVERSATION_BYTES {
            let message = format!("the conversation is longer than {MAX_CONVERSATION_BYTES} bytes");
            return Err(Failure::new("PV-CLI-PROMPT", message, "begin a new one"));
        }
        let mut messages = self.messages.clone();
        messages.push(message("user", prompt));
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(self.model));
        body.insert("messages".to_owned(), Value::Array(messages));
        body.insert("stream".to_owned(), json!(true));
        body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        if let Some(tokens) = self.sampling.max_tokens {
            body.insert("max_completion_tokens".to_owned(), json!(tokens));
        }
        if let Some(temperature) = self.sampling.temperature {
            body.insert("temperature".to_owned(), json!(temperature));
        }
        if let Some(seed) = self.sampling.seed {
            body.insert("seed".to_owned(), json!(seed));
        }
        Ok(Value::Object(body))
    }

    /// Keeps a prompt and its answer.
    pub fn keep(&mut self, prompt: &str, answer: &str) {
        self.add("user", prompt);
        self.add("assistant", answer);
    }

    fn add(&mut self, role: &str, text: &str) {
        self.bytes += text.len();
        self.messages.push(message(role, text));
    }
}

fn message(role: &str, text: &str) -> Value {
    json!({ "role": role, "content": text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_holds_what_was_said_and_what_was_given() {
        let sampling = Sampling { max_tokens: Some(7), temperature: Some(0.5), seed: Some(-1) };
        let mut conversation = Conversation::new("tiny".to_owned(), Some("be brief"), sampling);
        conversation.keep("hi", "hello");
        let body = conversation.request("and now?").unwrap_or_else(|error| panic!("{error}"));
        let expect = json!({
            "model": "tiny", "stream": true, "stream_options": { "include_usage": true },
            "max_completion_tokens": 7, "temperature": 0.5, "seed": -1,
            "messages": [
                { "role": "system", "content": "be brief" }, { "role": "user", "content": "hi" },
                { "role": "assistant", "content": "hello" }, { "role": "user", "content": "and now?" } ] });
        assert_eq!(body, expect);

        let mut plain = Conversation::new("tiny".to_owned(), None, Sampling::default());
        let body = plain.request("hi").unwrap_or_else(|error| panic!("{error}"));
        assert!(["max_completion_tokens", "temperature", "seed"].iter().all(|name| body.get(name).is_none()), "{body}");
        plain.keep("hi", &"x".repeat(MAX_CONVERSATION_BYTES));
        assert!(plain.request("hi").is_err_and(|error| error.code == "PV-CLI-PROMPT"));
    }
}
