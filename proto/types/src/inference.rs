//! Inference as the data plane sees it.

use serde::{Deserialize, Serialize};

use crate::{BoxFuture, BoxStream, CallDelta, ChatTools, FunctionCall, GpuReport, TranscribeRequest, Transcript};

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Texts to vectors.
    Embedding,
    /// Messages to text.
    Chat,
    /// Recordings to text.
    Speech,
}

/// A model that can be used now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name that callers use: the directory's name.
    pub name: String,
    /// What it does.
    pub kind: ModelKind,
    /// Architecture, such as `llama`, `qwen3`, `bert`, `whisper`.
    pub architecture: String,
    /// Longest context, in tokens; of a speech model that of one window.
    pub context_tokens: u32,
    /// Size of an embedding vector; 0 for others.
    pub dimensions: u32,
    /// Unix seconds of the model file.
    pub created: u64,
}

/// Tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Tokens read.
    pub prompt: u64,
    /// Tokens made.
    pub completion: u64,
}

/// Embed some texts. What holds of the form of [`ChatRequest`] holds of this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    /// Whose request it is: tenants share the device fairly. Empty for the node's own work.
    pub tenant: String,
    /// The model's name.
    pub model: String,
    /// The texts, in order.
    pub inputs: Vec<String>,
}

/// One vector a text, in order, of unit length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbedResponse {
    /// Shape `[inputs][dimensions]`.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read.
    pub usage: TokenUsage,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text; may be empty where there are calls.
    pub content: String,
    /// The calls that an `assistant` made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<FunctionCall>,
    /// Whose result the text of a `tool` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
}

impl ChatMessage {
    /// A text, and no calls.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), calls: Vec::new(), call_id: None }
    }
}

/// Continue a conversation.
///
/// Data planes write it for GPU nodes, which refuse what they do not know: an answer without what was asked for would be wrong.
/// So a member that a release adds has a default, and is left out where it says nothing, for the nodes of the release before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// Whose request it is: tenants share the device fairly, and only requests of one tenant share
    /// what is kept of beginnings. Empty for the node's own work.
    pub tenant: String,
    /// The model's name.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<ChatMessage>,
    /// Most tokens to make.
    pub max_tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus sampling; 1 keeps all.
    pub top_p: f32,
    /// Makes sampling repeatable.
    pub seed: Option<u64>,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Tell how likely each token was, and this many of the likeliest in its place. None: neither.
    pub logprobs: Option<u32>,
    /// A JSON schema that the answer follows, as text. None: the answer is free.
    pub schema: Option<String>,
    /// What the model may call. None: nothing, and it is told of nothing.
    pub tools: Option<ChatTools>,
    /// A text that the model goes on with, as it stands and without the model's template; `messages` and `tools` are empty then.
    /// None: the answer is to the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

impl ChatRequest {
    /// A user's text, answered greedily and freely, with no tools.
    pub fn greedy(
        tenant: impl Into<String>,
        model: impl Into<String>,
        text: impl Into<String>,
        max_tokens: u32,
    ) -> Self {
        Self {
            tenant: tenant.into(),
            model: model.into(),
            messages: vec![ChatMessage::new("user", text)],
            max_tokens,
            temperature: 0.0,
            top_p: 1.0,
            seed: None,
            stop: Vec::new(),
            logprobs: None,
            schema: None,
            tools: None,
            prompt: None,
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model or a stop text ended it.
    Stop,
    /// The model waits for the results of its calls, each of which is whole.
    ToolCalls,
    /// `max_tokens` or the context ended it.
    Length,
}

/// A token that might have been made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LikelyToken {
    /// Its bytes: a token may hold part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability before temperature and nucleus.
    pub logprob: f32,
}

/// A token that was made, and what else was likely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token.
    pub chosen: LikelyToken,
    /// The likeliest in its place, likeliest first; as many as were asked for.
    pub top: Vec<LikelyToken>,
}

/// One step of a streamed generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ChatEvent {
    /// More text.
    Delta(String),
    /// More of calls of functions.
    Calls(Vec<CallDelta>),
    /// A token was made, and nothing can be told of it yet: it may belong to a call, or to a text that ends the answer. Whoever
    /// leaves now has had it made.
    Silent,
    /// The tokens of the text that follows, or at the end of none; only where they were asked for.
    Tokens(Vec<TokenLogprob>),
    /// The end.
    End {
        /// Why.
        reason: FinishReason,
        /// Tokens used in all.
        usage: TokenUsage,
    },
}

/// What kind of failure, for the answer's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InferenceErrorKind {
    /// No such model here.
    ModelNotFound,
    /// The request cannot be served by this model.
    InvalidRequest,
    /// Try again later.
    Busy,
    /// The model or device failed.
    Failed,
}

/// A failure of inference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InferenceError {
    /// What kind.
    pub kind: InferenceErrorKind,
    /// Cause and what to do.
    pub message: String,
    /// For `Busy`: when to try again.
    pub retry_after_ms: Option<u64>,
}

/// The GPU nodes as the data plane sees them. Dropping a stream cancels its generation.
pub trait Inference: Send + Sync {
    /// The models that can be used now, in order of name.
    fn models(&self) -> Vec<ModelInfo>;
    /// Whether a model of this name, whichever node has it, is there for a tenant by what was declared.
    fn is_seen_by(&self, model: &str, tenant: &str) -> bool {
        let _ = (model, tenant);
        true
    }
    /// The model that one of this name, whichever node has it, is an adapter over, if it is one: what holds for the base holds for
    /// it, such as a price.
    fn base_of(&self, model: &str) -> Option<String> {
        let _ = model;
        None
    }
    /// The models that are there for a tenant; which of its principals may use them is for its policy to say.
    fn models_of(&self, tenant: &str) -> Vec<ModelInfo> {
        let mut models = self.models();
        models.retain(|model| self.is_seen_by(&model.name, tenant));
        models
    }
    /// Embeds texts.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>>;
    /// Writes down what is said in a recording. Dropping the future cancels it. By default there is nobody who does it.
    fn transcribe(&self, request: TranscribeRequest) -> BoxFuture<'_, Result<Transcript, InferenceError>> {
        let message = format!("PV-MODEL-NOT-FOUND: there is no speech model `{}` here", request.model);
        let error = InferenceError { kind: InferenceErrorKind::ModelNotFound, message, retry_after_ms: None };
        Box::pin(std::future::ready(Err(error)))
    }
    /// Streams a generation; the last event is `End`.
    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>>;
    /// The same for a caller that shows nothing before the end: what was made may be thrown away and made anew elsewhere,
    /// if the node is lost. The text, the calls and the likelihoods come with the end; until then each token is
    /// [`ChatEvent::Silent`].
    fn chat_whole(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        self.chat(request)
    }
    /// What the node behind it says of itself; None: it is no node, or says nothing.
    fn report(&self) -> Option<GpuReport> {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_the_release_before_did_not_know_only_where_it_asks_for_it() {
        let mut request = ChatRequest::greedy("acme", "m", "hi", 1);
        let written = serde_json::to_value(&request).unwrap();
        assert!(written.get("prompt").is_none(), "{written}");
        assert_eq!(serde_json::from_value::<ChatRequest>(written).unwrap(), request);
        request.prompt = Some("once".to_owned());
        let written = serde_json::to_string(&request).unwrap();
        assert!(written.contains(r#""prompt":"once""#), "{written}");
        assert_eq!(serde_json::from_str::<ChatRequest>(&written).unwrap(), request);
    }
}
