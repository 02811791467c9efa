//! The thread that makes files durable, so that applying an entry never waits for a disk.
//!
//! Jobs run in order. A persist job fsyncs the files, then puts the state that describes them in
//! place, then removes tails that the state no longer needs; a publish job writes checkpoints.
//! Because a checkpoint's publish job always follows the persist job of the entries it covers, a
//! checkpoint on disk never covers records that are not.
//! If the process dies in between: before the rename the old state stands and the Raft log is
//! applied from there again; after it the old tails stay until the next start removes them.
//! A failed write or fsync is final: the thread keeps the error and does nothing more.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use tokio::sync::watch;

use crate::{
    disk::{Disk, StoreFile},
    history::append_note,
    prune_files::PruneFiles,
    subject_store::KeysJob,
};

/// Makes one point in the log durable.
pub(crate) struct PersistJob {
    /// Index of the last entry that `state` holds.
    pub applied: u64,
    pub files: Vec<Arc<StoreFile>>,
    pub dirs: Vec<PathBuf>,
    pub state: Vec<u8>,
    /// Keys of bodies that changed; in place before the state that knows of them.
    pub keys: Option<KeysJob>,
    pub remove: Vec<PathBuf>,
    /// Segments that the state no longer has.
    pub prune: Vec<PruneFiles>,
}

/// Puts a signed checkpoint of one log beside it.
pub(crate) struct PublishJob {
    /// The log's folder.
    pub dir: PathBuf,
    pub note: String,
}

pub(crate) enum Job {
    Persist(PersistJob),
    /// Checkpoints, and the text of the file at the top that holds the latest of every log.
    Publish(Vec<PublishJob>, String),
    /// Puts a cosigned checkpoint beside its log.
    Cosigned(PublishJob),
    /// Replaces public keys: each a path and its text.
    Keys(Vec<(PathBuf, String)>),
    Stop,
}

/// How far the thread has come.
pub(crate) type Progress = watch::Receiver<Result<Option<u64>, String>>;

/// The thread and the way to it.
pub(crate) struct Persister {
    jobs: mpsc::SyncSender<Job>,
    progress: Progress,
    thread: Option<JoinHandle<()>>,
}

/// Jobs that may wait; a slow disk then slows applying down, rather than filling memory.
const MAX_JOBS: usize = 64;

impl Persister {
    pub(crate) fn start(audit_dir: PathBuf, persisted: Option<u64>, disk: Disk) -> io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(MAX_JOBS);
        let (done, progress) = watch::channel(Ok(persisted));
        let thread = std::thread::Builder::new()
            .name("audit-persist".to_owned())
            .spawn(move || run(&audit_dir, &disk, &queue, &done))?;
        Ok(Self { jobs, progress, thread: Some(thread) })
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Queues a job; an error when an earlier one failed.
    pub(crate) fn send(&self, job: Job) -> io::Result<()> {
        self.check()?;
        self.jobs.send(job).map_err(|_| io::Error::other("the persist thread has ended"))
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        match &*self.progress.borrow() {
            Ok(_) => Ok(()),
            Err(why) => Err(io::Error::other(why.clone())),
        }
    }
}

impl Drop for Persister {
    fn drop(&mut self) {
        let _ = self.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(audit_dir: &Path, disk: &Disk, queue: &mpsc::Receiver<Job>, done: &watch::Sender<Result<Option<u64>, String>>) {
    while let Ok(job) = queue.recv() {
        let result = match job {
            Job::Stop => return,
            Job::Persist(job) => {
                let applied = job.applied;
                persist(audit_dir, disk, job).map(|()| Some(applied))
            }
            Job::Publish(jobs, all) => publish(audit_dir, disk, &jobs, &all).map(|()| None),
            Job::Keys(files) => {
                files.iter().try_for_each(|(path, text)| disk.replace(path, text.as_bytes())).map(|()| None)
            }
            Job::Cosigned(job) => {
                let path = job.dir.join(provost_audit_verify::COSIGNED_FILE);
                disk.replace(&path, job.note.as_bytes()).map(|()| None)
            }
        };
        match result {
            Ok(None) => {}
            Ok(applied) => drop(done.send_replace(Ok(applied))),
            Err(e) => {
                tracing::error!(error = %e, "PV-AUDIT-IO: the audit files cannot be made durable");
                drop(done.send_replace(Err(e.to_string())));
                return;
            }
        }
    }
}

fn persist(audit_dir: &Path, disk: &Disk, job: PersistJob) -> io::Result<()> {
    for file in &job.files {
        file.sync_data()?;
    }
    for dir in &job.dirs {
        disk.sync_dir(dir)?;
    }
    if let Some(keys) = &job.keys {
        keys.run()?;
    }
    // What stays of pruned segments, before the state that says that they are gone.
    job.prune.iter().try_for_each(PruneFiles::keep)?;
    disk.replace(&audit_dir.join(crate::state::STATE_FILE), &job.state)?;
    // The older state must not come back: it needs the tails removed next, and a checkpoint
    // written after this must never be ahead of the state.
    disk.sync_dir(audit_dir)?;
    for path in &job.remove {
        disk.remove(path)?;
    }
    job.prune.iter().try_for_each(PruneFiles::remove)
}

fn publish(audit_dir: &Path, disk: &Disk, jobs: &[PublishJob], all: &str) -> io::Result<()> {
    use provost_audit_verify::{CHECKPOINT_FILE, HISTORY_FILE};
    for job in jobs {
        append_note(disk, &job.dir.join(HISTORY_FILE), &job.note)?;
        disk.replace(&job.dir.join(CHECKPOINT_FILE), job.note.as_bytes())?;
    }
    disk.replace(&audit_dir.join(CHECKPOINT_FILE), all.as_bytes())
}

/// Replaces a file as a whole: after a crash it holds the old or the new bytes.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Disk::default().replace(path, bytes)
}

/// Makes a folder's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    Disk::default().sync_dir(dir)
}
