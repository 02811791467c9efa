//! Leaving a training to a node: the task is put where the node looks for it, and followed by what the node writes there.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use provost_gpu_serve::{TaskFolder, TaskState, TuneStep, TuneTask};

use super::{FinetuneArgs, explained, progress::Progress};
use crate::failure::Failure;

/// So often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Puts a task, or finds it where it was put before, and follows it to its end, or until it is told to stop: the node goes on then.
pub fn follow(
    args: &FinetuneArgs,
    (model, data): (&Path, &Path),
    tasks: &Path,
    name: &str,
    is_told: &AtomicBool,
) -> anyhow::Result<ExitCode> {
    let wanted = TuneTask { model: model.to_string_lossy().into_owned(), settings: args.settings() };
    let task = match TaskFolder::find(tasks, name) {
        None => wanted.put(tasks, name, data).map_err(explained)?,
        Some(task) if task.is_for(&wanted)? => task,
        Some(_) => {
            let text = format!("there is another task `{name}`");
            return Err(
                Failure::new("PV-TUNE-FOLDER", text, "choose another --name, or the settings that it has").into()
            );
        }
    };
    let progress = Progress::new(args.steps, args.json);
    let mut read = 0;
    loop {
        // Looked at first: what was told before the end is shown before it.
        let state = task.state()?;
        read = show(&task, read, &progress)?;
        match state {
            TaskState::Complete(tuned) => {
                progress.end(&tuned, &task.adapter());
                return Ok(ExitCode::SUCCESS);
            }
            // It has its code.
            TaskState::Failed(why) => anyhow::bail!(why),
            TaskState::Open if is_told.load(Ordering::Relaxed) => {
                eprintln!("the task `{name}` goes on without being followed; the same command follows it again");
                return Ok(ExitCode::SUCCESS);
            }
            TaskState::Open => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Shows what was told since; gives how much of it was read. A line that is not whole yet is left for later.
fn show(task: &TaskFolder, from: u64, progress: &Progress) -> anyhow::Result<u64> {
    let Ok(mut file) = File::open(task.progress()) else {
        return Ok(from);
    };
    let mut told = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut told)?;
    let whole = told.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    for line in told.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n') {
        if let Ok(step) = serde_json::from_slice::<TuneStep>(line) {
            progress.show(&step);
        }
    }
    Ok(from + whole as u64)
}
