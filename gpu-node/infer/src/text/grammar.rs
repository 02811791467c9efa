//! Answers that follow JSON schemas: which tokens may come next.
//!
//! A schema, or the calls of functions that an answer consists of, becomes a grammar over bytes, and the vocabulary a trie
//! of the bytes of its tokens; walking both tells which tokens keep the answer valid. JSON is written in one line, with at
//! most a space after `:` and `,`: where a schema leaves room for blanks, a model may write nothing else.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use provost_types::{ChatTools, FunctionTool, ToolChoice};
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::call_watch::CallWatch;
use super::calls::CallForm;
use super::grammar_cache::{GrammarCache, digest};
use super::token_bytes::TokenBytes;
use crate::error::InferError;

/// Largest schema, or all of them where there are several, in bytes.
const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Deepest schema.
const MAX_SCHEMA_DEPTH: usize = 64;
/// All numbers of `multipleOf` in the schemas of an answer, multiplied: the lexer has as many states, and makes them before anything else
/// can be computed.
const MAX_MULTIPLES: f64 = 1000.0;
/// Most tokens of a vocabulary, several times those of the largest models.
const MAX_VOCABULARY: u32 = 1 << 22;
/// Longest token that an answer in a grammar may hold; the trie is as deep as the longest one.
const MAX_WORD_BYTES: usize = 256;
/// Bytes of lexer states of one grammar are about twice this many kilobytes, beside the memory that is booked: each answer
/// under way may have them.
const MAX_LEXER_STATES: usize = 10_000;

/// The vocabulary of a model, for grammars.
pub(crate) struct Grammars {
    factory: ParserFactory,
    /// As they were when they were compiled.
    compiled: Mutex<GrammarCache<Grammar>>,
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
        // A file may have any number as the one of a token.
        let size =
            tokenizer.get_vocab(true).into_values().max()?.checked_add(1).filter(|size| *size <= MAX_VOCABULARY)?;
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
        Some(Self { factory, compiled: Mutex::default() })
    }

    /// The grammar of a JSON schema, for a tenant.
    pub(crate) fn of_schema(&self, scope: &str, schema: &str) -> Result<Grammar, InferError> {
        let mut costs = Costs::of("the answer");
        costs.add_bytes(schema.len())?;
        let schema: Value = serde_json::from_str(schema).map_err(|cause| costs.refused(&cause))?;
        costs.add(&schema)?;
        let Value::Object(schema) = schema else {
            return Err(costs.refused(&"it is not an object"));
        };
        self.compiled(scope, TopLevelGrammar::from_json_schema(in_one_line(schema)), &costs)
    }

    /// The grammar of an answer that is calls of the functions that are asked for, and nothing else; of one call, where none is.
    pub(crate) fn of_tools(&self, scope: &str, tools: &ChatTools, form: CallForm) -> Result<Grammar, InferError> {
        let wanted = |function: &&FunctionTool| match &tools.choice {
            ToolChoice::Auto | ToolChoice::Required => true,
            ToolChoice::Function(name) => function.name == *name,
        };
        let functions: Vec<&FunctionTool> = tools.functions.iter().filter(wanted).collect();
        if functions.is_empty() {
            return Err(InferError::Request("no function is offered that may be called".to_owned()));
        }
        let several = tools.parallel && tools.choice == ToolChoice::Required;
        let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
        let mut grammars = vec![GrammarWithLexer::from_lark(form.grammar(&names, several))];
        let mut costs = Costs::of("a function's arguments");
        for (function, name) in functions.iter().zip(CallForm::argument_grammars()) {
            costs.of = format!("the arguments of `{}`", function.name);
            let is_free = tools.choice == ToolChoice::Auto && !function.strict;
            let schema = if is_free { any_object() } else { arguments_schema(function, &costs)? };
            costs.add_bytes(Value::Object(schema.clone()).to_string().len())?;
            costs.add(&Value::Object(schema.clone()))?;
            let json_schema = Some(in_one_line(schema));
            grammars.push(GrammarWithLexer { name: Some(name), json_schema, lark_grammar: None });
        }
        if functions.len() > 1 {
            costs.of = "the functions' arguments".to_owned();
        }
        self.compiled(scope, TopLevelGrammar { grammars, max_tokens: None }, &costs)
    }

    /// Holds the calls that a free model makes to the schemas of the functions that are strict.
    pub(crate) fn watch(&self, scope: &str, tools: &ChatTools, form: CallForm) -> Result<CallWatch, InferError> {
        Ok(CallWatch::new(form, self.of_tools(scope, tools, form)?, self.factory.tok_env().clone()))
    }

    /// Compiles a grammar, unless that was done for the tenant before.
    fn compiled(&self, scope: &str, grammar: TopLevelGrammar, costs: &Costs) -> Result<Grammar, InferError> {
        let source = serde_json::to_vec(&grammar).map_err(|cause| costs.refused(&cause))?;
        let digest = digest(scope, &source);
        if let Some(known) = self.cache().find(&digest) {
            return Ok(known.apart());
        }
        // Without the lock: it takes long.
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        if let Some(cause) = matcher.get_error() {
            // The first line says what; what follows is the library's own trace.
            return Err(costs.refused(&cause.lines().next().unwrap_or("it is not valid")));
        }
        let grammar = Grammar { matcher };
        self.cache().keep(digest, source.len(), grammar.apart());
        Ok(grammar)
    }

    fn cache(&self) -> MutexGuard<'_, GrammarCache<Grammar>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the schemas of one answer cost to follow.
struct Costs {
    /// What is being added.
    of: String,
    bytes: usize,
    multiples: f64,
}

impl Costs {
    fn of(what: &str) -> Self {
        Self { of: what.to_owned(), bytes: 0, multiples: 1.0 }
    }

    fn refused(&self, cause: &dyn fmt::Display) -> InferError {
        InferError::Request(format!("the JSON schema of {} cannot be followed: {cause}", self.of))
    }

    fn add_bytes(&mut self, bytes: usize) -> Result<(), InferError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_SCHEMA_BYTES {
            let bytes = self.bytes;
            return Err(
                self.refused(&format_args!("there are {bytes} bytes of schemas, at most {MAX_SCHEMA_BYTES} are taken"))
            );
        }
        Ok(())
    }

    fn add(&mut self, schema: &Value) -> Result<(), InferError> {
        if depth(schema) > MAX_SCHEMA_DEPTH {
            return Err(self.refused(&format_args!("it is nested deeper than {MAX_SCHEMA_DEPTH}")));
        }
        self.multiples *= multiples(schema);
        if self.multiples > MAX_MULTIPLES {
            return Err(self.refused(&format_args!("its `multipleOf` make more than {MAX_MULTIPLES} when multiplied")));
        }
        Ok(())
    }
}

fn any_object() -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), Value::from("object"))])
}

/// The schema of a function's arguments, which are an object whatever else it says.
fn arguments_schema(function: &FunctionTool, costs: &Costs) -> Result<Map<String, Value>, InferError> {
    let Some(mut schema) = function.parameters.clone() else {
        let none = json!({ "type": "object", "properties": {}, "additionalProperties": false });
        return Ok(none.as_object().cloned().unwrap_or_default());
    };
    let kind = schema.entry("type").or_insert_with(|| Value::from("object"));
    if *kind != "object" {
        return Err(costs.refused(&"its `type` is not `object`"));
    }
    Ok(schema)
}

/// The schema with how JSON is to be written.
fn in_one_line(mut schema: Map<String, Value>) -> Value {
    schema.insert(
        "x-guidance".to_owned(),
        json!({ "whitespace_flexible": false, "key_separator": ": ?", "item_separator": ", ?" }),
    );
    Value::Object(schema)
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

    /// The same, with a lexer of its own: it fills as an answer goes on, and has a bound.
    fn apart(&self) -> Self {
        Self { matcher: self.matcher.deep_clone() }
    }

    /// The same, where it stands now.
    pub(crate) fn again(&self) -> Self {
        Self { matcher: self.matcher.clone() }
    }

    /// Takes tokens that were made before. False: they do not follow the grammar.
    pub(crate) fn follow(&mut self, tokens: &[u32]) -> bool {
        self.matcher.consume_tokens(tokens).is_ok()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
