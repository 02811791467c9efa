//! Reading a speech model from its directory.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tokenizers::Tokenizer;

use super::config::WhisperConfig;
use super::job::SpeechModel;
use super::text::{Generation, SpeechText};
use super::weights;
use crate::device::Place;
use crate::error::{FileContext, InferError};
use crate::safetensors_file::SafetensorsFiles;
use crate::source::{contained, read_bounded};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const GENERATION: &str = "generation_config.json";

#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
}

impl SpeechModel {
    /// Reads the model of a directory as `transformers` writes it: `config.json`, `model.safetensors`, `tokenizer.json` and, of a
    /// model that knows more than one language, `generation_config.json`.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the model is none of Whisper's family.
    pub fn open(name: &str, directory: &Path) -> Result<Self, InferError> {
        contained(name, || read(name, directory))
    }
}

fn read(name: &str, directory: &Path) -> Result<SpeechModel, InferError> {
    let file = |file: &str| {
        let at = FileContext::new(name, file);
        read_bounded(&directory.join(file), &at).map(|bytes| (bytes, at))
    };
    let (bytes, at) = file(CONFIG)?;
    let kind: Kind = serde_json::from_slice(&bytes).map_err(|e| at.malformed(e))?;
    match kind.model_type.as_deref() {
        Some("whisper") => {}
        Some(other) => return Err(at.unsupported(format!("`{other}` is no speech model; supported: whisper"))),
        None => return Err(at.malformed("`model_type` is missing")),
    }
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
    let text = SpeechText::new(tokenizer, &config, generation, &at)?;
    let files = SafetensorsFiles::open(name, directory)?;
    let whisper = weights::load(config, &files, &Place::cpu())?;
    Ok(SpeechModel::new(Arc::new(whisper), Arc::new(text)))
}
