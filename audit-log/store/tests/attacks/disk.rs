//! A disk that notes every operation down, and can then say what a power cut would have left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex},
};

use provost_audit_store::{DiskOperation, DiskWatch};

/// An operation as it was noted; paths are below the directory.
#[derive(Clone, Debug)]
pub enum Step {
    MakeDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Cut(PathBuf, u64),
    Sync(PathBuf),
    SyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// What happens at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Each fails from then on with this error number.
    Fail(i32),
    /// It fails once; were it tried again, it would work.
    FailSyncOnce,
    /// Synchronising never ends, until the test lets it.
    HangSync,
}

#[derive(Default)]
struct Log {
    steps: Vec<Step>,
    trouble: Option<(usize, Trouble)>,
    released: bool,
    failed: usize,
    /// Steps that had been done when the first failed.
    failed_at: usize,
}

/// Notes down, and makes trouble.
pub struct Recorder {
    dir: PathBuf,
    log: Mutex<Log>,
    changed: Condvar,
}

impl Recorder {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), log: Mutex::default(), changed: Condvar::new() }
    }

    /// From the operation with this number on.
    pub fn with_trouble(dir: &Path, at: usize, trouble: Trouble) -> Self {
        let this = Self::new(dir);
        this.log.lock().unwrap().trouble = Some((at, trouble));
        this
    }

    pub fn steps(&self) -> Vec<Step> {
        self.log.lock().unwrap().steps.clone()
    }

    /// How many operations failed.
    pub fn failed(&self) -> usize {
        self.log.lock().unwrap().failed
    }

    /// What was done after the operation that failed.
    pub fn steps_after_failure(&self) -> Vec<Step> {
        let log = self.log.lock().unwrap();
        log.steps[log.failed_at..].to_vec()
    }

    pub fn release(&self) {
        self.log.lock().unwrap().released = true;
        self.changed.notify_all();
    }
}

impl DiskWatch for Recorder {
    fn before(&self, operation: &DiskOperation<'_>) -> io::Result<()> {
        // The folder above is synchronised as well: the directory is an entry of it.
        let below = |path: &Path| path.strip_prefix(&self.dir).map_or_else(|_| PathBuf::from(".."), Path::to_owned);
        let step = match operation {
            DiskOperation::MakeDir(path) => Step::MakeDir(below(path)),
            DiskOperation::Create(path) => Step::Create(below(path)),
            DiskOperation::Write(path, at, bytes) => Step::Write(below(path), *at, bytes.to_vec()),
            DiskOperation::Cut(path, len) => Step::Cut(below(path), *len),
            DiskOperation::Sync(path) => Step::Sync(below(path)),
            DiskOperation::SyncDir(path) => Step::SyncDir(below(path)),
            DiskOperation::Rename(from, to) => Step::Rename(below(from), below(to)),
            DiskOperation::Remove(path) => Step::Remove(below(path)),
        };
        let sync = matches!(step, Step::Sync(_) | Step::SyncDir(_));
        let mut log = self.log.lock().unwrap();
        match log.trouble {
            Some((at, Trouble::Fail(number))) if log.steps.len() >= at => {
                log.failed += 1;
                return Err(io::Error::from_raw_os_error(number));
            }
            Some((at, Trouble::FailSyncOnce)) if log.steps.len() >= at && sync && log.failed == 0 => {
                log.failed += 1;
                log.failed_at = log.steps.len();
                return Err(io::Error::from_raw_os_error(5));
            }
            Some((at, Trouble::HangSync)) if log.steps.len() >= at && sync => {
                while !log.released {
                    log = self.changed.wait(log).unwrap();
                }
            }
            _ => {}
        }
        log.steps.push(step);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Content {
    /// As the process sees it, and as of its last synchronisation.
    now: Vec<u8>,
    synced: Vec<u8>,
}

/// Puts into `dir` what a power cut after these steps leaves: all that was done (`kept`), or only
/// what was synchronised. An entry of a folder is as durable as the folder's last synchronisation;
/// a rename takes its file along.
pub fn power_cut(steps: &[Step], kept: bool, dir: &Path) {
    let mut files: Vec<Content> = Vec::new();
    let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut durable: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut dirs: BTreeSet<PathBuf> = BTreeSet::new();
    for step in steps {
        match step {
            Step::MakeDir(path) => dirs.extend(path.ancestors().map(Path::to_owned)),
            Step::Create(path) => match names.get(path) {
                Some(file) => files[*file].now.clear(),
                None => {
                    names.insert(path.clone(), files.len());
                    files.push(Content::default());
                }
            },
            Step::Write(path, at, bytes) => {
                let now = &mut files[names[path]].now;
                let end = *at as usize + bytes.len();
                now.resize(now.len().max(end), 0);
                now[*at as usize..end].copy_from_slice(bytes);
            }
            Step::Cut(path, len) => files[names[path]].now.resize(*len as usize, 0),
            Step::Sync(path) => {
                let file = &mut files[names[path]];
                file.synced = file.now.clone();
            }
            Step::SyncDir(dir) => {
                durable.retain(|path, _| path.parent() != Some(dir));
                durable.extend(names.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, f)| (p.clone(), *f)));
            }
            Step::Rename(from, to) => {
                let file = names.remove(from).unwrap();
                names.insert(to.clone(), file);
            }
            Step::Remove(path) => drop(names.remove(path)),
        }
    }
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    for made in &dirs {
        // Folders are made durable by the synchronisation of those above them before anything in
        // them matters: an empty one that came back is the harder case for a start.
        fs::create_dir_all(dir.join(made)).unwrap();
    }
    for (path, file) in if kept { names } else { durable } {
        let content = &files[file];
        fs::write(dir.join(path), if kept { &content.now } else { &content.synced }).unwrap();
    }
}
