//! Fine-tunings that somebody else carries out: a folder each, which says all of it and keeps what comes of it.
//!
//! | file | |
//! |---|---|
//! | `task.json` | the model's name and the settings |
//! | `data.jsonl` | the conversations |
//! | `progress.jsonl` | each step on a line; those after the last checkpoint come twice where a run was killed |
//! | `adapter/` | the checkpoint, and the adapter in the end |
//! | `result.json` | how it ended; not there while it waits or runs |
//!
//! A task is put in place by one renaming, and is over by another: whoever dies in between leaves a task that waits.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{TuneError, TuneSettings, TuneStep, Tuned};

const TASK_FILE: &str = "task.json";
const DATA_FILE: &str = "data.jsonl";
const PROGRESS_FILE: &str = "progress.jsonl";
const RESULT_FILE: &str = "result.json";
const ADAPTER_FOLDER: &str = "adapter";
/// Longest name of a task, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Most tasks of a folder that are listed.
const MOST_LISTED: usize = 1000;
/// Largest file of a task, but for its data, that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Bytes at the end of `progress.jsonl` in which the last step is: a step has far fewer.
const LAST_BYTES: u64 = 4096;

/// What is to be trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneTask {
    /// The name of the base where the task is carried out.
    pub model: String,
    /// How.
    #[serde(default)]
    pub settings: TuneSettings,
}

/// The folder of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFolder(PathBuf);

/// How far a task is.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskState {
    /// It waits, or somebody carries it out.
    Open,
    /// The adapter is there.
    Complete(Tuned),
    /// It ended without an adapter.
    Failed(String),
}

/// `result.json`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Outcome {
    Failed { error: String },
    Complete(Tuned),
}

impl TuneTask {
    /// Puts a task with a copy of its data among the others of a folder.
    ///
    /// # Errors
    /// When the settings make no sense, the name is taken or is none, or the files cannot be read and written.
    pub fn put(&self, tasks: &Path, name: &str, data: &Path) -> Result<TaskFolder, TuneError> {
        self.settings.check()?;
        if !is_name(name) {
            return Err(TuneError::Settings(format!(
                "`{name}` is no name of a task: it has letters, digits, `.`, `_` and `-`, and does not begin with `.`"
            )));
        }
        let (place, aside) = (tasks.join(name), tasks.join(format!(".{name}.{}", std::process::id())));
        let failed = |cause: &dyn std::fmt::Display| TuneError::folder(&place, cause);
        if place.exists() {
            return Err(failed(&"there is a task of this name"));
        }
        let text = serde_json::to_vec_pretty(self).map_err(|cause| failed(&cause))?;
        let put = || {
            fs::create_dir_all(&aside)?;
            fs::copy(data, aside.join(DATA_FILE))?;
            fs::write(aside.join(TASK_FILE), text)?;
            for file in [DATA_FILE, TASK_FILE] {
                fs::File::open(aside.join(file))?.sync_all()?;
            }
            fs::File::open(&aside)?.sync_all()?;
            fs::rename(&aside, &place)?;
            fs::File::open(tasks)?.sync_all()
        };
        match put() {
            Ok(()) => Ok(TaskFolder(place.clone())),
            Err(cause) => {
                // What is left would be in nobody's way, and is no task.
                let _ = fs::remove_dir_all(&aside);
                Err(failed(&cause))
            }
        }
    }
}

impl TaskFolder {
    /// The task of a folder that is open, is not carried out by somebody and has waited longest; none where there is none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn next(tasks: &Path) -> std::io::Result<Option<Self>> {
        let mut open: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(tasks)? {
            let path = entry?.path();
            let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            let put = path.join(TASK_FILE).metadata().and_then(|metadata| metadata.modified());
            if let (false, Ok(put)) = (is_hidden || path.join(RESULT_FILE).exists(), put) {
                open.push((put, path));
            }
        }
        open.sort();
        let mut free = open.into_iter().filter(|(_, path)| !super::folder::is_taken(&path.join(ADAPTER_FOLDER)));
        Ok(free.next().map(|(_, path)| Self(path)))
    }

    /// The task of this name, if there is one.
    pub fn find(tasks: &Path, name: &str) -> Option<Self> {
        let place = tasks.join(name);
        (is_name(name) && place.join(TASK_FILE).is_file()).then_some(Self(place))
    }

    /// The tasks of a folder in order of their names, of very many the first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all(tasks: &Path) -> std::io::Result<Vec<Self>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(tasks)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names.iter().filter_map(|name| Self::find(tasks, name)).take(MOST_LISTED).collect())
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether it was put for the same as `task`.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn is_for(&self, task: &TuneTask) -> Result<bool, TuneError> {
        let file = self.0.join(TASK_FILE);
        let text = fs::read(&file).map_err(|cause| TuneError::folder(&file, cause))?;
        // As texts: a number that was read need not be the one that was written to its last bit.
        Ok(serde_json::to_vec_pretty(task).is_ok_and(|wanted| wanted == text))
    }

    /// What is to be trained.
    ///
    /// # Errors
    /// When that cannot be read, or a file of the task is a link.
    pub fn task(&self) -> Result<TuneTask, TuneError> {
        if let Some(link) = super::folder::link_in(&self.0).map_err(|cause| TuneError::folder(&self.0, cause))? {
            return Err(TuneError::folder(&link, "is a link; a task has its files itself"));
        }
        let file = self.0.join(TASK_FILE);
        let bytes = read_small(&file).map_err(|cause| TuneError::folder(&file, cause))?;
        serde_json::from_slice(&bytes).map_err(|cause| TuneError::folder(&file, cause))
    }

    /// The conversations.
    pub fn data(&self) -> PathBuf {
        self.0.join(DATA_FILE)
    }

    /// Where the adapter is once the task is complete.
    pub fn adapter(&self) -> PathBuf {
        self.0.join(ADAPTER_FOLDER)
    }

    /// Where steps are told, each on a line.
    pub fn progress(&self) -> PathBuf {
        self.0.join(PROGRESS_FILE)
    }

    /// Tells a step to whoever reads along.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tell(&self, step: &TuneStep) -> Result<(), TuneError> {
        let file = self.progress();
        let mut line = serde_json::to_vec(step).map_err(|cause| TuneError::folder(&file, cause))?;
        line.push(b'\n');
        let written =
            OpenOptions::new().create(true).append(true).open(&file).and_then(|mut file| file.write_all(&line));
        written.map_err(|cause| TuneError::folder(&file, cause))
    }

    /// The last step that was told; none where none was, or what was told cannot be read.
    pub fn last_step(&self) -> Option<TuneStep> {
        let length = length_of(&self.progress()).ok()?;
        let mut file = fs::File::open(self.progress()).ok()?;
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES))).ok()?;
        let mut end = Vec::new();
        file.take(LAST_BYTES).read_to_end(&mut end).ok()?;
        // The first line may be cut off, and the last one in the making.
        end.split(|byte| *byte == b'\n').rev().find_map(|line| serde_json::from_slice(line).ok())
    }

    /// Ends a task that is open: whoever carries it out lets go of it with the next step. False: it has ended before.
    ///
    /// # Errors
    /// When that cannot be read or written.
    pub fn cancel(&self) -> Result<bool, TuneError> {
        let is_open = self.state()? == TaskState::Open;
        if is_open {
            self.end(&Err(TuneError::Cancelled))?;
        }
        Ok(is_open)
    }

    /// How far it is.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn state(&self) -> Result<TaskState, TuneError> {
        let file = self.0.join(RESULT_FILE);
        let bytes = match read_small(&file) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(TaskState::Open),
            Err(cause) => return Err(TuneError::folder(&file, cause)),
        };
        match serde_json::from_slice(&bytes).map_err(|cause| TuneError::folder(&file, cause))? {
            Outcome::Failed { error } => Ok(TaskState::Failed(error)),
            Outcome::Complete(tuned) => Ok(TaskState::Complete(tuned)),
        }
    }

    /// Ends the task.
    ///
    /// # Errors
    /// When that cannot be written: the task stays open.
    pub fn end(&self, result: &Result<Tuned, TuneError>) -> Result<(), TuneError> {
        let said = match result {
            Ok(tuned) => json!(tuned),
            Err(cause) => json!({ "error": cause.to_string() }),
        };
        super::folder::write_whole(&self.0, RESULT_FILE, format!("{said:#}\n").as_bytes())
    }
}

/// Bytes of a file that is one itself. Whoever may put tasks could put something there that leads elsewhere or never ends.
fn length_of(file: &Path) -> std::io::Result<u64> {
    let facts = fs::symlink_metadata(file)?;
    if facts.is_file() { Ok(facts.len()) } else { Err(std::io::Error::other("it is no file of the task itself")) }
}

fn read_small(file: &Path) -> std::io::Result<Vec<u8>> {
    if length_of(file)? > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a task may be called so: in its folder, and not hidden.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && !name.starts_with('.') && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_task_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, other) = (folder.path().join("tasks"), folder.path().join("other"));
        fs::create_dir(&tasks).unwrap();
        fs::write(&other, "of somebody else").unwrap();
        let wanted = TuneTask { model: "m".to_owned(), settings: TuneSettings::default() };
        let task = wanted.put(&tasks, "first", &other).unwrap();
        fs::create_dir(task.adapter()).unwrap();
        assert_eq!(task.task().unwrap(), wanted);
        for link in [task.progress(), task.adapter().join("checkpoint.safetensors")] {
            std::os::unix::fs::symlink(&other, &link).unwrap();
            let why = task.task().unwrap_err().to_string();
            assert!(why.contains("is a link") && why.contains(&*link.to_string_lossy()), "{why}");
            fs::remove_file(&link).unwrap();
        }
        // That is told without writing through another one.
        std::os::unix::fs::symlink(&other, tasks.join("first/.result.json.new")).unwrap();
        task.end(&Err(TuneError::Diverged { step: 1 })).unwrap();
        assert!(matches!(task.state().unwrap(), TaskState::Failed(_)));
        assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
    }

    #[test]
    fn tasks_are_listed_with_their_last_step_and_can_be_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, data) = (folder.path().join("tasks"), folder.path().join("data"));
        fs::create_dir(&tasks).unwrap();
        fs::write(&data, "{}\n").unwrap();
        fs::create_dir(tasks.join("no-task")).unwrap();
        let task = TuneTask { model: "m".to_owned(), settings: TuneSettings::default() };
        let second = task.put(&tasks, "second", &data).unwrap();
        let first = task.put(&tasks, "first", &data).unwrap();
        assert_eq!(TaskFolder::all(&tasks).unwrap(), [first.clone(), second]);
        assert_eq!(TaskFolder::find(&tasks, "../tasks/first"), None);
        assert_eq!(first.last_step(), None);
        for step in 1..=100 {
            first.tell(&TuneStep { step, steps: 100, loss: 0.5, tokens: 7, tokens_per_second: 1.5 }).unwrap();
        }
        let mut file = OpenOptions::new().append(true).open(first.progress()).unwrap();
        file.write_all(b"{\"step\": 10").unwrap();
        assert_eq!(first.last_step().map(|step| step.step), Some(100));
        assert!(first.cancel().unwrap() && !first.cancel().unwrap());
        assert!(matches!(first.state().unwrap(), TaskState::Failed(why) if why.starts_with("PV-TUNE-CANCELLED")));
        assert!(TaskFolder::next(&tasks).unwrap().is_some_and(|next| next.name() == "second"));
    }

    #[test]
    fn what_is_no_file_of_a_task_or_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, data) = (folder.path().join("tasks"), folder.path().join("data"));
        fs::create_dir(&tasks).unwrap();
        fs::write(&data, "{}\n").unwrap();
        let task = TuneTask { model: "m".to_owned(), settings: TuneSettings::default() };
        let put = task.put(&tasks, "one", &data).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, r#"{"step":1,"steps":2,"loss":0.5,"tokens":7,"tokens_per_second":1.5}"#).unwrap();
        std::os::unix::fs::symlink(&elsewhere, put.progress()).unwrap();
        assert_eq!(put.last_step(), None);
        std::os::unix::fs::symlink(&elsewhere, put.0.join(RESULT_FILE)).unwrap();
        assert!(put.state().is_err() && put.cancel().is_err());
        fs::remove_file(put.0.join(RESULT_FILE)).unwrap();
        fs::File::create(put.0.join(RESULT_FILE)).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(put.state().is_err());
        fs::remove_file(put.0.join(RESULT_FILE)).unwrap();
        assert_eq!(put.state().unwrap(), TaskState::Open);
    }

    #[test]
    fn tasks_wait_in_order_until_they_have_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, data) = (folder.path().join("tasks"), folder.path().join("data"));
        fs::create_dir(&tasks).unwrap();
        fs::write(&data, "{}\n").unwrap();
        assert_eq!(TaskFolder::next(&tasks).unwrap(), None);
        let task = TuneTask { model: "m".to_owned(), settings: TuneSettings { steps: 7, ..TuneSettings::default() } };
        let first = task.put(&tasks, "first", &data).unwrap();
        assert!(task.put(&tasks, "first", &data).unwrap_err().to_string().contains("there is a task of this name"));
        for name in ["", ".hidden", "a/b", ".."] {
            assert!(matches!(task.put(&tasks, name, &data), Err(TuneError::Settings(_))), "{name}");
        }
        assert!(task.put(&tasks, "second", &folder.path().join("gone")).is_err());
        assert_eq!(fs::read_dir(&tasks).unwrap().count(), 1, "nothing is left of it");
        assert_eq!(TaskFolder::next(&tasks).unwrap(), Some(first.clone()));
        assert_eq!((TaskFolder::find(&tasks, "first"), TaskFolder::find(&tasks, "other")), (Some(first.clone()), None));
        assert_eq!(first.task().unwrap(), task);
        assert!(first.is_for(&task).unwrap());
        assert!(!first.is_for(&TuneTask { model: "other".to_owned(), ..task.clone() }).unwrap());
        assert_eq!(fs::read(first.data()).unwrap(), b"{}\n");
        assert_eq!(first.state().unwrap(), TaskState::Open);
        // While somebody carries it out it is not for others.
        let taken = super::super::folder::Folder::open(&first.adapter()).unwrap();
        assert_eq!(TaskFolder::next(&tasks).unwrap(), None);
        drop(taken);
        assert_eq!(TaskFolder::next(&tasks).unwrap(), Some(first.clone()));
        let tuned = Tuned { steps: 7, resumed_from: 2, examples: 1, parameters: 3, is_complete: true };
        first.end(&Ok(tuned)).unwrap();
        assert_eq!(first.state().unwrap(), TaskState::Complete(tuned));
        first.end(&Err(TuneError::Diverged { step: 3 })).unwrap();
        let TaskState::Failed(why) = first.state().unwrap() else { panic!("it failed") };
        assert!(why.starts_with("PV-TUNE-DIVERGED"), "{why}");
        assert_eq!(TaskFolder::next(&tasks).unwrap(), None);
    }
}
