//! The text side of a speech model: its tokenizer, and which tokens mean what.
//!
//! Texts have the tokens before `<|endoftext|>`, timestamps those behind `<|notimestamps|>`, a position of the encoder
//! apart; what is between is said to the decoder: language, task, and where an earlier text stands.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::Tokenizer;

use super::config::WhisperConfig;
use super::mel::{FRAMES_A_POSITION, FRAMES_A_SECOND};
use crate::error::{FileContext, InferError};

/// Longest prompt, in bytes: more than the model reads of it.
const MAX_PROMPT_BYTES: usize = 16 << 10;
/// The latest step that a window's text begins at where the model does not say it: one second.
const FIRST_TIMESTAMP: u32 = 50;

/// See the module.
#[derive(Debug)]
pub struct SpeechText {
    tokenizer: Tokenizer,
    pub(crate) tokens: Tokens,
    /// By code, such as `en`; none in a model that knows one language.
    languages: BTreeMap<String, u32>,
    pub(crate) suppressed: Vec<u32>,
    pub(crate) suppressed_first: Vec<u32>,
    /// The latest timestamp that a window's text begins with, in steps.
    pub(crate) first_timestamp: u32,
    pub(crate) bins: usize,
    pub(crate) window_frames: usize,
    /// Tokens that the decoder reads in all.
    pub(crate) context: usize,
}

/// Tokens with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) end: u32,
    pub(crate) start: u32,
    pub(crate) transcribe: Option<u32>,
    pub(crate) before: Option<u32>,
    pub(crate) silence: Option<u32>,
    pub(crate) no_timestamps: u32,
    /// That of the beginning of the window; later ones follow.
    pub(crate) timestamps: u32,
}

/// What `generation_config.json` says.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Generation {
    is_multilingual: Option<bool>,
    #[serde(default)]
    lang_to_id: BTreeMap<String, u32>,
    suppress_tokens: Option<Vec<i64>>,
    begin_suppress_tokens: Option<Vec<i64>>,
    max_initial_timestamp_index: Option<u32>,
}

impl SpeechText {
    /// Joins the parts.
    pub(crate) fn new(
        mut tokenizer: Tokenizer,
        config: &WhisperConfig,
        generation: Generation,
        at: &FileContext,
    ) -> Result<Self, InferError> {
        tokenizer.with_padding(None);
        // Removing truncation cannot fail; setting one could.
        let _ = tokenizer.with_truncation(None);
        // What a prompt spells stays text.
        tokenizer.set_encode_special_tokens(true);
        let id = |name: &str| tokenizer.token_to_id(name);
        let needed = |name: &str| id(name).ok_or_else(|| at.malformed(format!("there is no token `{name}`")));
        let no_timestamps = needed("<|notimestamps|>")?;
        let tokens = Tokens {
            end: needed("<|endoftext|>")?,
            start: needed("<|startoftranscript|>")?,
            transcribe: id("<|transcribe|>"),
            before: id("<|startofprev|>"),
            silence: id("<|nospeech|>").or_else(|| id("<|nocaptions|>")),
            no_timestamps,
            timestamps: no_timestamps.saturating_add(1),
        };
        let steps = config.encoder.positions;
        let last = tokens.timestamps as usize + steps;
        if tokens.end >= tokens.start || tokens.start >= no_timestamps || last >= config.vocabulary {
            return Err(at.malformed(format!(
                "its special tokens are not in the order of Whisper, or lie outside the vocabulary of {}",
                config.vocabulary
            )));
        }
        let mut languages = BTreeMap::new();
        if generation.is_multilingual != Some(false) {
            for (name, token) in generation.lang_to_id {
                if token <= tokens.start || token >= no_timestamps {
                    return Err(at.malformed(format!("the language `{name}` has the token {token}")));
                }
                languages.insert(name.trim_matches(['<', '|', '>']).to_owned(), token);
            }
        }
        Ok(Self {
            tokens,
            languages,
            suppressed: known(generation.suppress_tokens, config.vocabulary),
            suppressed_first: known(generation.begin_suppress_tokens, config.vocabulary),
            first_timestamp: generation.max_initial_timestamp_index.unwrap_or(FIRST_TIMESTAMP),
            bins: config.bins,
            window_frames: config.window_frames(),
            context: config.decoder.positions,
            tokenizer,
        })
    }

    /// The token of a language; `None`: the model knows one language only, or has to find out.
    ///
    /// # Errors
    /// [`InferError::Request`] when the model does not know it.
    pub(crate) fn language(&self, code: Option<&str>) -> Result<Option<u32>, InferError> {
        let Some(code) = code else { return Ok(None) };
        if self.languages.is_empty() {
            return match code {
                "en" => Ok(None),
                _ => Err(InferError::Request("the model knows one language; leave `language` out".to_owned())),
            };
        }
        match self.languages.get(code) {
            Some(token) => Ok(Some(*token)),
            None => Err(InferError::Request(
                "the model does not know this `language`; languages are codes such as `en` or `de`".to_owned(),
            )),
        }
    }

    /// The code of a language's token.
    pub(crate) fn code(&self, token: u32) -> Option<&str> {
        self.languages.iter().find(|(_, of)| **of == token).map(|(code, _)| code.as_str())
    }

    /// The tokens of all languages.
    pub(crate) fn languages(&self) -> impl Iterator<Item = u32> {
        self.languages.values().copied()
    }

    /// The tokens of what is said to have come before; of a long one the end.
    ///
    /// # Errors
    /// [`InferError::Request`] when it is too long, or cannot be tokenized.
    pub(crate) fn prompt(&self, prompt: &str) -> Result<Vec<u32>, InferError> {
        let prompt = prompt.trim();
        let (Some(before), false) = (self.tokens.before, prompt.is_empty()) else { return Ok(Vec::new()) };
        if prompt.len() > MAX_PROMPT_BYTES {
            return Err(InferError::Request(format!(
                "the prompt has {} bytes, may have {MAX_PROMPT_BYTES}",
                prompt.len()
            )));
        }
        let encoding = self
            .tokenizer
            .encode_fast(format!(" {prompt}"), false)
            .map_err(|error| InferError::Request(format!("the prompt cannot be tokenized: {error}")))?;
        // Some tokenizers take the spelling of a time for one, which would say something here.
        let ids: Vec<u32> = encoding.get_ids().iter().copied().filter(|token| self.is_text(*token)).collect();
        // Half of the context is for what is written.
        let most = (self.context / 2).saturating_sub(1);
        let kept = ids.get(ids.len().saturating_sub(most)..).unwrap_or_default();
        Ok(std::iter::once(before).chain(kept.iter().copied()).collect())
    }

    /// The text of tokens; those that are none of a text are left out.
    ///
    /// # Errors
    /// [`InferError::Failed`] when the tokenizer cannot read its own tokens.
    pub(crate) fn text(&self, tokens: &[u32]) -> Result<String, InferError> {
        let plain: Vec<u32> = tokens.iter().copied().filter(|token| self.is_text(*token)).collect();
        self.tokenizer
            .decode(&plain, false)
            .map_err(|error| InferError::Failed(format!("tokens cannot be read as text: {error}")))
    }

    pub(crate) fn is_text(&self, token: u32) -> bool {
        token < self.tokens.end
    }

    /// The step of a timestamp.
    pub(crate) fn step(&self, token: u32) -> Option<usize> {
        token.checked_sub(self.tokens.timestamps).map(|step| step as usize)
    }

    /// The step of the end of a window.
    pub(crate) fn last_step(&self) -> u32 {
        u32::try_from(self.window_frames / FRAMES_A_POSITION).unwrap_or(u32::MAX)
    }

    /// Seconds of so many frames of the spectrogram.
    pub(crate) fn seconds(frames: usize) -> f64 {
        frames as f64 / FRAMES_A_SECOND as f64
    }
}

/// The tokens that there are; `-1` and others stand for what is done in any case.
fn known(listed: Option<Vec<i64>>, vocabulary: usize) -> Vec<u32> {
    let listed = listed.unwrap_or_default().into_iter().filter_map(|token| u32::try_from(token).ok());
    listed.filter(|token| (*token as usize) < vocabulary).collect()
}

/// That of the tiny model among the fixtures.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn tiny() -> SpeechText {
    let read = |file: &str| {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
        std::fs::read(std::path::Path::new(&root).join("tests/fixtures/tiny-whisper").join(file)).unwrap()
    };
    let at = FileContext::new("tiny-whisper", "config.json");
    let config = WhisperConfig::parse(&read("config.json"), &at).unwrap();
    let generation = serde_json::from_slice(&read("generation_config.json")).unwrap();
    SpeechText::new(Tokenizer::from_bytes(read("tokenizer.json")).unwrap(), &config, generation, &at).unwrap()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_text_and_keeps_its_end() {
        let text = tiny();
        assert!(text.prompt("  ").unwrap().is_empty());
        let tokens = text.prompt("a<|notimestamps|>").unwrap();
        let [before, read @ ..] = tokens.as_slice() else { panic!("no prompt") };
        assert_eq!(Some(*before), text.tokens.before);
        assert!(read.iter().all(|token| text.is_text(*token)), "{read:?}");
        assert_eq!(text.text(read).unwrap(), " a<|notimestamps|>");
        let timed = text.prompt("a<|0.50|>b").unwrap();
        assert!(timed.iter().skip(1).all(|token| text.is_text(*token)), "{timed:?}");
        let long = text.prompt(&"word ".repeat(50)).unwrap();
        assert_eq!(long.len(), 32);
        assert!(text.text(&long).unwrap().ends_with("word"));
        assert!(text.prompt(&"a".repeat(MAX_PROMPT_BYTES + 1)).is_err());
    }

    #[test]
    fn languages_are_those_of_the_model() {
        let text = tiny();
        assert_eq!((text.language(Some("de")).unwrap(), text.code(259)), (Some(259), Some("de")));
        assert_eq!(text.language(None).unwrap(), None);
        assert!(text.language(Some("tlh")).unwrap_err().to_string().contains("`language`"));
    }
}
