//! The node as its callers see it.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use provost_gpu_infer::{ComputeDevice, KvUsage};
use provost_gpu_vram::{Limits, Usage};
use provost_types::{
    BoxFuture, BoxStream, ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, FileDigest, GpuReport, Inference,
    InferenceError, Kind, ModelInfo, ModelReport, Snapshot, Spec, TranscribeRequest, Transcript,
};
use tokio::sync::{oneshot, watch};

use crate::board::Board;
use crate::catalogue::Catalogue;
use crate::config::GpuConfig;
use crate::copies::{self, BlobPeer};
use crate::error::{self, StartError};
use crate::exclusive::{self, ExclusiveDevice, ExclusiveTerms};
use crate::inbox::{Closing, Inbox, Refused};
use crate::job::{Events, Work};
use crate::loader::{self, Loader, Read};
use crate::orders::{ModelOrder, ModelRefusal, Order};
use crate::preparer::{self, Prepare, Preparer};
use crate::preparing::{PREPARE_DEADLINE, Preparing};
use crate::removal::{self, Removal, StoredModel};
use crate::residency::Residency;
use crate::scheduler::{ASSUMED_BYTES_PER_MICRO, Parts, Scheduler};
use crate::standing::ModelStanding;
use crate::stats::{Counts, RefusedFor, Stats};
use crate::store::{Manifest, ModelStore, StoreError};
use crate::tuning::{self, Tasks, TuningStanding};
use crate::turns::Turns;
use crate::usage::{DeviceGauge, DeviceNow, UsageGauge};

/// A running node. Dropping it stops its threads; what was running is told to try elsewhere.
pub struct GpuNode {
    inbox: Arc<Inbox>,
    catalogue: Arc<Catalogue>,
    device_name: String,
    device_now: Arc<DeviceGauge>,
    usage: Arc<UsageGauge>,
    stats: Arc<Stats>,
    board: Arc<Board>,
    /// Requests that may wait and run.
    bounds: (usize, usize),
    /// Of fine-tuning, where it carries out any.
    tasks: Option<Arc<Tasks>>,
}

impl GpuNode {
    /// Starts the node's threads. Models are listed but not loaded; a directory that is missing
    /// or unreadable is logged and has no models until it appears.
    ///
    /// # Errors
    /// [`StartError`] when the system refuses threads, or the device that is named cannot be used.
    pub fn start(config: GpuConfig) -> Result<Arc<Self>, StartError> {
        Self::start_preparing(config, Arc::new(preparer::prepare), PREPARE_DEADLINE)
    }

    /// The same, with another way to read files, on the processor.
    #[cfg(test)]
    pub(crate) fn start_reading(config: GpuConfig, read: Arc<Read>) -> Result<Arc<Self>, StartError> {
        Self::start_on(ComputeDevice::cpu(), config, (Arc::new(preparer::prepare), PREPARE_DEADLINE), read)
    }

    /// The same, with another way to read requests, and another bound on its time.
    pub(crate) fn start_preparing(
        config: GpuConfig,
        prepare: Arc<Prepare>,
        deadline: Duration,
    ) -> Result<Arc<Self>, StartError> {
        let device = ComputeDevice::open(config.device, config.host_copies_bytes)?;
        let read = loader::reader(device.clone());
        Self::start_on(device, config, (prepare, deadline), read)
    }

    fn start_on(
        device: ComputeDevice,
        mut config: GpuConfig,
        (prepare, deadline): (Arc<Prepare>, Duration),
        read: Arc<Read>,
    ) -> Result<Arc<Self>, StartError> {
        if let Some(memory) = device.memory().filter(|memory| memory.free < config.capacity_bytes) {
            tracing::warn!(
                asked = config.capacity_bytes,
                free = memory.free,
                "the device has less memory than models may take"
            );
            config.capacity_bytes = memory.free;
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.threads)
            .thread_name(|index| format!("gpu-compute-{index}"))
            .build()
            .map_err(|error| StartError::Pool(error.to_string()))?;
        let inbox = Arc::new(Inbox::new(config.queue_bound));
        let limits = limits(&config);
        let store = config.store_dir.clone().map(ModelStore::new);
        let catalogue = Arc::new(Catalogue::new(config.models_dir.clone(), store, config.adapters.clone()));
        let models = catalogue.models();
        for model in config.strangers(&models) {
            tracing::warn!(model, "a priority is configured for a model that is not there");
        }
        let (usage, stats) = (Arc::new(UsageGauge::default()), Arc::new(Stats::default()));
        let (device_now, device_name) = (Arc::new(DeviceGauge::default()), device.name());
        let (board, bounds) = (Arc::new(Board::default()), (config.queue_bound, config.active_chats.max(1)));
        let scheduler = Scheduler::new(Parts {
            residency: Residency::new(Loader::start(&inbox, read)?),
            preparing: Preparing::new(Preparer::start(&inbox, &prepare)?, deadline),
            inbox: Arc::clone(&inbox),
            catalogue: Arc::clone(&catalogue),
            turns: Turns::new(limits),
            priorities: config.priorities,
            device,
            device_now: Arc::clone(&device_now),
            usage: Arc::clone(&usage),
            stats: Arc::clone(&stats),
            board: Arc::clone(&board),
        });
        let closing = Closing(Arc::clone(&inbox));
        std::thread::Builder::new().name("gpu-scheduler".to_owned()).spawn(move || {
            let _closing = closing;
            scheduler.run(&pool);
        })?;
        let tasks = config.tuning_dir.map(|folder| Arc::new(Tasks::new(folder)));
        if let Some(tasks) = &tasks {
            let started = tuning::start(Arc::clone(tasks), Arc::clone(&inbox), Arc::clone(&catalogue));
            started.inspect_err(|_| inbox.stop())?;
        }
        tracing::info!(
            device = device_name,
            models = models.len(),
            capacity_bytes = config.capacity_bytes,
            "gpu node started"
        );
        Ok(Arc::new(Self { inbox, catalogue, device_name, device_now, usage, stats, board, bounds, tasks }))
    }

    /// Bytes in use, as of the scheduler's last turn.
    pub fn usage(&self) -> Usage {
        self.usage.get().0
    }

    /// What models compute on: `cpu`, or the number and the name of a CUDA device.
    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// What the device says of its memory, as of a second ago. None: it is the system's memory.
    pub fn device_now(&self) -> Option<DeviceNow> {
        self.device_now.get()
    }

    /// Bytes of KV caches, as of the scheduler's last turn; they are part of what is reserved.
    pub fn kv_usage(&self) -> KvUsage {
        self.usage.get().1
    }

    /// Waits until the device is the caller's alone: no model is in memory then, and requests are told
    /// when to come again. Dropping the future stops asking.
    ///
    /// # Errors
    /// When what runs does not end in time, somebody has the device, or the node is stopping.
    pub async fn exclusive(&self, terms: ExclusiveTerms) -> Result<ExclusiveDevice, InferenceError> {
        exclusive::ask(&self.inbox, terms).await
    }

    /// Serves the models that a state declares from now on, and those of its own directory. What runs goes on; weights of
    /// models that are declared no more go when nobody uses them. Reads headers of files: not for a thread that serves calls.
    pub fn declare(&self, state: &Snapshot) {
        let declared = state.of_kind(Kind::Model).filter_map(|resource| match &resource.spec {
            Spec::Model(spec) => Some((resource.metadata.name.to_string(), Arc::new(spec.clone()))),
            _ => None,
        });
        if self.catalogue.declare(declared.collect()) {
            self.inbox.order(Order::Declared);
        }
    }

    /// Whether a state was declared. Until then a model that is there for some tenants only is not known as such.
    pub fn is_told(&self) -> bool {
        self.catalogue.is_told()
    }

    /// Removes stored models that no declared model names and no request uses; where this is for show, only says which. One that is
    /// asked for and used is refused.
    ///
    /// # Errors
    /// [`ModelRefusal`]: what was asked for is not there or is used, the node was not told yet what is declared, or the store is
    /// busy or cannot be changed.
    pub async fn remove_stored(&self, what: Removal, is_for_show: bool) -> Result<Vec<StoredModel>, ModelRefusal> {
        let (reply, answer) = oneshot::channel();
        self.inbox.order(Order::Uses { reply });
        let in_use = answer.await.map_err(|_| stopping())?;
        let catalogue = self.catalogue.clone();
        aside(move || removal::remove(&catalogue, &what, is_for_show, &in_use)).await
    }

    /// How the tasks of fine-tuning stand that this node looks for, in order of their names.
    ///
    /// # Errors
    /// [`ModelRefusal`] when their folder cannot be read.
    pub async fn tunings(&self) -> Result<Vec<TuningStanding>, ModelRefusal> {
        match self.tasks.clone() {
            Some(tasks) => aside(move || tasks.standings()).await,
            None => Ok(Vec::new()),
        }
    }

    /// Ends a task of fine-tuning that has not ended; what it has learned stays on the disk.
    ///
    /// # Errors
    /// [`ModelRefusal`] when there is none of that name, it has ended, or its folder cannot be written.
    pub async fn cancel_tuning(&self, name: &str) -> Result<TuningStanding, ModelRefusal> {
        let Some(tasks) = self.tasks.clone() else { return Err(tuning::no_task(name)) };
        let name = name.to_owned();
        aside(move || tasks.cancel(&name)).await
    }

    /// Copies models that are declared by their digest and are not in the store from `peers` that have them, and leaves free
    /// `reserve_bytes` of the disk. It has no end of its own: dropping the future stops copying.
    pub fn fetch_models(
        &self,
        peers: watch::Receiver<Vec<BlobPeer>>,
        reserve_bytes: u64,
    ) -> impl Future<Output = ()> + Send + use<> {
        copies::follow(self.catalogue.clone(), peers, reserve_bytes)
    }

    /// Place and manifest of a stored model, if it is declared. Reads its manifest.
    pub(crate) fn offered(&self, digest: FileDigest) -> Result<Option<(PathBuf, Manifest)>, StoreError> {
        let Some(store) = self.catalogue.store().filter(|_| !self.catalogue.named(digest).is_empty()) else {
            return Ok(None);
        };
        Ok(store.manifest_of(digest)?.map(|manifest| (store.place_of(digest), manifest)))
    }

    /// Follows an order about a model, and waits until it was followed. Dropping the future stops waiting.
    ///
    /// # Errors
    /// [`ModelRefusal`] when it is not followed.
    pub async fn order(&self, name: &str, order: ModelOrder) -> Result<ModelStanding, ModelRefusal> {
        let (reply, answer) = oneshot::channel();
        self.inbox.order(Order::Of { name: name.to_owned(), order, reply });
        answer.await.unwrap_or_else(|_| Err(ModelRefusal(error::stopping().message)))
    }

    /// How all models stand, in order of name.
    pub async fn standings(&self) -> Vec<ModelStanding> {
        let (reply, answer) = oneshot::channel();
        self.inbox.order(Order::List { reply });
        answer.await.unwrap_or_default()
    }

    /// What happened since the start, and who waits and runs as of the scheduler's last turn.
    pub fn counts(&self) -> Counts {
        self.stats.counts()
    }

    fn submit(&self, work: Work) -> Result<(), InferenceError> {
        self.inbox.submit(work).map_err(|refused| match refused {
            Refused::Full { wait } => {
                self.stats.refused(RefusedFor::NoPlace);
                error::queue_full(wait)
            }
            Refused::Stopping => error::stopping(),
        })
    }
}

/// Reads and writes files on a thread for that.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ModelRefusal> + Send + 'static,
) -> Result<T, ModelRefusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(stopping()))
}

fn stopping() -> ModelRefusal {
    ModelRefusal(error::stopping().message)
}

/// The arbiter's bounds. What requests compute with is in their budgets, so nothing is kept back for it.
fn limits(config: &GpuConfig) -> Limits {
    Limits {
        headroom_bytes: 0,
        queue_bound: config.queue_bound.max(1),
        active_bound: config.active_chats.max(1),
        cache_bytes: config.kv_cache_bytes,
        residency_loads: config.residency_loads,
        early_eviction: config.early_eviction,
        ..Limits::new(config.capacity_bytes)
    }
}

impl Drop for GpuNode {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

impl Inference for GpuNode {
    fn models(&self) -> Vec<ModelInfo> {
        self.catalogue.models()
    }

    fn is_seen_by(&self, model: &str, tenant: &str) -> bool {
        self.catalogue.is_seen_by(model, tenant)
    }

    fn base_of(&self, model: &str) -> Option<String> {
        self.catalogue.base_of(model)
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.submit(Work::Embed { request: Arc::new(request), reply })?;
            answer.await.unwrap_or_else(|_| Err(error::stopping()))
        })
    }

    fn transcribe(&self, request: TranscribeRequest) -> BoxFuture<'_, Result<Transcript, InferenceError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.submit(Work::Speech { request: Arc::new(request), reply })?;
            answer.await.unwrap_or_else(|_| Err(error::stopping()))
        })
    }

    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.submit(Work::Chat { request: Arc::new(request), reply })?;
            let events = answer.await.unwrap_or_else(|_| Err(error::stopping()))?;
            let stream: BoxStream<'static, _> = Box::pin(Answer { events });
            Ok(stream)
        })
    }

    fn report(&self) -> Option<GpuReport> {
        let (now, usage, (waiting, wait)) = (self.board.now(), self.usage(), self.inbox.waiting());
        let model = |(info, weight_bytes): (ModelInfo, u64)| {
            let of = now.models.get(&info.name).copied().unwrap_or_default();
            let assumed = Duration::from_micros(weight_bytes / ASSUMED_BYTES_PER_MICRO);
            ModelReport {
                info,
                state: of.state,
                weight_bytes,
                load_ms: millis(of.load.unwrap_or(assumed)),
                waiting: of.waiting,
                running: of.running,
                tokens_per_s: of.tokens_per_s,
            }
        };
        Some(GpuReport {
            models: self.catalogue.sizes().into_iter().map(model).collect(),
            tenants: self.catalogue.restricted(),
            bases: self.catalogue.bases(),
            waiting: waiting as u64,
            places: self.bounds.0 as u64,
            running: self.stats.counts().running,
            slots: self.bounds.1 as u64,
            service_ms: now.service_micros / 1_000,
            retry_after_ms: millis(wait),
            capacity_bytes: usage.capacity,
            used_bytes: usage.weights.saturating_add(usage.reserved),
            draining: false,
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The events of an answer; dropping it cancels the generation.
struct Answer {
    events: Events,
}

impl Stream for Answer {
    type Item = Result<ChatEvent, InferenceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(cx)
    }
}
