//! The thread that reads model files, so that running answers go on meanwhile.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use provost_gpu_infer::{Adapter, ChatText, ComputeDevice, EmbeddingText, InferError, Network, SpeechText};
use provost_gpu_vram::WeightsKey;
use provost_types::ModelKind;

use crate::catalogue::Entry;
use crate::contain::contained;
use crate::inbox::Inbox;

/// Something to read; one at a time.
pub(crate) struct Task {
    pub(crate) entry: Arc<Entry>,
    pub(crate) part: Part,
}

/// Which part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The digest of its weights.
    Digest,
    /// Tokenizer and template, and the adapter of a model that has one.
    Text,
    /// The weights.
    Network(WeightsKey),
}

/// What was read.
pub(crate) struct Loaded {
    pub(crate) entry: Arc<Entry>,
    pub(crate) part: Part,
    pub(crate) result: Result<Content, InferError>,
    pub(crate) took: Duration,
}

pub(crate) enum Content {
    Digest(WeightsKey),
    Text(TextSide),
    Network(Network),
}

/// The text side by kind of model.
#[derive(Clone)]
pub(crate) enum TextSide {
    Chat(Arc<ChatText>),
    /// With an adapter, which is in the books from when it is read on.
    Tuned(Arc<ChatText>, Arc<Adapter>),
    Embedding(Arc<EmbeddingText>),
    Speech(Arc<SpeechText>),
}

/// How something is read; tests have their own.
pub(crate) type Read = dyn Fn(&Entry, Part) -> Result<Content, InferError> + Send + Sync;

/// Reads files, and brings weights to a device.
pub(crate) fn reader(device: ComputeDevice) -> Arc<Read> {
    Arc::new(move |entry: &Entry, part: Part| read(entry, part, &device))
}

/// The scheduler's end.
pub(crate) struct Loader {
    tasks: SyncSender<Task>,
    busy: bool,
}

impl Loader {
    /// Starts the thread; it ends with the scheduler or with the inbox.
    pub(crate) fn start(inbox: &Arc<Inbox>, read: Arc<Read>) -> std::io::Result<Self> {
        let (tasks, received) = sync_channel(1);
        let inbox = Arc::downgrade(inbox);
        std::thread::Builder::new()
            .name("gpu-loader".to_owned())
            .spawn(move || run(&received, &inbox, read.as_ref()))?;
        Ok(Self { tasks, busy: false })
    }

    /// Begins a task unless another is under way.
    pub(crate) fn begin(&mut self, task: Task) -> bool {
        if self.busy {
            return false;
        }
        self.busy = self.tasks.try_send(task).is_ok();
        self.busy
    }

    /// To be called when a result has been taken in.
    pub(crate) fn finished(&mut self) {
        self.busy = false;
    }
}

fn run(tasks: &Receiver<Task>, inbox: &Weak<Inbox>, read: &Read) {
    while let Ok(Task { entry, part }) = tasks.recv() {
        let began = Instant::now();
        // A file may be damaged in a way that nobody has thought of: other models are still to be read.
        let result = contained(|| read(&entry, part));
        let loaded = Loaded { entry, part, result, took: began.elapsed() };
        let Some(inbox) = inbox.upgrade() else {
            return;
        };
        inbox.deliver(loaded);
    }
}

fn read(entry: &Entry, part: Part, device: &ComputeDevice) -> Result<Content, InferError> {
    // What has been changed on disk is not loaded, and what was changed while it was loaded is not used.
    entry.check()?;
    let content = read_part(entry, part, device).and_then(|content| entry.check_same().map(|()| content));
    if let (Part::Network(key), Err(cause)) = (part, &content)
        && *cause != InferError::OutOfMemory
    {
        // What the host has kept of them may not be what they are known by.
        device.forget(key.digest());
    }
    content
}

fn read_part(entry: &Entry, part: Part, device: &ComputeDevice) -> Result<Content, InferError> {
    let source = entry.source.as_ref().map_err(Clone::clone)?;
    match part {
        Part::Digest => Ok(Content::Digest(WeightsKey::new(source.digest()?))),
        Part::Network(key) => Ok(Content::Network(source.load_network_on(device, key.digest())?)),
        Part::Text => Ok(Content::Text(match source.info().kind {
            ModelKind::Chat => {
                let text = Arc::new(source.load_chat_text()?);
                match source.load_adapter_on(device)? {
                    Some(adapter) => TextSide::Tuned(text, Arc::new(adapter)),
                    None => TextSide::Chat(text),
                }
            }
            ModelKind::Embedding => TextSide::Embedding(Arc::new(source.load_embedding_text()?)),
            ModelKind::Speech => TextSide::Speech(Arc::new(source.load_speech_text()?)),
        })),
    }
}
