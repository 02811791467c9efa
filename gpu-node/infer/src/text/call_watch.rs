//! Calls that a model makes of its own accord, held to the schemas of their functions.
//!
//! The model is free until it begins a call; from there to the end of the call a grammar holds. A call begins with its mark, or
//! with an answer that begins with `{`, as the model's form has it. Tokens that would begin one and go on as none does are not
//! taken, so that no call escapes its grammar.

use std::fmt;

use toktrie::TokEnv;

use super::calls::CallForm;
use super::grammar::Grammar;

/// Waits for calls.
pub(crate) struct CallWatch {
    form: CallForm,
    /// Of a call that has not begun.
    fresh: Grammar,
    vocabulary: TokEnv,
    /// The last bytes of the answer in which a call may have begun.
    recent: Vec<u8>,
    /// A call came before.
    is_further: bool,
    /// The answer is text to its end.
    is_over: bool,
}

/// Where a call begins in some bytes.
enum Begins {
    At(usize),
    /// Not before this place.
    Later(usize),
    /// The answer is none.
    Never,
}

impl CallWatch {
    pub(crate) fn new(form: CallForm, fresh: Grammar, vocabulary: TokEnv) -> Self {
        Self { form, fresh, vocabulary, recent: Vec::new(), is_further: false, is_over: false }
    }

    /// Takes the bytes of a token. A grammar, if a call begins with it: it holds from the next token on.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<Grammar> {
        if self.is_over {
            return None;
        }
        self.recent.extend_from_slice(bytes);
        match self.begins(&self.recent) {
            Begins::At(at) => {
                let begun = self.recent.split_off(at);
                self.recent.clear();
                self.grammar(&begun)
            }
            Begins::Later(at) => {
                self.recent.drain(..at);
                None
            }
            Begins::Never => {
                self.recent.clear();
                self.is_over = true;
                None
            }
        }
    }

    /// Whether the bytes of a token would begin a call and go on as none does.
    pub(crate) fn refuses(&self, bytes: &[u8]) -> bool {
        if self.is_over {
            return false;
        }
        let recent = [self.recent.as_slice(), bytes].concat();
        match self.begins(&recent) {
            Begins::At(at) => self.grammar(&recent[at..]).is_none(),
            Begins::Later(_) | Begins::Never => false,
        }
    }

    /// A call has ended: another one may begin.
    pub(crate) fn resume(&mut self) {
        self.recent.clear();
        self.is_further = true;
    }

    fn begins(&self, recent: &[u8]) -> Begins {
        match self.form {
            CallForm::Tagged => {
                let mark = CallForm::OPEN.as_bytes();
                let at = recent.windows(mark.len()).position(|window| window == mark);
                at.map_or(Begins::Later(recent.len().saturating_sub(mark.len() - 1)), Begins::At)
            }
            CallForm::Json => self.object(recent),
        }
    }

    /// Calls of this form stand at the beginning of an answer, or after another one.
    fn object(&self, recent: &[u8]) -> Begins {
        let mut at = 0;
        for chunk in recent.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '{' => return Begins::At(at),
                    ';' | ',' if self.is_further => {}
                    blank if blank.is_whitespace() => {}
                    _ => return Begins::Never,
                }
                at += character.len_utf8();
            }
            let rest = chunk.invalid();
            if !rest.is_empty() {
                // More bytes may make a blank of it.
                let is_half = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
                let is_last = at + rest.len() == recent.len();
                return if is_half && is_last { Begins::Later(at) } else { Begins::Never };
            }
        }
        Begins::Later(at)
    }

    /// The grammar of a call that has begun so.
    fn grammar(&self, begun: &[u8]) -> Option<Grammar> {
        let mut grammar = self.fresh.again();
        grammar.follow(&self.vocabulary.tok_trie().greedy_tokenize(begun)).then_some(grammar)
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
    use serde_json::json;
    use tokenizers::Tokenizer;

    use super::super::grammar::Grammars;
    use super::super::token_bytes::TokenBytes;
    use super::*;

    /// Token ids are bytes in this vocabulary, and this is its end.
    const END: u32 = 255;

    fn watch(form: CallForm) -> CallWatch {
        let json = include_bytes!("../../tests/fixtures/tiny-chat/tokenizer.json");
        let tokenizer = Tokenizer::from_bytes(json).unwrap();
        let grammars = Grammars::of(&tokenizer, &TokenBytes::of(&tokenizer), &[END]).unwrap();
        let parameters = json!({
            "type": "object", "properties": { "n": { "enum": [42] } }, "required": ["n"], "additionalProperties": false,
        });
        let parameters = parameters.as_object().cloned();
        let function = FunctionTool { name: "f".to_owned(), description: None, parameters, strict: true };
        let tools = ChatTools { functions: vec![function], choice: ToolChoice::Auto, parallel: true };
        grammars.watch("acme", &tools, form).unwrap()
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
        let mut watch = watch(CallForm::Tagged);
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
        // A token may hold more than the mark, if a call goes on so.
        assert!(watch.refuses(b"<tool_call>soon") && watch.refuses(b"<tool_call>{") && !watch.refuses(b"<tool"));
        assert!(!watch.refuses(b"<tool_call>") && !watch.refuses(b"<tool_call>\n{"));
        assert!(watch.take(b"so <tool_call>\n{").is_some());
        assert!(watch.take(b"<tool_call>soon").is_none());
        assert!(watch.take(b" and <tool_call>").is_some());
    }

    #[test]
    fn an_answer_that_begins_with_an_object_is_a_call_in_the_form_that_says_so() {
        let mut watch = self::watch(CallForm::Json);
        // Blanks, one of them in halves.
        for bytes in [&b" \n"[..], &[0xe3][..], &[0x80, 0x80][..]] {
            assert!(watch.take(bytes).is_none());
        }
        assert!(!watch.refuses(b"{") && !watch.refuses(b" {\"na") && !watch.refuses(b"so"));
        assert!(watch.refuses(b"{\n") && watch.refuses(b"{\"parameters"));
        // Twice, with what may stand between calls.
        for text in ["{", ";\n{"] {
            let mut grammar = watch.take(text.as_bytes()).unwrap();
            assert_eq!(said(&mut grammar), "\"name\": \"f\", \"parameters\": {\"n\":42}}");
            watch.resume();
        }
        assert!(watch.take(b"so ").is_none() && watch.take(b"{").is_none() && !watch.refuses(b"{\n"));
        // What is no blank, be it no text at all, makes the answer text.
        for bytes in [&b";"[..], &b"I"[..], &[0xe3, b'{'][..], &[0xff][..]] {
            let mut watch = self::watch(CallForm::Json);
            assert!(watch.take(bytes).is_none() && watch.take(b"{").is_none(), "{bytes:?}");
        }
    }
}
