//! The two files of an adapter.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::AdapterConfig;
use crate::error::{FileContext, InferError};
use crate::safetensors_file::SafetensorsFiles;
use crate::source::read_bounded;

pub(crate) const CONFIG_FILE: &str = "adapter_config.json";
pub(crate) const TENSORS_FILE: &str = "adapter_model.safetensors";

/// An adapter on disk, described but not loaded.
#[derive(Clone, Debug)]
pub(crate) struct AdapterFiles {
    model: String,
    directory: PathBuf,
}

impl AdapterFiles {
    /// `model` is the name for messages.
    pub(crate) fn new(model: &str, directory: &Path) -> Self {
        Self { model: model.to_owned(), directory: directory.to_owned() }
    }

    pub(crate) fn config(&self) -> Result<AdapterConfig, InferError> {
        let at = self.at(CONFIG_FILE);
        AdapterConfig::parse(&read_bounded(&self.directory.join(CONFIG_FILE), &at)?, &at)
    }

    pub(crate) fn tensors(&self) -> Result<SafetensorsFiles, InferError> {
        SafetensorsFiles::of_files(&self.model, vec![self.directory.join(TENSORS_FILE)])
    }

    /// Digest of everything that shapes the adapter. Reads all of it.
    pub(crate) fn digest(&self) -> Result<[u8; 32], InferError> {
        let mut hasher = blake3::Hasher::new();
        for name in [CONFIG_FILE, TENSORS_FILE] {
            let at = self.at(name);
            let file = File::open(self.directory.join(name)).map_err(|error| at.unreadable(error))?;
            let length = file.metadata().map_err(|error| at.unreadable(error))?.len();
            // The lengths keep one file's end from passing for another's beginning.
            hasher.update(&length.to_le_bytes());
            hasher.update_reader(file).map_err(|error| at.unreadable(error))?;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Unix seconds of the tensors' file; 0 where the system does not say.
    pub(crate) fn modified(&self) -> u64 {
        let modified = self.directory.join(TENSORS_FILE).metadata().and_then(|metadata| metadata.modified()).ok();
        modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default().as_secs()
    }

    pub(crate) fn at(&self, file: &str) -> FileContext {
        FileContext::new(&self.model, file)
    }
}
