//! Tokenizer, template and end tokens of a chat model.

use std::sync::OnceLock;

use provost_types::{ChatMessage, ChatTools, FunctionTool, ToolChoice};
use tokenizers::Tokenizer;

use super::call_watch::CallWatch;
use super::calls::CallReader;
use super::grammar::{Grammar, Grammars};
use super::inert::Inert;
use super::template::ChatTemplate;
use super::token_bytes::TokenBytes;
use crate::error::{FileContext, InferError};

/// How vocabularies of pieces write a blank.
const BLANK_CHARACTER: char = '\u{2581}';
const BLANK: &str = "\u{2581}";

/// The text side of a chat model.
#[derive(Debug)]
pub struct ChatText {
    tokenizer: Tokenizer,
    bytes: TokenBytes,
    template: ChatTemplate,
    inert: Inert,
    /// The token of a blank that vocabularies of pieces put before each text that they are given.
    blank: Option<u32>,
    end_tokens: Vec<u32>,
    /// What the tokenizer puts before a text that no template writes.
    begins: Vec<u32>,
    /// Made with the first request that needs it.
    grammars: OnceLock<Option<Grammars>>,
}

impl ChatText {
    /// Joins the parts. Padding and truncation that a tokenizer file may ask for are turned off:
    /// a prompt is never cut silently.
    pub(crate) fn new(
        mut tokenizer: Tokenizer,
        template: ChatTemplate,
        mut end_tokens: Vec<u32>,
        at: &FileContext,
    ) -> Result<Self, InferError> {
        tokenizer.with_padding(None);
        // Removing truncation cannot fail; setting one could.
        let _ = tokenizer.with_truncation(None);
        end_tokens.sort_unstable();
        end_tokens.dedup();
        let inert = Inert::of(&mut tokenizer, at)?;
        let bytes = TokenBytes::of(&tokenizer);
        let blank = tokenizer.token_to_id(BLANK);
        let empty = tokenizer.encode_fast("", true).map_err(|cause| at.malformed(cause))?;
        let begins = empty.get_ids().iter().copied().filter(|token| !end_tokens.contains(token)).collect();
        Ok(Self { tokenizer, bytes, template, inert, blank, end_tokens, begins, grammars: OnceLock::new() })
    }

    /// The same, of a file that says in another way what a text begins with.
    #[must_use]
    pub(crate) fn beginning_with(self, begins: Vec<u32>) -> Self {
        Self { begins, ..self }
    }

    /// The tokens of a conversation, up to where the model's answer begins. What texts spell stays text: special tokens are those
    /// that the template writes.
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
        let messages: Vec<ChatMessage> = messages.iter().map(|message| self.inert.message(message)).collect();
        let tools: Vec<FunctionTool> = tools.iter().map(|tool| self.inert.function(tool)).collect();
        let marked = self.template.render(&messages, &tools).map_err(Inert::unmarked)?;
        self.tokens(&marked)
    }

    /// The tokens of a text that the model goes on with: no template writes it, and what it spells stays text.
    ///
    /// # Errors
    /// [`InferError::Request`] when the tokenizer cannot express it.
    pub fn plain_prompt(&self, text: &str) -> Result<Vec<u32>, InferError> {
        let mut tokens = self.begins.clone();
        tokens.append(&mut self.tokens(&self.inert.text(text))?);
        Ok(tokens)
    }

    /// The tokens of what the template made of marked texts.
    pub(crate) fn tokens(&self, marked: &str) -> Result<Vec<u32>, InferError> {
        let mut tokens = Vec::new();
        for (n, part) in self.inert.rendered(marked).parts().enumerate() {
            let mut more = self.encode(part)?;
            // A part that goes on begins with no blank of its own.
            let is_blank = self.blank.is_some() && more.first().copied() == self.blank;
            if n > 0 && is_blank && !part.starts_with([' ', BLANK_CHARACTER]) {
                more.remove(0);
            }
            tokens.append(&mut more);
        }
        Ok(tokens)
    }

    /// The marked texts of a conversation that ends with an answer: up to where the answer begins, and all of it.
    ///
    /// # Errors
    /// [`InferError::Request`] when the template refuses the conversation.
    pub(crate) fn texts(&self, messages: &[ChatMessage]) -> Result<(String, String), InferError> {
        let messages: Vec<ChatMessage> = messages.iter().map(|message| self.inert.message(message)).collect();
        let before = messages.split_last().map_or(messages.as_slice(), |(_, before)| before);
        let before = self.template.render(before, &[]).map_err(Inert::unmarked)?;
        Ok((before, self.template.render_whole(&messages).map_err(Inert::unmarked)?))
    }

    /// The tokens of a text, special ones where it spells them; templates write their own special tokens, so none are added.
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

    /// The grammar of answers that follow a JSON schema, for a tenant.
    pub(crate) fn grammar(&self, scope: &str, schema: &str) -> Result<Grammar, InferError> {
        self.grammars()?.of_schema(scope, schema)
    }

    /// The grammar of answers that are calls. None: the model is free to call or not.
    pub(crate) fn call_grammar(&self, scope: &str, tools: &ChatTools) -> Result<Option<Grammar>, InferError> {
        if tools.choice == ToolChoice::Auto {
            return Ok(None);
        }
        self.grammars()?.of_tools(scope, tools, self.template.call_form()?).map(Some)
    }

    /// What holds the calls of a free model to the schemas of strict functions. None: none is strict.
    pub(crate) fn call_watch(&self, scope: &str, tools: &ChatTools) -> Result<Option<CallWatch>, InferError> {
        let form = self.template.call_form()?;
        let is_strict = tools.functions.iter().any(|function| function.strict);
        if tools.choice != ToolChoice::Auto || !is_strict {
            return Ok(None);
        }
        self.grammars()?.watch(scope, tools, form).map(Some)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_cut_gets_no_blanks() {
        let document = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
            {"id": 4, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
            "normalizer": {"type": "Prepend", "prepend": "\u2581"}, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"\u2581": 0, "<": 1, "s": 2, ">": 3, "<s>": 4}, "merges": []}}"#;
        let tokenizer = Tokenizer::from_bytes(document).unwrap();
        let at = FileContext::new("m", "chat_template.jinja");
        let source = "{{ bos_token }}{{ messages[0].content }}".to_owned();
        let template = ChatTemplate::new(source, "<s>".to_owned(), String::new(), &at).unwrap();
        let text = ChatText::new(tokenizer, template, Vec::new(), &at).unwrap();
        let prompt = text.prompt(&[ChatMessage::new("user", "s<s><s>")]).unwrap();
        // The template's, and then each character once.
        assert_eq!(prompt, [4, 0, 2, 1, 2, 3, 1, 2, 3]);
        // Nothing is put before a text here, but where the file says so.
        assert_eq!(text.plain_prompt("s<s>").unwrap(), [0, 2, 1, 2, 3]);
        assert_eq!(text.beginning_with(vec![4]).plain_prompt("s<s>").unwrap(), [4, 0, 2, 1, 2, 3]);
    }
}
