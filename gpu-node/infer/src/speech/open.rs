//! Reading a speech model from its directory.

use std::path::Path;
use std::sync::Arc;

use tokenizers::Tokenizer;

use super::config::WhisperConfig;
use super::job::SpeechModel;
use super::text::{Generation, SpeechText};
use crate::error::{FileContext, InferError};
use crate::network::Network;
use crate::source::{ModelSource, contained, read_bounded};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const GENERATION: &str = "generation_config.json";

impl SpeechModel {
    /// Reads the model of a directory as `transformers` writes it: `config.json`, `model.safetensors`, `tokenizer.json` and, of a
    /// model that knows more than one language, `generation_config.json`.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the model is none of Whisper's family.
    pub fn open(name: &str, directory: &Path) -> Result<Self, InferError> {
        let source = ModelSource::open(name, directory)?;
        let text = source.load_speech_text()?;
        match source.load_network()? {
            Network::Speech(whisper) => Ok(Self::new(whisper, Arc::new(text))),
            Network::Decoder(_) | Network::Encoder(_) => {
                Err(FileContext::new(name, CONFIG).unsupported("it is no speech model"))
            }
        }
    }
}

impl SpeechText {
    /// Reads the text side of a model's directory.
    ///
    /// # Errors
    /// As [`SpeechModel::open`].
    pub(crate) fn open(name: &str, directory: &Path) -> Result<Self, InferError> {
        contained(name, || read(name, directory))
    }
}

fn read(name: &str, directory: &Path) -> Result<SpeechText, InferError> {
    let file = |file: &str| {
        let at = FileContext::new(name, file);
        read_bounded(&directory.join(file), &at).map(|bytes| (bytes, at))
    };
    let (bytes, at) = file(CONFIG)?;
    let config = WhisperConfig::parse(&bytes, &at)?;
    let generation = match directory.join(GENERATION).is_file() {
        true => {
            let (bytes, at) = file(GENERATION)?;
            serde_json::from_slice(&bytes).map_err(|e| at.malformed(e))?
        }
        false => Generation::default(),
    };
    let (bytes, at) = file(TOKENIZER)?;
    let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| at.malformed(e))?;
    SpeechText::new(tokenizer, &config, generation, &at)
}
