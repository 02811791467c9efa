//! What is in memory, and what is known of models by name.
//!
//! A model becomes ready in three reads, each on the loader thread: the digest of its weights (the
//! key under which they are shared), its text side, and its weights once the arbiter says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provost_gpu_infer::{Adapter, ChatModel, Decoder, EmbeddingModel, InferError, ModelSource, Network, SpeechModel};
use provost_gpu_vram::WeightsKey;
use provost_types::ModelState;

use crate::catalogue::Entry;
use crate::loader::{Content, Loaded, Loader, Part, Task, TextSide};

/// A failure to load is told to callers for this long before it is tried again.
const FAILURE_BELIEVED: Duration = Duration::from_secs(5);

/// Models in memory.
pub(crate) struct Residency {
    networks: HashMap<WeightsKey, Network>,
    models: HashMap<String, Known>,
    /// What the arbiter wants loaded, until the loader is free for it.
    wanted: Option<(WeightsKey, Arc<Entry>)>,
    /// The weights that the loader reads.
    coming: Option<WeightsKey>,
    /// Bytes of the adapter that the loader reads.
    coming_adapter: u64,
    loader: Loader,
}

/// What is known of a model by name.
struct Known {
    entry: Arc<Entry>,
    key: Option<WeightsKey>,
    text: Option<TextSide>,
    failure: Option<(InferError, Instant)>,
}

/// A model by kind.
pub(crate) enum Model {
    Chat(ChatModel),
    Embedding(EmbeddingModel),
    Speech(SpeechModel),
}

/// Whether a model can be asked for.
pub(crate) enum Identity {
    /// Its weights are these, and its text side is there.
    Known(WeightsKey),
    /// Being read, or waiting for the loader.
    Pending,
    /// Reading it failed.
    Failed(InferError),
}

/// What came of loading weights.
pub(crate) enum Settled {
    Loaded {
        key: WeightsKey,
        took: Duration,
    },
    Failed {
        key: WeightsKey,
    },
    /// The device has less memory left than the books.
    Exhausted {
        key: WeightsKey,
        entry: Arc<Entry>,
    },
}

impl Residency {
    pub(crate) fn new(loader: Loader) -> Self {
        Self { networks: HashMap::new(), models: HashMap::new(), wanted: None, coming: None, coming_adapter: 0, loader }
    }

    /// Asks which weights a model has; begins to read what is missing to say so.
    pub(crate) fn identify(&mut self, entry: &Arc<Entry>) -> Identity {
        let source = match &entry.source {
            Ok(source) => source,
            Err(error) => return Identity::Failed(error.clone()),
        };
        let key_of_files = self.key_of_files(source);
        let known = self.known(entry);
        known.key = known.key.or(key_of_files);
        if let Some((error, at)) = &known.failure {
            if at.elapsed() < FAILURE_BELIEVED {
                return Identity::Failed(error.clone());
            }
            known.failure = None;
        }
        let (key, has_text) = (known.key, known.text.is_some());
        match key {
            None => self.read(entry, Part::Digest),
            Some(_) if !has_text => self.read(entry, Part::Text),
            Some(key) => return Identity::Known(key),
        }
        Identity::Pending
    }

    /// The weights of a model, if they are known already; reads nothing.
    pub(crate) fn key(&self, entry: &Arc<Entry>) -> Option<WeightsKey> {
        let known = self.models.get(&entry.name).filter(|known| Arc::ptr_eq(&known.entry, entry))?;
        known.key
    }

    /// The models whose weights are known, with them.
    pub(crate) fn known_keys(&self) -> Vec<(Arc<Entry>, WeightsKey)> {
        let known = self.models.values().filter_map(|known| Some((Arc::clone(&known.entry), known.key?)));
        known.collect()
    }

    /// Forgets the models that are not such, with their text sides.
    pub(crate) fn keep(&mut self, is_such: impl Fn(&Arc<Entry>) -> bool) {
        self.models.retain(|_, known| is_such(&known.entry));
    }

    /// Loads weights, as soon as the loader is free.
    pub(crate) fn load(&mut self, key: WeightsKey, entry: Arc<Entry>) {
        self.wanted = Some((key, entry));
        self.begin_wanted();
    }

    /// Takes in what the loader read. Some: weights were loaded, or not.
    pub(crate) fn take_in(&mut self, loaded: Loaded) -> Option<Settled> {
        self.loader.finished();
        let Loaded { entry, part, result, took } = loaded;
        match part {
            Part::Network(_) => self.coming = None,
            Part::Text => self.coming_adapter = 0,
            Part::Digest => {}
        }
        let settled = match (part, result) {
            (Part::Network(key), Ok(Content::Network(network))) => {
                tracing::info!(model = entry.name, ?took, "model loaded");
                self.networks.insert(key, network);
                Some(Settled::Loaded { key, took })
            }
            (_, Ok(Content::Digest(key))) => {
                self.known(&entry).key = Some(key);
                None
            }
            (_, Ok(Content::Text(text))) => {
                self.known(&entry).text = Some(text);
                None
            }
            // Weights are read only as such.
            (Part::Digest | Part::Text, Ok(Content::Network(_))) => None,
            (Part::Network(key), Err(InferError::OutOfMemory)) => Some(Settled::Exhausted { key, entry }),
            (part, Err(error)) => {
                tracing::warn!(model = entry.name, %error, "model could not be loaded");
                self.known(&entry).failure = Some((error, Instant::now()));
                match part {
                    Part::Network(key) => Some(Settled::Failed { key }),
                    Part::Digest | Part::Text => None,
                }
            }
        };
        self.begin_wanted();
        settled
    }

    /// Remembers why a model could not be loaded.
    pub(crate) fn fail(&mut self, entry: &Arc<Entry>, error: InferError) {
        tracing::warn!(model = entry.name, %error, "model could not be loaded");
        self.known(entry).failure = Some((error, Instant::now()));
    }

    /// True while weights are being loaded, or are to be.
    pub(crate) fn is_loading(&self) -> bool {
        self.wanted.is_some() || self.coming.is_some()
    }

    /// Drops weights, and the text sides of their models but of those that somebody waits for.
    pub(crate) fn evict(&mut self, key: WeightsKey, is_waited_for: impl Fn(&Arc<Entry>) -> bool) {
        self.networks.remove(&key);
        for known in self.models.values_mut().filter(|known| known.key == Some(key)) {
            tracing::info!(model = known.entry.name, "model evicted");
            if !is_waited_for(&known.entry) {
                known.text = None;
            }
        }
    }

    /// Drops an adapter with the text sides of its models, but of those that somebody waits for.
    pub(crate) fn drop_adapter(&mut self, adapter: WeightsKey, is_waited_for: impl Fn(&Arc<Entry>) -> bool) {
        for known in self.models.values_mut() {
            let is_its = matches!(&known.text, Some(TextSide::Tuned(_, of)) if WeightsKey::new(of.digest()) == adapter);
            if is_its && !is_waited_for(&known.entry) {
                tracing::info!(model = known.entry.name, "adapter evicted");
                known.text = None;
            }
        }
    }

    /// The adapters that are in memory: of which model, over which weights.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = (&Arc<Entry>, WeightsKey, &Adapter)> {
        self.models.values().filter_map(|known| match (&known.text, known.key) {
            (Some(TextSide::Tuned(_, adapter)), Some(key)) => Some((&known.entry, key, adapter.as_ref())),
            _ => None,
        })
    }

    /// Bytes of the adapter that is being read.
    pub(crate) fn coming_adapter(&self) -> u64 {
        self.coming_adapter
    }

    /// Drops the text side of a model, with its adapter.
    pub(crate) fn forget_text(&mut self, entry: &Arc<Entry>) {
        if let Some(known) = self.models.get_mut(&entry.name).filter(|known| Arc::ptr_eq(&known.entry, entry)) {
            known.text = None;
        }
    }

    /// The model of an entry whose weights are in memory.
    pub(crate) fn model(&self, entry: &Arc<Entry>, key: WeightsKey) -> Result<Model, InferError> {
        let known = self.models.get(&entry.name).filter(|known| Arc::ptr_eq(&known.entry, entry));
        match (self.networks.get(&key), known.and_then(|known| known.text.as_ref())) {
            (Some(Network::Decoder(decoder)), Some(TextSide::Chat(text))) => {
                Ok(Model::Chat(ChatModel::new(Arc::clone(decoder), Arc::clone(text))))
            }
            (Some(Network::Decoder(decoder)), Some(TextSide::Tuned(text, adapter))) => {
                let model = ChatModel::new(Arc::clone(decoder), Arc::clone(text));
                Ok(Model::Chat(model.with_adapter(Arc::clone(adapter))))
            }
            (Some(Network::Encoder(encoder)), Some(TextSide::Embedding(text))) => {
                Ok(Model::Embedding(EmbeddingModel::new(Arc::clone(encoder), Arc::clone(text))))
            }
            (Some(Network::Speech(whisper)), Some(TextSide::Speech(text))) => {
                Ok(Model::Speech(SpeechModel::new(Arc::clone(whisper), Arc::clone(text))))
            }
            _ => Err(InferError::Failed("the model's files changed while they were read".to_owned())),
        }
    }

    /// The text side of an entry, if it is there.
    pub(crate) fn text(&self, entry: &Arc<Entry>) -> Option<TextSide> {
        let known = self.models.get(&entry.name).filter(|known| Arc::ptr_eq(&known.entry, entry))?;
        known.text.clone()
    }

    /// The decoder of these weights, if they are one and in memory.
    pub(crate) fn decoder(&self, key: WeightsKey) -> Option<&Decoder> {
        match self.networks.get(&key) {
            Some(Network::Decoder(decoder)) => Some(decoder),
            _ => None,
        }
    }

    /// The models whose weights are known, and which these are.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, WeightsKey)> {
        self.models.iter().filter_map(|(name, known)| Some((name.as_str(), known.key?)))
    }

    /// Where weights are.
    pub(crate) fn state(&self, key: WeightsKey) -> ModelState {
        let is_coming = self.coming == Some(key) || self.wanted.as_ref().is_some_and(|(wanted, _)| *wanted == key);
        match self.networks.contains_key(&key) {
            true => ModelState::Resident,
            false if is_coming => ModelState::Loading,
            false => ModelState::OnDisk,
        }
    }

    /// The models with these weights.
    pub(crate) fn entries_of(&self, key: WeightsKey) -> impl Iterator<Item = &Arc<Entry>> {
        self.models.values().filter(move |known| known.key == Some(key)).map(|known| &known.entry)
    }

    /// Why reading a model failed last.
    pub(crate) fn failure(&self, entry: &Arc<Entry>) -> Option<InferError> {
        let known = self.models.get(&entry.name).filter(|known| Arc::ptr_eq(&known.entry, entry))?;
        known.failure.as_ref().map(|(error, _)| error.clone())
    }

    /// Begins a read, or leaves it for later when the loader is busy or weights come first.
    fn read(&mut self, entry: &Arc<Entry>, part: Part) {
        if self.wanted.is_none() && self.loader.begin(Task { entry: Arc::clone(entry), part }) && part == Part::Text {
            self.coming_adapter = entry.source.as_ref().map_or(0, ModelSource::adapter_bytes);
        }
    }

    fn begin_wanted(&mut self) {
        if let Some((key, entry)) = self.wanted.take() {
            let task = Task { entry: Arc::clone(&entry), part: Part::Network(key) };
            if self.loader.begin(task) {
                self.coming = Some(key);
            } else {
                self.wanted = Some((key, entry));
            }
        }
    }

    /// The weights of a model with the same files, where they are known: a base is not read once more for each of its adapters.
    fn key_of_files(&self, source: &ModelSource) -> Option<WeightsKey> {
        self.models.values().find_map(|known| {
            let other = known.entry.source.as_ref().ok()?;
            known.key.filter(|_| other.has_weights_of(source))
        })
    }

    /// What is known of a model; forgotten when its files have changed.
    fn known(&mut self, entry: &Arc<Entry>) -> &mut Known {
        let fresh = || Known { entry: Arc::clone(entry), key: None, text: None, failure: None };
        let known = self.models.entry(entry.name.clone()).or_insert_with(fresh);
        if !Arc::ptr_eq(&known.entry, entry) {
            *known = fresh();
        }
        known
    }
}
