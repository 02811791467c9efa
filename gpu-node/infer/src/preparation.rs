//! What is done for a chat before the device has to do with it: its prompt is written and tokenized, and the grammar of its
//! answer is compiled. It needs the text side of a model and not its weights, takes time, and may be done on any thread.

use std::sync::Arc;

use provost_types::ChatRequest;

use crate::error::InferError;
use crate::logprobs;
use crate::sampler::Sampling;
use crate::text::{CallReader, CallWatch, ChatText, Emitter, Grammar};

/// Most messages of one conversation.
const MAX_MESSAGES: usize = 4096;

/// A chat that was read and checked; [`ChatModel::begin`](crate::ChatModel::begin) makes an answer of it.
#[derive(Debug)]
pub struct ChatPreparation {
    pub(crate) side: Arc<ChatText>,
    pub(crate) scope: String,
    pub(crate) prompt: Vec<u32>,
    pub(crate) max_tokens: u32,
    pub(crate) sampling: Sampling,
    pub(crate) grammar: Option<Grammar>,
    pub(crate) emitter: Emitter,
    pub(crate) calls: Option<CallReader>,
    pub(crate) watch: Option<CallWatch>,
    pub(crate) alternatives: Option<usize>,
}

impl ChatPreparation {
    /// Prepares a request to a model that reads at most `context` tokens.
    ///
    /// # Errors
    /// [`InferError::Request`] when the request is out of range or does not fit the context.
    pub fn of(text: &Arc<ChatText>, request: &ChatRequest, context: usize) -> Result<Self, InferError> {
        check_messages(request)?;
        if request.max_tokens == 0 {
            return Err(InferError::Request("max_tokens is 0, must be at least 1".to_owned()));
        }
        let sampling = Sampling::of(request)?;
        let emitter = Emitter::new(&request.stop)?;
        let emitter = if request.prompt.is_some() { emitter.going_on() } else { emitter };
        let alternatives = logprobs::checked(request.logprobs)?;
        let tools = request.tools.as_ref();
        if tools.is_some() && (request.schema.is_some() || alternatives.is_some()) {
            return Err(InferError::Request("tools exclude a JSON schema of the answer and logprobs".to_owned()));
        }
        let calls = tools.map(|tools| text.call_reader(tools)).transpose()?;
        let functions = tools.map(|tools| tools.functions.as_slice()).unwrap_or_default();
        let prompt = match &request.prompt {
            Some(given) => text.plain_prompt(given)?,
            None => text.prompt_with(&request.messages, functions)?,
        };
        if prompt.is_empty() {
            return Err(InferError::Request("the prompt has no tokens".to_owned()));
        }
        room(&prompt, context)?;
        // Last: it costs the most.
        let scope = request.tenant.as_str();
        let grammar = match (&request.schema, tools) {
            (Some(schema), _) => Some(text.grammar(scope, schema)?),
            (None, Some(tools)) => text.call_grammar(scope, tools)?,
            (None, None) => None,
        };
        let watch = tools.map(|tools| text.call_watch(scope, tools)).transpose()?.flatten();
        Ok(Self {
            side: Arc::clone(text),
            scope: request.tenant.clone(),
            prompt,
            max_tokens: request.max_tokens,
            sampling,
            grammar,
            emitter,
            calls,
            watch,
            alternatives,
        })
    }
}

/// Tokens that a context leaves to the answer.
pub(crate) fn room(prompt: &[u32], context: usize) -> Result<usize, InferError> {
    match context.saturating_sub(prompt.len()) {
        0 => Err(InferError::Request(format!(
            "the conversation has {} tokens, which leaves no room in the model's context of {context}; shorten it",
            prompt.len()
        ))),
        room => Ok(room),
    }
}

fn check_messages(request: &ChatRequest) -> Result<(), InferError> {
    if request.prompt.is_some() {
        return match request.messages.is_empty() && request.tools.is_none() {
            true => Ok(()),
            false => Err(InferError::Request("a prompt excludes messages and tools".to_owned())),
        };
    }
    let count = request.messages.len();
    if count == 0 || count > MAX_MESSAGES {
        return Err(InferError::Request(format!("{count} messages, must be 1 to {MAX_MESSAGES}")));
    }
    let known = ["system", "developer", "user", "assistant", "tool"];
    match request.messages.iter().find(|message| !known.contains(&message.role.as_str())) {
        None => Ok(()),
        Some(message) => {
            Err(InferError::Request(format!("role `{}` is not known; known: {}", message.role, known.join(", "))))
        }
    }
}
