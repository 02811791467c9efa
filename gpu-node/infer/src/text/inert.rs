//! What callers write stays text, whatever it spells.
//!
//! A tokenizer finds special tokens by their spelling, wherever it stands, and a template joins its own with the texts of a
//! conversation. So texts are marked before the template runs, wherever a spelling could begin or end; a spelling in what comes
//! out is the template's own if no mark lies in it. All others are cut in two, and the parts are tokenized apart: of the
//! conversation's structure there is what the template wrote, and nothing else.
//!
//! Marks follow characters that templates do not look for at the ends of texts, and only those that spellings begin or end with;
//! a template sees all else as it is. What the assistant said keeps plain tags such as `<think>`, which templates look for in it
//! and which are no special tokens.
//! Left out: a template that itself writes brackets around a bare word of a text.

use std::collections::BTreeSet;

use aho_corasick::AhoCorasick;
use provost_types::{ChatMessage, FunctionCall, FunctionTool};
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{FileContext, InferError};

/// Follows a character of a caller's that a spelling may begin or end with. Unicode keeps it for uses inside a program: no text
/// has it, and where one does it is replaced.
const MARK: char = '\u{fdd0}';
/// Longest name of a plain tag, in bytes.
const MAX_TAG_BYTES: usize = 32;

/// The tokens of a vocabulary that texts must not become.
#[derive(Debug)]
pub(crate) struct Inert {
    spellings: Vec<String>,
    finder: AhoCorasick,
    /// What spellings begin or end with.
    ends: BTreeSet<char>,
    /// Spellings of a single character, which cannot be cut in two.
    singles: BTreeSet<char>,
    /// Tags that are special tokens.
    special_tags: BTreeSet<String>,
}

/// What a template wrote, without marks.
#[derive(Debug)]
pub(crate) struct Rendered {
    text: String,
    /// Where it is cut, in order.
    cuts: Vec<usize>,
}

impl Inert {
    /// Those of a tokenizer. It is changed to find them by their spelling alone: a text that only becomes one when it is
    /// normalized would not be seen here.
    pub(crate) fn of(tokenizer: &mut Tokenizer, at: &FileContext) -> Result<Self, InferError> {
        let tokens: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().filter(is_structure).collect();
        let normalized: Vec<AddedToken> = tokens.iter().filter(|token| token.normalized).cloned().collect();
        if !normalized.is_empty() {
            let plain = normalized.into_iter().map(|token| token.normalized(false));
            tokenizer.add_tokens(plain).map_err(|cause| at.malformed(cause))?;
        }
        let (mut spellings, mut singles, mut ends) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut special_tags = BTreeSet::new();
        for AddedToken { content, special, .. } in tokens {
            let mut characters = content.trim().chars();
            let Some(first) = characters.next() else { continue };
            ends.insert(first);
            match characters.next_back() {
                Some(last) => ends.insert(last),
                None => singles.insert(first),
            };
            if special {
                special_tags.insert(content.clone());
            }
            spellings.push(content);
        }
        let finder = AhoCorasick::new(&spellings).map_err(|cause| at.malformed(cause))?;
        Ok(Self { spellings, finder, ends, singles, special_tags })
    }

    /// A message, its texts marked.
    pub(crate) fn message(&self, message: &ChatMessage) -> ChatMessage {
        let keeps_tags = message.role == "assistant";
        let call = |call: &FunctionCall| FunctionCall {
            id: self.marked(&call.id, false),
            name: self.marked(&call.name, false),
            arguments: self.members(&call.arguments),
        };
        ChatMessage {
            role: message.role.clone(),
            content: self.marked(&message.content, keeps_tags),
            calls: message.calls.iter().map(call).collect(),
            call_id: message.call_id.as_deref().map(|id| self.marked(id, false)),
        }
    }

    /// A function, its texts marked.
    pub(crate) fn function(&self, function: &FunctionTool) -> FunctionTool {
        FunctionTool {
            name: self.marked(&function.name, false),
            description: function.description.as_deref().map(|text| self.marked(text, false)),
            parameters: function.parameters.as_ref().map(|schema| self.members(schema)),
            strict: function.strict,
        }
    }

    /// A text that no template gets, marked.
    pub(crate) fn text(&self, text: &str) -> String {
        self.marked(text, false)
    }

    /// What came out of a template that got marked texts.
    pub(crate) fn rendered(&self, marked: &str) -> Rendered {
        let mut text = String::with_capacity(marked.len());
        // Where the characters end that are callers'.
        let mut theirs = Vec::new();
        let mut pieces = marked.split(MARK).peekable();
        while let Some(piece) = pieces.next() {
            text.push_str(piece);
            if pieces.peek().is_some() {
                theirs.push(text.len());
            }
        }
        let mut cuts = BTreeSet::new();
        for found in self.finder.find_overlapping_iter(&text) {
            let next = theirs.partition_point(|end| *end <= found.start());
            let Some(end) = theirs.get(next).copied().filter(|end| *end <= found.end()) else { continue };
            let begin = text[..end].char_indices().next_back().map_or(end, |(at, _)| at);
            cuts.insert(if end < found.end() { end } else { begin });
        }
        Rendered { text, cuts: cuts.into_iter().collect() }
    }

    /// An error about marked texts, as callers may see it.
    pub(crate) fn unmarked(error: InferError) -> InferError {
        match error {
            InferError::Request(text) => InferError::Request(text.replace(MARK, "")),
            other => other,
        }
    }

    fn members(&self, members: &Map<String, Value>) -> Map<String, Value> {
        members.iter().map(|(name, value)| (self.marked(name, false), self.value(value))).collect()
    }

    /// JSON has a bound on its depth where it is read.
    fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.marked(text, false)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(members) => Value::Object(self.members(members)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn marked(&self, text: &str, keeps_tags: bool) -> String {
        // All of it may be the inside of a spelling, of which the template writes the ends.
        let is_inside = self.is_inside(text.trim());
        let mut marked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let tag = if keeps_tags { self.plain_tag(rest) } else { 0 };
            if tag > 0 {
                marked.push_str(&rest[..tag]);
                rest = &rest[tag..];
                continue;
            }
            rest = &rest[character.len_utf8()..];
            if character == MARK || self.singles.contains(&character) {
                marked.push(char::REPLACEMENT_CHARACTER);
                continue;
            }
            marked.push(character);
            if self.ends.contains(&character) || (is_inside && !character.is_whitespace()) {
                marked.push(MARK);
            }
        }
        marked
    }

    /// True for `|end|`. Plain words, which schemas are full of, are none: templates compare them.
    fn is_inside(&self, text: &str) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || c.is_whitespace() || matches!(c, '_' | '-');
        !text.chars().all(is_word) && self.spellings.iter().any(|spelling| spelling.contains(text))
    }

    /// Bytes of the tag that a text begins with, if it is no special token; 0 for none.
    fn plain_tag(&self, text: &str) -> usize {
        let Some(inner) = text.strip_prefix('<') else { return 0 };
        let name = inner.strip_prefix('/').unwrap_or(inner);
        let is_name = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
        let bytes = name.bytes().take(MAX_TAG_BYTES).take_while(is_name).count();
        if bytes == 0 || !name[bytes..].starts_with('>') {
            return 0;
        }
        let length = text.len() - name.len() + bytes + 1;
        if self.special_tags.contains(&text[..length]) { 0 } else { length }
    }
}

impl Rendered {
    /// The parts to be tokenized apart.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(0).chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain(std::iter::once(self.text.len()));
        begins.zip(ends).map(move |(begin, end)| &self.text[begin..end])
    }
}

/// Whether a token is more than a word: special, or written in brackets, as those are that models mark calls and thoughts with.
fn is_structure(token: &AddedToken) -> bool {
    let text = token.content.trim();
    let within = |open: char, close: char| text.len() > 1 && text.starts_with(open) && text.ends_with(close);
    !text.is_empty() && (token.special || within('<', '>') || within('[', ']'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
