//! Calls that a model makes of its own accord, held to the schemas of their functions.
//!
//! The model is free until it has written the mark of a call; from there to the end of the call a grammar holds.

use std::fmt;

use toktrie::TokEnv;

use super::calls::CallForm;
use super::grammar::Grammar;

/// Waits for the mark.
pub(crate) struct CallWatch {
    /// Of a call that has not begun.
    fresh: Grammar,
    vocabulary: TokEnv,
    /// The last bytes of the answer that may be a part of the mark.
    recent: Vec<u8>,
}

impl CallWatch {
    pub(crate) fn new(fresh: Grammar, vocabulary: TokEnv) -> Self {
        Self { fresh, vocabulary, recent: Vec::new() }
    }

    /// Takes the bytes of a token. A grammar, if a call begins with it: it holds from the next token on. A model that writes
    /// more than the mark in one token, and goes on as nobody does, stays free.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<Grammar> {
        let mark = CallForm::OPEN.as_bytes();
        self.recent.extend_from_slice(bytes);
        let Some(at) = self.recent.windows(mark.len()).position(|window| window == mark) else {
            let past = self.recent.len().saturating_sub(mark.len() - 1);
            self.recent.drain(..past);
            return None;
        };
        let begun = self.recent.split_off(at);
        self.recent.clear();
        let mut grammar = self.fresh.again();
        let follows = grammar.follow(&self.vocabulary.tok_trie().greedy_tokenize(&begun));
        follows.then_some(grammar)
    }
}

impl fmt::Debug for CallWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallWatch").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::{ChatTools, FunctionTool, ToolChoice};
    use serde_json::{Value, json};
    use tokenizers::Tokenizer;

    use super::super::grammar::Grammars;
    use super::super::token_bytes::TokenBytes;
    use super::*;

    /// Token ids are bytes in this vocabulary, and this is its end.
    const END: u32 = 255;

    fn watch(parameters: &Value, strict: bool) -> CallWatch {
        let json = include_bytes!("../../tests/fixtures/tiny-chat/tokenizer.json");
        let tokenizer = Tokenizer::from_bytes(json).unwrap();
        let grammars = Grammars::of(&tokenizer, &TokenBytes::of(&tokenizer), &[END]).unwrap();
        let parameters = parameters.as_object().cloned();
        let function = FunctionTool { name: "f".to_owned(), description: None, parameters, strict };
        let tools = ChatTools { functions: vec![function], choice: ToolChoice::Auto, parallel: true };
        grammars.watch("acme", &tools, CallForm::Tagged).unwrap()
    }

    /// What the grammar lets a model say that takes the first it may, blanks last.
    fn said(grammar: &mut Grammar) -> String {
        let mut said = String::new();
        for _ in 0..200 {
            let mut logits = vec![0.0; 256];
            grammar.mask(&mut logits).unwrap();
            let mut may = (0..256_usize).filter(|token| logits[*token] == 0.0);
            let first = may.next().unwrap();
            let token = if first == usize::from(b' ') { may.next().unwrap_or(first) } else { first };
            said.push(char::from(u8::try_from(token).unwrap()));
            if grammar.take(token as u32).unwrap() {
                return said;
            }
        }
        panic!("no end: {said:?}");
    }

    #[test]
    fn a_call_that_begins_is_held_to_its_schema_until_it_ends() {
        let schema = json!({
            "type": "object", "properties": { "n": { "enum": [42] } }, "required": ["n"], "additionalProperties": false,
        });
        let mut watch = watch(&schema, true);
        for text in ["<tool_call", " <<tool_", "call none", "<tool_", "x"] {
            assert!(text.bytes().all(|byte| watch.take(&[byte]).is_none()), "{text}");
        }
        // Twice: the second call is held as the first one.
        for text in ["Hm. <tool_call>", "<tool_call>"] {
            let (last, before) = text.as_bytes().split_last().unwrap();
            assert!(before.iter().all(|byte| watch.take(&[*byte]).is_none()));
            let mut grammar = watch.take(&[*last]).unwrap();
            assert_eq!(said(&mut grammar), "\n{\"name\": \"f\", \"arguments\": {\"n\":42}}\n</tool_call>");
        }
        // A token may hold more than the mark.
        assert!(watch.take(b"so <tool_call>\n{").is_some());
        assert!(watch.take(b"<tool_call>soon").is_none());
        assert!(watch.take(b" and <tool_call>").is_some());
    }
}
