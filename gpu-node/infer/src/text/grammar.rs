//! Answers that follow a JSON schema: which tokens may come next.
//!
//! A schema becomes a grammar over bytes, and the vocabulary a trie of the bytes of its tokens;
//! walking both tells which tokens keep the answer valid. JSON is written in one line, with at most
//! a space after `:` and `,`: where a schema leaves room for blanks, a model may write nothing else.

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::token_bytes::TokenBytes;
use crate::error::InferError;

/// Largest schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Deepest schema.
const MAX_SCHEMA_DEPTH: usize = 64;
/// All numbers of `multipleOf` in a schema, multiplied: the lexer has as many states, and makes them before anything else
/// can be computed.
const MAX_MULTIPLES: f64 = 1000.0;
/// Longest token that an answer in a grammar may hold; the trie is as deep as the longest one.
const MAX_WORD_BYTES: usize = 256;
/// Bytes of lexer states of one grammar are about twice this many kilobytes, beside the memory that is booked: each answer
/// under way may have them.
const MAX_LEXER_STATES: usize = 10_000;

/// The vocabulary of a model, for grammars.
pub(crate) struct Grammars {
    factory: ParserFactory,
}

/// The state of one answer in its grammar.
pub(crate) struct Grammar {
    matcher: Matcher,
}

impl Grammars {
    /// The vocabulary of a tokenizer. None: its tokens are not plain bytes, or it has no end.
    pub(crate) fn of(tokenizer: &Tokenizer, bytes: &TokenBytes, end_tokens: &[u32]) -> Option<Self> {
        if !bytes.are_plain() {
            return None;
        }
        let size = tokenizer.get_vocab(true).into_values().max()?.checked_add(1)?;
        let ends: Vec<u32> = end_tokens.iter().copied().filter(|end| *end < size).collect();
        let mut words: Vec<Vec<u8>> = (0..size).map(|id| bytes.word(tokenizer, id)).collect();
        words.iter_mut().filter(|word| word.len() > MAX_WORD_BYTES).for_each(Vec::clear);
        let trie = TokTrie::from(&TokRxInfo::new(size, *ends.first()?), &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = match ParserFactory::new_simple(&environment) {
            Ok(factory) => factory,
            Err(cause) => {
                tracing::warn!(%cause, "a vocabulary cannot be used with grammars");
                return None;
            }
        };
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_lexer_states = MAX_LEXER_STATES;
        // Callers see the message; the grammar itself would be long and means nothing to them.
        limits.verbose_errors = false;
        Some(Self { factory })
    }

    /// The grammar of a JSON schema.
    pub(crate) fn of_schema(&self, schema: &str) -> Result<Grammar, InferError> {
        let refused = |cause: &dyn fmt::Display| {
            InferError::Request(format!("the JSON schema of the answer cannot be followed: {cause}"))
        };
        if schema.len() > MAX_SCHEMA_BYTES {
            return Err(refused(&format_args!("it has {} bytes, at most {MAX_SCHEMA_BYTES} are taken", schema.len())));
        }
        let mut schema: Value = serde_json::from_str(schema).map_err(|cause| refused(&cause))?;
        if depth(&schema) > MAX_SCHEMA_DEPTH {
            return Err(refused(&format_args!("it is nested deeper than {MAX_SCHEMA_DEPTH}")));
        }
        if multiples(&schema) > MAX_MULTIPLES {
            return Err(refused(&format_args!("its `multipleOf` make more than {MAX_MULTIPLES} when multiplied")));
        }
        let Some(object) = schema.as_object_mut() else {
            return Err(refused(&"it is not an object"));
        };
        object.insert(
            "x-guidance".to_owned(),
            json!({ "whitespace_flexible": false, "key_separator": ": ?", "item_separator": ", ?" }),
        );
        let matcher = Matcher::new(self.factory.create_parser(TopLevelGrammar::from_json_schema(schema)));
        match matcher.get_error() {
            // The first line says what; what follows is the library's own trace.
            Some(cause) => Err(refused(&cause.lines().next().unwrap_or("it is not valid"))),
            None => Ok(Grammar { matcher }),
        }
    }
}

impl Grammar {
    /// Sets the logits of all tokens that would break the grammar to minus infinity.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<(), InferError> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|cause| lost(&cause))?;
        for (token, logit) in logits.iter_mut().enumerate() {
            if token >= allowed.len() || !allowed.get(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Takes the token that was made. True: the answer is complete.
    pub(crate) fn take(&mut self, token: u32) -> Result<bool, InferError> {
        self.matcher.consume_token(token).map_err(|cause| lost(&cause))?;
        Ok(self.matcher.is_stopped())
    }
}

fn lost(cause: &dyn fmt::Display) -> InferError {
    let cause = cause.to_string();
    tracing::warn!(%cause, "an answer has left its grammar");
    let cause = cause.lines().next().unwrap_or_default();
    InferError::Request(format!("the answer cannot go on in the JSON schema: {cause}; simplify the schema"))
}

/// The digits of each `multipleOf`, as a number, multiplied.
fn multiples(value: &Value) -> f64 {
    match value {
        Value::Array(items) => items.iter().map(multiples).product(),
        Value::Object(fields) => {
            let own = fields.get("multipleOf").filter(|number| number.is_number()).map_or(1.0, |number| {
                let digits: String = number.to_string().chars().filter(char::is_ascii_digit).collect();
                digits.parse::<f64>().unwrap_or(f64::INFINITY).max(1.0)
            });
            own * fields.values().map(multiples).product::<f64>()
        }
        _ => 1.0,
    }
}

fn depth(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}
