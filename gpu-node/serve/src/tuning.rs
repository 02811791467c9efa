//! Tasks of fine-tuning, carried out while the device is theirs alone.
//!
//! A thread looks for tasks in a folder ([`TaskFolder`]). For each it asks for the device as anybody does who wants it alone: what runs
//! runs to its end, models go, requests are told when to come again, and afterwards the models come back. Tasks are on
//! disk: one that was interrupted, be it by the end of the process, is open still and goes on from its checkpoint.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use provost_gpu_infer::{
    InferError, ModelSource, TaskFolder, TaskState, TuneError, TuneSettings, TuneStep, TuneTask, Tuned, fine_tune,
};

use crate::catalogue::Catalogue;
use crate::exclusive::{self, ExclusiveDevice, ExclusiveTerms};
use crate::inbox::Inbox;
use crate::orders::ModelRefusal;

/// So often tasks are looked for, and the end of the node is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a task that did not get the device, or had its time, so many looks are left out: meanwhile others are served.
const LOOKS_OF_REST: u32 = 60;
/// What the cluster declares is known so long after the start at the latest; before, a model that is not there may be coming.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// What runs may run on for this long before a task begins; then it waits.
const DRAIN: Duration = Duration::from_secs(300);
/// A task whose thread shows no sign of life for so long has the device no more.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// A task has the device for this long at most; one that needs longer goes on with its next turn.
const MOST: Duration = Duration::from_secs(6 * 3600);

/// The tasks of a node.
#[derive(Debug)]
pub(crate) struct Tasks {
    folder: PathBuf,
    /// The one that is being carried out here.
    current: Mutex<Option<String>>,
}

impl Tasks {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, current: Mutex::new(None) }
    }

    /// How each of them stands, in order of their names. Reads their files.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn standings(&self) -> Result<Vec<TuningStanding>, ModelRefusal> {
        let all = TaskFolder::all(&self.folder).map_err(|cause| {
            let place = self.folder.display();
            ModelRefusal(format!("PV-TUNE-FOLDER: {place}: {cause}; make the folder of `gpu.tuning_dir`"))
        })?;
        Ok(all.iter().map(|task| self.standing(task)).collect())
    }

    /// Ends a task that has not ended.
    ///
    /// # Errors
    /// When there is none of that name, it has ended, or that cannot be written.
    pub(crate) fn cancel(&self, name: &str) -> Result<TuningStanding, ModelRefusal> {
        let Some(task) = TaskFolder::find(&self.folder, name) else {
            return Err(no_task(name));
        };
        match task.cancel() {
            Ok(true) => Ok(self.standing(&task)),
            Ok(false) => Err(ModelRefusal(format!(
                "PV-TUNE-ENDED: the task `{name}` has ended; `provost finetune status {name}` says how"
            ))),
            Err(cause) => Err(ModelRefusal(cause.to_string())),
        }
    }

    fn standing(&self, task: &TaskFolder) -> TuningStanding {
        let (name, last) = (task.name(), task.last_step());
        let wanted = task.task();
        let is_here = self.lock().as_ref() == Some(&name);
        let (state, reason) = match (task.state(), &wanted) {
            (Ok(TaskState::Complete(_)), _) => (TuningState::Complete, String::new()),
            (Ok(TaskState::Failed(why)), _) => (TuningState::Failed, why),
            (Ok(TaskState::Open), Ok(_)) if is_here => (TuningState::Running, String::new()),
            (Ok(TaskState::Open), Ok(_)) => (TuningState::Waiting, String::new()),
            (Ok(TaskState::Open), Err(cause)) => (TuningState::Waiting, cause.to_string()),
            (Err(cause), _) => (TuningState::Waiting, cause.to_string()),
        };
        let steps = wanted.as_ref().map_or(0, |task| task.settings.steps);
        TuningStanding {
            name,
            model: wanted.map(|task| task.model).unwrap_or_default(),
            state,
            step: last.as_ref().map_or(0, |step| step.step),
            steps,
            loss: last.map(|step| step.loss),
            reason,
            adapter: task.adapter(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn no_task(name: &str) -> ModelRefusal {
    ModelRefusal(format!(
        "PV-TUNE-NOT-FOUND: no task of fine-tuning `{name}` here; `provost finetune list` lists those of all nodes"
    ))
}

/// How a task of fine-tuning stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TuningStanding {
    /// Its name.
    pub name: String,
    /// The model that it is for; empty: that cannot be read.
    pub model: String,
    /// Where it stands.
    pub state: TuningState,
    /// The last step that was told; 0: none was.
    pub step: u64,
    /// Steps in all; 0: that cannot be read.
    pub steps: u64,
    /// The loss of the last step.
    pub loss: Option<f32>,
    /// Why it failed, or cannot be read.
    pub reason: String,
    /// Where the adapter is on the node once the task is complete.
    pub adapter: PathBuf,
}

/// Where a task of fine-tuning stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TuningState {
    /// It waits, or another node carries it out.
    Waiting,
    /// This node carries it out.
    Running,
    /// The adapter is there.
    Complete,
    /// It ended without an adapter.
    Failed,
}

impl TuningState {
    /// The state in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

/// Starts the thread; it ends with the node.
pub(crate) fn start(tasks: Arc<Tasks>, inbox: Arc<Inbox>, catalogue: Arc<Catalogue>) -> std::io::Result<()> {
    let began = Instant::now();
    std::thread::Builder::new().name("gpu-tuning".to_owned()).spawn(move || {
        while !inbox.is_stopping() {
            let after = match TaskFolder::next(&tasks.folder) {
                Ok(Some(task)) if may_be_coming(&task, &catalogue, began) => After::Look,
                Ok(Some(task)) => {
                    *tasks.lock() = Some(task.name());
                    let after = carry_out(&task, &inbox, &catalogue);
                    *tasks.lock() = None;
                    after
                }
                Ok(None) => After::Look,
                Err(cause) => {
                    tracing::debug!(%cause, folder = %tasks.folder.display(), "no tasks of fine-tuning");
                    After::Look
                }
            };
            let looks = if after == After::Rest { LOOKS_OF_REST } else { 1 };
            for _ in 0..looks {
                if !inbox.is_stopping() {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    })?;
    Ok(())
}

/// What follows a task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The next one.
    Look,
    /// Time for others.
    Rest,
}

/// Whether the model of a task is not there because the node has just begun.
fn may_be_coming(task: &TaskFolder, catalogue: &Catalogue, began: Instant) -> bool {
    let is_early = !catalogue.is_told() && began.elapsed() < TOLD_WITHIN;
    is_early && task.task().is_ok_and(|task| catalogue.find(&task.model).is_none())
}

/// Trains, and ends the task unless it is to go on later.
fn carry_out(task: &TaskFolder, inbox: &Inbox, catalogue: &Catalogue) -> After {
    let result = match base(task, catalogue) {
        Err(cause) => Err(cause),
        Ok((base, settings)) => {
            let terms = ExclusiveTerms { drain: DRAIN, heartbeat: HEARTBEAT, most: MOST };
            let device = match futures::executor::block_on(exclusive::ask(inbox, terms)) {
                Ok(device) => device,
                Err(cause) => {
                    tracing::info!(task = task.name(), %cause, "a fine-tuning waits for the device");
                    return After::Rest;
                }
            };
            tracing::info!(task = task.name(), "a fine-tuning has the device");
            alive(&device, || train(task, &device, &base, &settings))
        }
    };
    // Who cancelled it was told so: that holds, also where the last step was under way.
    if has_ended(task) {
        tracing::info!(task = task.name(), "a fine-tuning was cancelled, or ended elsewhere");
        return After::Look;
    }
    match &result {
        Err(cause @ TuneError::InUse(_)) => {
            // To learn that, models went from memory.
            tracing::info!(task = task.name(), %cause, "a fine-tuning is carried out by somebody else");
            return After::Rest;
        }
        Ok(tuned) if !tuned.is_complete => {
            tracing::info!(task = task.name(), step = tuned.steps, "a fine-tuning was interrupted, and goes on later");
            return After::Rest;
        }
        Ok(tuned) => tracing::info!(task = task.name(), steps = tuned.steps, "a fine-tuning is complete"),
        Err(cause) => tracing::warn!(task = task.name(), %cause, "a fine-tuning failed"),
    }
    if let Err(cause) = task.end(&result) {
        tracing::error!(task = task.name(), %cause, "the result of a fine-tuning cannot be written");
        return After::Rest;
    }
    After::Look
}

/// Whether somebody has ended it meanwhile.
fn has_ended(task: &TaskFolder) -> bool {
    task.state().is_ok_and(|state| state != TaskState::Open)
}

/// The model that a task is for, before anybody has to stop for it.
fn base(task: &TaskFolder, catalogue: &Catalogue) -> Result<(ModelSource, TuneSettings), TuneError> {
    let TuneTask { model, settings } = task.task()?;
    let Some(entry) = catalogue.find(&model) else {
        let cause = "there is no such model on this node".to_owned();
        return Err(TuneError::Model(InferError::Unsupported { model, cause }));
    };
    // What has been changed on disk is not trained on.
    entry.check()?;
    Ok((entry.source.clone()?, settings))
}

/// Shows signs of life while `work` goes on: a step may take longer than one is waited for.
fn alive<T>(device: &ExclusiveDevice, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beats = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) && device.beat() {
                std::thread::park_timeout(HEARTBEAT / 4);
            }
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        beats.thread().unpark();
        done
    })
}

fn train(
    task: &TaskFolder,
    device: &ExclusiveDevice,
    base: &ModelSource,
    settings: &TuneSettings,
) -> Result<Tuned, TuneError> {
    let mut is_told_of = false;
    let mut watch = |step: &TuneStep| {
        // Said once: what is trained is worth more than what is told of it.
        if let Err(cause) = task.tell(step)
            && !std::mem::replace(&mut is_told_of, true)
        {
            tracing::warn!(task = task.name(), %cause, "the steps of a fine-tuning cannot be written");
        }
        if device.is_over() || has_ended(task) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    fine_tune(base, &task.data(), &task.adapter(), settings, &mut watch)
}
