//! Tokenizer, template and end tokens of a chat model.

use std::sync::OnceLock;

use provost_types::{ChatMessage, ChatTools, FunctionTool, ToolChoice};
use tokenizers::Tokenizer;

use super::call_watch::CallWatch;
use super::calls::{CallForm, CallReader};
use super::grammar::{Grammar, Grammars};
use super::template::ChatTemplate;
use super::token_bytes::TokenBytes;
use crate::error::InferError;

/// The text side of a chat model.
#[derive(Debug)]
pub struct ChatText {
    tokenizer: Tokenizer,
    bytes: TokenBytes,
    template: ChatTemplate,
    end_tokens: Vec<u32>,
    /// Made with the first request that needs it.
    grammars: OnceLock<Option<Grammars>>,
}

impl ChatText {
    /// Joins the parts. Padding and truncation that a tokenizer file may ask for are turned off:
    /// a prompt is never cut silently.
    pub(crate) fn new(mut tokenizer: Tokenizer, template: ChatTemplate, mut end_tokens: Vec<u32>) -> Self {
        tokenizer.with_padding(None);
        // Removing truncation cannot fail; setting one could.
        let _ = tokenizer.with_truncation(None);
        end_tokens.sort_unstable();
        end_tokens.dedup();
        Self { bytes: TokenBytes::of(&tokenizer), tokenizer, template, end_tokens, grammars: OnceLock::new() }
    }

    /// The tokens of a conversation, up to where the model's answer begins.
    ///
    /// # Errors
    /// [`InferError::Request`] when the template refuses the conversation.
    pub fn prompt(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, InferError> {
        self.prompt_with(messages, &[])
    }

    /// The same, and tells the model of functions that it may call.
    ///
    /// # Errors
    /// As [`ChatText::prompt`].
    pub fn prompt_with(&self, messages: &[ChatMessage], tools: &[FunctionTool]) -> Result<Vec<u32>, InferError> {
        self.encode(&self.template.render(messages, tools)?)
    }

    /// The texts of a conversation that ends with an answer: up to where the answer begins, and all of it.
    ///
    /// # Errors
    /// [`InferError::Request`] when the template refuses the conversation.
    pub(crate) fn texts(&self, messages: &[ChatMessage]) -> Result<(String, String), InferError> {
        let before = messages.split_last().map_or(messages, |(_, before)| before);
        Ok((self.template.render(before, &[])?, self.template.render_whole(messages)?))
    }

    /// The tokens of a text; templates write their own special tokens, so none are added.
    ///
    /// # Errors
    /// [`InferError::Request`] when the tokenizer cannot express it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, InferError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| InferError::Request(format!("the text cannot be tokenized: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The grammar of answers that follow a JSON schema.
    pub(crate) fn grammar(&self, schema: &str) -> Result<Grammar, InferError> {
        self.grammars()?.of_schema(schema)
    }

    /// The grammar of answers that are calls. None: the model is free to call or not.
    pub(crate) fn call_grammar(&self, tools: &ChatTools) -> Result<Option<Grammar>, InferError> {
        if tools.choice == ToolChoice::Auto {
            return Ok(None);
        }
        self.grammars()?.of_tools(tools, self.template.call_form()?).map(Some)
    }

    /// What holds the calls of a free model to the schemas of strict functions. None: none is strict, or its calls have no mark.
    pub(crate) fn call_watch(&self, tools: &ChatTools) -> Result<Option<CallWatch>, InferError> {
        let form = self.template.call_form()?;
        let is_strict = tools.functions.iter().any(|function| function.strict);
        if tools.choice != ToolChoice::Auto || form != CallForm::Tagged || !is_strict {
            return Ok(None);
        }
        self.grammars()?.watch(tools, form).map(Some)
    }

    /// What takes calls out of an answer.
    pub(crate) fn call_reader(&self, tools: &ChatTools) -> Result<CallReader, InferError> {
        Ok(CallReader::new(self.template.call_form()?, tools))
    }

    fn grammars(&self) -> Result<&Grammars, InferError> {
        let grammars = self.grammars.get_or_init(|| Grammars::of(&self.tokenizer, &self.bytes, &self.end_tokens));
        grammars.as_ref().ok_or_else(|| {
            InferError::Request(
                "this model's vocabulary cannot be held to a JSON schema; ask without one, and with `tool_choice: auto`, \
                 or use another model"
                    .to_owned(),
            )
        })
    }

    /// Whether a token ends the answer.
    pub fn ends(&self, token: u32) -> bool {
        self.end_tokens.binary_search(&token).is_ok()
    }

    pub(crate) fn bytes(&self) -> &TokenBytes {
        &self.bytes
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}
