//! Models on disk: describing them cheaply, loading them; [`folder`] finds them.
//!
//! A model is a sub-directory of the models directory (`config.json` with `model.safetensors`, or
//! one `.gguf`), or a `.gguf` file in it; its name is the directory's name or the file's stem.
//! A model can also be an adapter over the weights of another one ([`ModelSource::adapted`]).
//! Describing reads configuration and headers only; loading reads weights. Either can meet a
//! damaged file: everything that goes wrong, a panic in a parser included, becomes an error.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use candle_core::quantized::gguf_file::Value;
use provost_types::{ModelFormat, ModelInfo, ModelKind};
use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::config::{DecoderConfig, NetworkConfig, TokenIds};
use crate::device::{ComputeDevice, Place};
use crate::error::{FileContext, InferError};
use crate::gguf::{GgufFile, whole};
use crate::lora::{Adapter, AdapterFiles};
use crate::network::Network;
use crate::packed::Layouts;
use crate::safetensors_file::SafetensorsFiles;
use crate::speech::SpeechText;
use crate::text::{ChatTemplate, ChatText, EmbeddingText, Pooling, begins_of_gguf, tokenizer_of_gguf};

mod folder;

pub use folder::discover;
use folder::only_gguf_of;

/// Largest configuration, template or tokenizer file that is read.
const MAX_TEXT_FILE_BYTES: u64 = 256 << 20;
/// Longest model name, in bytes.
const MAX_NAME_BYTES: usize = 128;
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// What else of a directory is read, if it is there.
const BESIDE_WEIGHTS: [&str; 5] = [
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
];

/// A model on disk, described but not loaded.
#[derive(Clone, Debug)]
pub struct ModelSource {
    path: PathBuf,
    layout: Layout,
    info: ModelInfo,
    weight_bytes: u64,
    /// What the processor keeps beside them once they were used.
    packed_bytes: u64,
    dtype: String,
    stamp: Vec<(u64, u128)>,
    adapter: Option<DescribedAdapter>,
}

/// The adapter of a model that has one, with its bytes once loaded.
#[derive(Clone, Debug)]
struct DescribedAdapter {
    files: AdapterFiles,
    bytes: u64,
}

#[derive(Clone, Debug)]
enum Layout {
    /// A directory as `transformers` writes it.
    Directory,
    /// A GGUF file and, if there is one, the tokenizer beside it.
    Gguf { tokenizer: Option<PathBuf> },
}

impl ModelSource {
    /// Describes the model at `path` under `name`.
    ///
    /// # Errors
    /// When files are missing, damaged or of a kind that is not supported.
    pub fn open(name: &str, path: &Path) -> Result<Self, InferError> {
        contained(name, || Self::describe(name, path))
    }

    /// Describes the model `name` that is this one with the adapter of a folder.
    ///
    /// # Errors
    /// When its files are missing or damaged, or the adapter is of a kind that is not supported.
    pub fn adapted(&self, name: &str, adapter: &Path) -> Result<Self, InferError> {
        contained(name, || {
            let files = AdapterFiles::new(name, adapter);
            if self.info.kind != ModelKind::Chat {
                let cause = format!("base: `{}` is no chat model; adapters are for chat models", self.info.name);
                return Err(InferError::Unsupported { model: name.to_owned(), cause });
            }
            files.config()?;
            let bytes = files.tensors()?.resident_bytes();
            let created = files.modified().max(self.info.created);
            let info = ModelInfo { name: name.to_owned(), created, ..self.info.clone() };
            Ok(Self { info, adapter: Some(DescribedAdapter { files, bytes }), ..self.clone() })
        })
    }

    /// Bytes of its adapter once loaded; 0 where it has none.
    pub fn adapter_bytes(&self) -> u64 {
        self.adapter.as_ref().map_or(0, |adapter| adapter.bytes)
    }

    /// Reads the adapter of a model that has one.
    ///
    /// # Errors
    /// When a file is missing or damaged, or does not fit the base.
    pub fn load_adapter(&self) -> Result<Option<Adapter>, InferError> {
        self.load_adapter_on(&ComputeDevice::cpu())
    }

    /// The same, onto a device.
    ///
    /// # Errors
    /// As [`load_adapter`](Self::load_adapter), and when the device has no memory left.
    pub fn load_adapter_on(&self, device: &ComputeDevice) -> Result<Option<Adapter>, InferError> {
        let Some(adapter) = &self.adapter else {
            return Ok(None);
        };
        contained(&self.info.name, || {
            let place = device.place(None)?;
            Adapter::load(&adapter.files, &self.decoder_config()?, &place).map(Some)
        })
    }

    /// True when both have the same configuration and weights, as the files were when each was described: so have their digests.
    pub fn has_weights_of(&self, other: &Self) -> bool {
        self.path == other.path && self.stamp == other.stamp
    }

    /// What it is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Bytes of its weights once loaded.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Bytes that its weights take on a device once they were used. On the processor it lays quantised ones out anew for
    /// its products, and keeps them as they came too.
    pub fn weight_bytes_on(&self, device: &ComputeDevice) -> u64 {
        match device.is_processor() {
            true => self.weight_bytes.saturating_add(self.packed_bytes),
            false => self.weight_bytes,
        }
    }

    /// What most of its weights are stored as, such as `f32`, `bf16` or `q4_0`.
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// The form of its files.
    pub fn format(&self) -> ModelFormat {
        match self.layout {
            Layout::Directory => ModelFormat::Safetensors,
            Layout::Gguf { .. } => ModelFormat::Gguf,
        }
    }

    /// Everything that it is made of but its adapter: each file's name within a directory that would be the same model, and
    /// where it is.
    ///
    /// # Errors
    /// When the files cannot be listed.
    pub fn files(&self) -> Result<Vec<(String, PathBuf)>, InferError> {
        let mut files = Vec::new();
        match &self.layout {
            Layout::Gguf { tokenizer } => {
                files.push(("model.gguf".to_owned(), self.path.clone()));
                files.extend(tokenizer.clone().map(|path| (TOKENIZER.to_owned(), path)));
            }
            Layout::Directory => {
                let beside = [CONFIG, TOKENIZER].into_iter().chain(BESIDE_WEIGHTS);
                let there = beside.map(|name| (name.to_owned(), self.path.join(name)));
                files.extend(there.filter(|(_, path)| path.is_file()));
                for path in self.weight_files()? {
                    let name = path.strip_prefix(&self.path).unwrap_or(&path).to_string_lossy().into_owned();
                    files.push((name, path));
                }
            }
        }
        Ok(files)
    }

    /// Length and modification time of each file that the digest is of: unchanged means that it still holds.
    pub fn stamp(&self) -> &[(u64, u128)] {
        &self.stamp
    }

    /// Digest of everything that shapes the network: configuration and weights. Reads all of them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn digest(&self) -> Result<[u8; 32], InferError> {
        let mut hasher = blake3::Hasher::new();
        let mut files = self.weight_files()?;
        if let Layout::Directory = self.layout {
            files.insert(0, self.path.join(CONFIG));
        }
        for file in files {
            let at = self.at(&file);
            let length = file.metadata().map_err(|e| at.unreadable(e))?.len();
            // The lengths keep one file's end from passing for another's beginning.
            hasher.update(&length.to_le_bytes());
            let reader = File::open(&file).map_err(|e| at.unreadable(e))?;
            hasher.update_reader(reader).map_err(|e| at.unreadable(e))?;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn load_network(&self) -> Result<Network, InferError> {
        self.load(&Place::cpu())
    }

    /// The same, onto a device. `digest` is that of the weights: by it the host may keep a copy of them, and is to
    /// [`forget`](ComputeDevice::forget) it where the files turn out to be others.
    ///
    /// # Errors
    /// As [`load_network`](Self::load_network), and when the device has no memory left.
    pub fn load_network_on(&self, device: &ComputeDevice, digest: [u8; 32]) -> Result<Network, InferError> {
        self.load(&device.place(Some(digest))?)
    }

    fn load(&self, place: &Place) -> Result<Network, InferError> {
        let network = contained(&self.info.name, || match &self.layout {
            Layout::Gguf { .. } => GgufFile::open(&self.info.name, &self.path)?.load(&self.path, place),
            Layout::Directory => {
                let config = self.network_config()?;
                let files = SafetensorsFiles::open(&self.info.name, &self.path)?;
                Network::from_safetensors(config, &files, place)
            }
        })?;
        place.settle()?;
        Ok(network)
    }

    /// Reads the text side of a chat model.
    ///
    /// # Errors
    /// When tokenizer or template are missing or damaged.
    pub fn load_chat_text(&self) -> Result<ChatText, InferError> {
        contained(&self.info.name, || match &self.layout {
            Layout::Gguf { tokenizer } => self.chat_text_of_gguf(tokenizer.as_deref()),
            Layout::Directory => self.chat_text_of_directory(),
        })
    }

    /// Reads the text side of an embedding model.
    ///
    /// # Errors
    /// When the tokenizer is missing or damaged.
    pub fn load_embedding_text(&self) -> Result<EmbeddingText, InferError> {
        contained(&self.info.name, || {
            let tokenizer = self.tokenizer(&self.path.join(TOKENIZER))?;
            Ok(EmbeddingText::new(tokenizer, self.pooling()?))
        })
    }

    /// Reads the text side of a speech model.
    ///
    /// # Errors
    /// When configuration or tokenizer are missing or damaged.
    pub fn load_speech_text(&self) -> Result<SpeechText, InferError> {
        SpeechText::open(&self.info.name, &self.path)
    }

    fn describe(name: &str, path: &Path) -> Result<Self, InferError> {
        let mut source = Self {
            path: path.to_owned(),
            layout: Layout::Directory,
            info: ModelInfo {
                name: name.to_owned(),
                kind: ModelKind::Chat,
                architecture: String::new(),
                context_tokens: 0,
                dimensions: 0,
                created: 0,
            },
            weight_bytes: 0,
            packed_bytes: 0,
            dtype: String::new(),
            stamp: Vec::new(),
            adapter: None,
        };
        if path.is_dir() && !path.join(CONFIG).is_file() {
            source.path = only_gguf_of(name, path)?;
            let beside = path.join(TOKENIZER);
            source.layout = Layout::Gguf { tokenizer: beside.is_file().then_some(beside) };
        } else if !path.is_dir() {
            let beside = path.with_extension("tokenizer.json");
            source.layout = Layout::Gguf { tokenizer: beside.is_file().then_some(beside) };
        }
        let config = match source.layout {
            Layout::Directory => {
                let files = SafetensorsFiles::open(name, path)?;
                source.weight_bytes = files.resident_bytes();
                source.dtype = files.dtype();
                source.network_config()?
            }
            Layout::Gguf { .. } => {
                let gguf = GgufFile::open(name, &source.path)?;
                source.weight_bytes = gguf.resident_bytes();
                source.packed_bytes = gguf.packed_bytes(Layouts::here());
                source.dtype = gguf.dtype();
                NetworkConfig::Decoder(gguf.config()?)
            }
        };
        source.describe_network(&config);
        source.read_stamp()?;
        source.check_text_side()?;
        Ok(source)
    }

    fn describe_network(&mut self, config: &NetworkConfig) {
        let clamp = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        match config {
            NetworkConfig::Decoder(config) => {
                config.family.name().clone_into(&mut self.info.architecture);
                self.info.context_tokens = clamp(config.context);
            }
            NetworkConfig::Encoder(config) => {
                self.info.kind = ModelKind::Embedding;
                "bert".clone_into(&mut self.info.architecture);
                self.info.context_tokens = clamp(config.context);
                self.info.dimensions = clamp(config.hidden);
            }
            NetworkConfig::Speech(config) => {
                self.info.kind = ModelKind::Speech;
                "whisper".clone_into(&mut self.info.architecture);
                self.info.context_tokens = clamp(config.decoder.positions);
            }
        }
    }

    fn read_stamp(&mut self) -> Result<(), InferError> {
        for file in self.weight_files()? {
            let at = self.at(&file);
            let metadata = file.metadata().map_err(|e| at.unreadable(e))?;
            let modified =
                metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            self.info.created = self.info.created.max(modified.as_secs());
            self.stamp.push((metadata.len(), modified.as_nanos()));
        }
        if let Layout::Directory = self.layout {
            let metadata = self.path.join(CONFIG).metadata();
            let metadata = metadata.map_err(|e| FileContext::new(&self.info.name, CONFIG).unreadable(e))?;
            let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            self.stamp.push((metadata.len(), modified.unwrap_or_default().as_nanos()));
        }
        Ok(())
    }

    /// A model without a tokenizer is refused here already, not when somebody first asks it.
    fn check_text_side(&self) -> Result<(), InferError> {
        let missing = match &self.layout {
            Layout::Directory => !self.path.join(TOKENIZER).is_file(),
            Layout::Gguf { tokenizer: Some(_) } => false,
            Layout::Gguf { tokenizer: None } => {
                let gguf = GgufFile::open(&self.info.name, &self.path)?;
                gguf.find("tokenizer.ggml.model").is_none()
            }
        };
        if missing {
            let at = FileContext::new(&self.info.name, TOKENIZER);
            return Err(at.unreadable("the model has no tokenizer"));
        }
        Ok(())
    }

    fn network_config(&self) -> Result<NetworkConfig, InferError> {
        let (bytes, at) = self.read(CONFIG)?;
        NetworkConfig::parse(&bytes, &at)
    }

    fn decoder_config(&self) -> Result<DecoderConfig, InferError> {
        match self.layout {
            Layout::Gguf { .. } => GgufFile::open(&self.info.name, &self.path)?.config(),
            Layout::Directory => match self.network_config()? {
                NetworkConfig::Decoder(config) => Ok(config),
                NetworkConfig::Encoder(_) | NetworkConfig::Speech(_) => {
                    Err(FileContext::new(&self.info.name, CONFIG).unsupported("the model is no chat model"))
                }
            },
        }
    }

    fn weight_files(&self) -> Result<Vec<PathBuf>, InferError> {
        match self.layout {
            Layout::Gguf { .. } => Ok(vec![self.path.clone()]),
            Layout::Directory => {
                let files = SafetensorsFiles::open(&self.info.name, &self.path)?;
                Ok(files.files().to_vec())
            }
        }
    }

    fn chat_text_of_directory(&self) -> Result<ChatText, InferError> {
        let tokenizer = self.tokenizer(&self.path.join(TOKENIZER))?;
        let config: TokenizerConfig = self.optional_json("tokenizer_config.json")?.unwrap_or_default();
        let generation: GenerationConfig = self.optional_json("generation_config.json")?.unwrap_or_default();
        let (source, at) = if self.path.join("chat_template.jinja").is_file() {
            let (bytes, at) = self.read("chat_template.jinja")?;
            let text = String::from_utf8(bytes).map_err(|e| at.malformed(e))?;
            (Some(text), at)
        } else {
            let at = FileContext::new(&self.info.name, "tokenizer_config.json");
            (config.chat_template.and_then(TemplateField::source), at)
        };
        let Some(source) = source else {
            return Err(
                FileContext::new(&self.info.name, "chat_template.jinja").unreadable("the model has no chat template")
            );
        };
        let mut end_tokens = match self.network_config()? {
            NetworkConfig::Decoder(config) => config.end_tokens,
            NetworkConfig::Encoder(_) | NetworkConfig::Speech(_) => Vec::new(),
        };
        end_tokens.extend(generation.eos_token_id.into_iter().flat_map(TokenIds::into_vec));
        let text_of = |token: Option<TokenField>| token.map_or_else(String::new, TokenField::text);
        let eos_token = text_of(config.eos_token);
        end_tokens.extend(tokenizer.token_to_id(&eos_token));
        let template = ChatTemplate::new(source, text_of(config.bos_token), eos_token, &at)?;
        ChatText::new(tokenizer, template, end_tokens, &FileContext::new(&self.info.name, TOKENIZER))
    }

    fn chat_text_of_gguf(&self, beside: Option<&Path>) -> Result<ChatText, InferError> {
        let gguf = GgufFile::open(&self.info.name, &self.path)?;
        let tokenizer = match beside {
            Some(path) => Some(self.tokenizer(path)?),
            None => tokenizer_of_gguf(&gguf)?,
        };
        let Some(tokenizer) = tokenizer else {
            let at = FileContext::new(&self.info.name, TOKENIZER);
            return Err(at.unreadable("the model has no tokenizer"));
        };
        let Some(Value::String(source)) = gguf.find("tokenizer.chat_template") else {
            return Err(gguf.at().unsupported("the file has no `tokenizer.chat_template`, so it cannot chat"));
        };
        let token = |key: &str| {
            gguf.find(key)
                .and_then(whole)
                .and_then(|id| tokenizer.id_to_token(u32::try_from(id).ok()?))
                .unwrap_or_default()
        };
        let template = ChatTemplate::new(
            source.clone(),
            token("tokenizer.ggml.bos_token_id"),
            token("tokenizer.ggml.eos_token_id"),
            gguf.at(),
        )?;
        let end_tokens = gguf.config()?.end_tokens;
        let text = ChatText::new(tokenizer, template, end_tokens, &FileContext::new(&self.info.name, TOKENIZER))?;
        // A tokenizer's own file says it itself.
        Ok(if beside.is_some() { text } else { text.beginning_with(begins_of_gguf(&gguf)) })
    }

    fn tokenizer(&self, path: &Path) -> Result<Tokenizer, InferError> {
        let at = self.at(path);
        let bytes = read_bounded(path, &at)?;
        Tokenizer::from_bytes(bytes).map_err(|error| at.malformed(error))
    }

    /// How sentence-transformers says to pool; the mean when it says nothing.
    fn pooling(&self) -> Result<Pooling, InferError> {
        const FILE: &str = "1_Pooling/config.json";
        let Some(config) = self.optional_json::<PoolingConfig>(FILE)? else {
            return Ok(Pooling::Mean);
        };
        match (config.pooling_mode_mean_tokens, config.pooling_mode_cls_token) {
            (true, false) => Ok(Pooling::Mean),
            (false, true) => Ok(Pooling::First),
            _ => Err(FileContext::new(&self.info.name, FILE).unsupported("pooling is by mean or by the first token")),
        }
    }

    fn optional_json<T: for<'de> Deserialize<'de>>(&self, file: &str) -> Result<Option<T>, InferError> {
        if !self.path.join(file).is_file() {
            return Ok(None);
        }
        let (bytes, at) = self.read(file)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|e| at.malformed(e))
    }

    fn read(&self, file: &str) -> Result<(Vec<u8>, FileContext), InferError> {
        let at = FileContext::new(&self.info.name, file);
        let bytes = read_bounded(&self.path.join(file), &at)?;
        Ok((bytes, at))
    }

    fn at(&self, path: &Path) -> FileContext {
        let name = path.file_name().unwrap_or_default();
        FileContext::new(&self.info.name, &name.to_string_lossy())
    }
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<TemplateField>,
    bos_token: Option<TokenField>,
    eos_token: Option<TokenField>,
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<TokenIds>,
}

#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_cls_token: bool,
}

/// One template, or several by purpose.
#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Many(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl TemplateField {
    fn source(self) -> Option<String> {
        match self {
            Self::One(source) => Some(source),
            Self::Many(many) => many.into_iter().find(|one| one.name == "default").map(|one| one.template),
        }
    }
}

/// A token's text, plain or in an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenField {
    Plain(String),
    Object { content: String },
}

impl TokenField {
    fn text(self) -> String {
        match self {
            Self::Plain(text) | Self::Object { content: text } => text,
        }
    }
}

pub(crate) fn read_bounded(path: &Path, at: &FileContext) -> Result<Vec<u8>, InferError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TEXT_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| at.unreadable(e))?;
    if bytes.len() as u64 > MAX_TEXT_FILE_BYTES {
        return Err(at.malformed(format!("larger than {MAX_TEXT_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Turns a panic of a parser over a damaged file into an error.
pub(crate) fn contained<T>(model: &str, work: impl FnOnce() -> Result<T, InferError>) -> Result<T, InferError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(FileContext::new(model, "files").malformed("reading them failed unexpectedly")))
}
