//! The threads that read requests before the device has to do with them: templates, tokens, grammars. A large schema takes its
//! time there, and answers go on meanwhile.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use provost_gpu_infer::{ChatPreparation, EmbedJob, InferError, SpeechJob, SpeechRequest, SpeechText};
use provost_types::TranscribeRequest;

use crate::catalogue::Entry;
use crate::contain::contained;
use crate::inbox::Inbox;
use crate::job::Asked;
use crate::loader::TextSide;
use crate::turns::Prepared;

/// Requests that are read at the same time; each may take a processor.
pub(crate) const PREPARERS: usize = 2;

/// A request to be read.
pub(crate) struct Task {
    pub(crate) number: u64,
    pub(crate) asked: Asked,
    /// Its model, with the text side as it was when it was asked for.
    pub(crate) entry: Arc<Entry>,
    pub(crate) text: TextSide,
}

/// What came of it.
pub(crate) struct Done {
    pub(crate) number: u64,
    pub(crate) result: Result<Prepared, InferError>,
}

/// How a request is read; tests have their own.
pub(crate) type Prepare = dyn Fn(&Task) -> Result<Prepared, InferError> + Send + Sync;

/// The scheduler's end.
pub(crate) struct Preparer {
    tasks: SyncSender<Task>,
}

impl Preparer {
    /// Starts the threads; they end with the scheduler or with the inbox.
    pub(crate) fn start(inbox: &Arc<Inbox>, prepare: &Arc<Prepare>) -> std::io::Result<Self> {
        let (tasks, received) = sync_channel(PREPARERS);
        let received = Arc::new(Mutex::new(received));
        for n in 0..PREPARERS {
            let (received, inbox, prepare) = (Arc::clone(&received), Arc::downgrade(inbox), Arc::clone(prepare));
            let thread = std::thread::Builder::new().name(format!("gpu-prepare-{n}"));
            thread.spawn(move || run(&received, &inbox, prepare.as_ref()))?;
        }
        Ok(Self { tasks })
    }

    /// Begins a task, of which there are at most [`PREPARERS`] at a time. False: the threads are gone.
    pub(crate) fn begin(&self, task: Task) -> bool {
        self.tasks.try_send(task).is_ok()
    }
}

fn run(tasks: &Mutex<Receiver<Task>>, inbox: &Weak<Inbox>, prepare: &Prepare) {
    loop {
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else { return };
        // A template or a schema may be odd in a way that nobody has thought of: other requests are still to be read.
        let done = Done { number: task.number, result: contained(|| prepare(&task)) };
        drop(task);
        let Some(inbox) = inbox.upgrade() else {
            return;
        };
        inbox.deliver_prepared(done);
    }
}

/// Reads a request.
pub(crate) fn prepare(task: &Task) -> Result<Prepared, InferError> {
    let context = task.entry.source.as_ref().map_err(Clone::clone)?.info().context_tokens as usize;
    match (&task.asked, &task.text) {
        (Asked::Chat(request), TextSide::Chat(text) | TextSide::Tuned(text, _)) => {
            Ok(Prepared::Chat(Box::new(ChatPreparation::of(text, request, context)?)))
        }
        (Asked::Embed(request), TextSide::Embedding(text)) => {
            Ok(Prepared::Embed(EmbedJob::of(text, &request.inputs, context)?))
        }
        (Asked::Speech(request), TextSide::Speech(text)) => Ok(Prepared::Speech(Box::new(heard(text, request)?))),
        // The kind was checked against the same catalogue entry; this keeps the match total.
        (Asked::Chat(_) | Asked::Embed(_) | Asked::Speech(_), _) => {
            Err(InferError::Failed("the model changed its kind".to_owned()))
        }
    }
}

/// Decodes a recording.
fn heard(text: &SpeechText, request: &TranscribeRequest) -> Result<SpeechJob, InferError> {
    let request = SpeechRequest {
        audio: Arc::from(&request.sound.bytes()[..]),
        language: request.language.clone(),
        prompt: request.prompt.clone(),
        temperature: request.temperature,
        timestamps: request.timestamps,
    };
    SpeechJob::of(text, &request)
}
