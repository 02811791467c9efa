//! Which models are in memory: carries out what the memory machine decides.
//!
//! A model becomes ready in three reads, each on the loader thread: the digest of its weights (the
//! key under which they are shared), its text side, its weights.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provost_gpu_infer::{ChatModel, EmbeddingModel, InferError, Network};
use provost_gpu_vram::{Admission, DeviceMemory, Lease, Refusal, Reserved, Usage, WeightsKey};

use crate::catalogue::Entry;
use crate::loader::{Content, Loaded, Loader, Part, Task, TextSide};

/// A failure to load is told to callers for this long before it is tried again.
const FAILURE_BELIEVED: Duration = Duration::from_secs(5);
/// Assumed speed of loading before it has been measured, in bytes a microsecond.
const ASSUMED_BYTES_PER_MICRO: u64 = 500;

/// Models in memory and the books of that memory.
pub(crate) struct Residency {
    memory: DeviceMemory,
    networks: HashMap<WeightsKey, Network>,
    models: HashMap<String, Known>,
    /// Keeps what is being loaded from being evicted before its first use.
    loading: Option<Lease>,
    loader: Loader,
    epoch: u64,
}

/// What is known of a model by name.
struct Known {
    entry: Arc<Entry>,
    key: Option<WeightsKey>,
    text: Option<TextSide>,
    failure: Option<(InferError, Instant)>,
}

/// A model in memory; the lease keeps it there.
pub(crate) struct Resident {
    pub(crate) key: WeightsKey,
    pub(crate) model: Model,
    pub(crate) lease: Lease,
}

/// A model by kind.
pub(crate) enum Model {
    Chat(ChatModel),
    Embedding(EmbeddingModel),
}

/// The answer to a request for a model.
pub(crate) enum Readiness {
    Ready(Resident),
    /// Being read, or waiting for the loader.
    Pending,
    /// Others hold the memory.
    NoRoom,
    /// It cannot be served.
    TooLarge(Refusal),
    /// Reading it failed.
    Failed(InferError),
}

impl Residency {
    pub(crate) fn new(capacity_bytes: u64, loader: Loader) -> Self {
        Self {
            memory: DeviceMemory::new(capacity_bytes),
            networks: HashMap::new(),
            models: HashMap::new(),
            loading: None,
            loader,
            epoch: 0,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.memory.usage()
    }

    /// True while something is being read.
    pub(crate) fn is_loading(&self) -> bool {
        self.loader.is_busy()
    }

    /// Asks for a model; begins to read what is missing.
    pub(crate) fn request(&mut self, entry: &Arc<Entry>) -> Readiness {
        let source = match &entry.source {
            Ok(source) => source,
            Err(error) => return Readiness::Failed(error.clone()),
        };
        let known = self.known(entry);
        if let Some((error, at)) = &known.failure {
            if at.elapsed() < FAILURE_BELIEVED {
                return Readiness::Failed(error.clone());
            }
            known.failure = None;
        }
        let Some(key) = known.key else {
            return self.read(entry, Part::Digest);
        };
        let Some(text) = known.text.clone() else {
            return self.read(entry, Part::Text);
        };
        // Nothing may be admitted for loading that the loader cannot take at once.
        if !self.networks.contains_key(&key) && self.loader.is_busy() {
            return Readiness::Pending;
        }
        let bytes = source.weight_bytes();
        match self.memory.acquire(key, bytes, bytes / ASSUMED_BYTES_PER_MICRO) {
            Ok(Admission::Ready { lease }) => self.ready(key, lease, &text),
            Ok(Admission::Loading { lease }) => {
                self.release_unused(lease);
                Readiness::Pending
            }
            Ok(Admission::Load { lease, evict }) => {
                self.drop_networks(&evict);
                self.loading = Some(lease);
                self.read(entry, Part::Network(key))
            }
            Err(refusal) if refusal.is_temporary() => Readiness::NoRoom,
            Err(refusal) => Readiness::TooLarge(refusal),
        }
    }

    /// Takes in what the loader read.
    pub(crate) fn take_in(&mut self, loaded: Loaded) {
        self.loader.finished();
        self.epoch += 1;
        let Loaded { entry, part, result, took } = loaded;
        match result {
            Ok(Content::Digest(key)) => self.known(&entry).key = Some(key),
            Ok(Content::Text(text)) => self.known(&entry).text = Some(text),
            Ok(Content::Network(network)) => {
                if let Part::Network(key) = part {
                    tracing::info!(model = entry.name, ?took, "model loaded");
                    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                    let unwanted = self.memory.loaded(key, micros);
                    if !unwanted {
                        self.networks.insert(key, network);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(model = entry.name, %error, "model could not be loaded");
                if let Part::Network(key) = part {
                    self.memory.load_failed(key);
                }
                self.known(&entry).failure = Some((error, Instant::now()));
            }
        }
        if let Some(lease) = self.loading.take_if(|_| matches!(part, Part::Network(_))) {
            self.release(lease);
        }
    }

    /// Books bytes for one request, evicting idle models if need be.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<Lease, Refusal> {
        let Reserved { lease, evict } = self.memory.reserve(bytes)?;
        self.drop_networks(&evict);
        Ok(lease)
    }

    /// Counts the moments at which bytes may have become free.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn release(&mut self, lease: Lease) {
        self.epoch += 1;
        self.release_unused(lease);
    }

    /// As `release`, for a lease that was taken in this same moment: nothing has become free.
    pub(crate) fn release_unused(&mut self, lease: Lease) {
        if let Some(key) = self.memory.release(lease) {
            self.drop_networks(&[key]);
        }
    }

    fn ready(&mut self, key: WeightsKey, lease: Lease, text: &TextSide) -> Readiness {
        let model = match (self.networks.get(&key), text) {
            (Some(Network::Decoder(decoder)), TextSide::Chat(text)) => {
                Model::Chat(ChatModel::new(Arc::clone(decoder), Arc::clone(text)))
            }
            (Some(Network::Encoder(encoder)), TextSide::Embedding(text)) => {
                Model::Embedding(EmbeddingModel::new(Arc::clone(encoder), Arc::clone(text)))
            }
            _ => {
                self.release(lease);
                return Readiness::Failed(InferError::Failed(
                    "the model's files changed while they were read".to_owned(),
                ));
            }
        };
        Readiness::Ready(Resident { key, model, lease })
    }

    /// Begins a read, or leaves it for later when the loader is busy.
    fn read(&mut self, entry: &Arc<Entry>, part: Part) -> Readiness {
        let entry = Arc::clone(entry);
        let begun = self.loader.begin(Task { entry, part });
        if let Part::Network(key) = part
            && !begun
        {
            self.memory.load_failed(key);
            self.loading = None;
        }
        Readiness::Pending
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

    fn drop_networks(&mut self, keys: &[WeightsKey]) {
        for key in keys {
            self.networks.remove(key);
            for known in self.models.values_mut().filter(|k| k.key == Some(*key)) {
                tracing::info!(model = known.entry.name, "model evicted");
                known.text = None;
            }
        }
    }
}
