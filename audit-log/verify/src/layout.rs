//! Where the parts of a log lie on disk. `docs/audit-format.md` draws the tree.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use provost_audit_core::{CLUSTER_DIR, LogId, TENANTS_DIR};
use provost_types::Name;

/// Folder of segments, below a log's folder.
pub const SEGMENTS_DIR: &str = "segments";
/// The latest signed checkpoint (of a log; at the top: the latest of every log, one after the
/// other).
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// Every checkpoint ever signed for a log, one after the other.
pub const HISTORY_FILE: &str = "checkpoints";
/// The latest checkpoint of the cluster's log with the cosignatures of witnesses.
pub const COSIGNED_FILE: &str = "checkpoint.cosigned";
/// The verifier key, in C2SP form.
pub const KEY_FILE: &str = "audit.pub";

/// The keys that signed, oldest first, beside the cluster's log; absent before the first rotation.
pub const KEYS_FILE: &str = "keys";

/// Digits in file names: as many as the largest index has.
const DIGITS: usize = 20;

/// The files of one log.
#[derive(Clone, Debug)]
pub struct LogLayout {
    /// The log's folder.
    pub dir: PathBuf,
}

impl LogLayout {
    /// The files below `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Folder of the segments.
    pub fn segments(&self) -> PathBuf {
        self.dir.join(SEGMENTS_DIR)
    }

    /// The segment whose first leaf is `first`.
    pub fn segment(&self, first: u64) -> PathBuf {
        self.segments().join(format!("{first:0DIGITS$}.seg"))
    }

    /// The leaf hashes of that segment's blocks, 32 bytes each.
    pub fn leaf_hashes(&self, first: u64) -> PathBuf {
        self.segments().join(format!("{first:0DIGITS$}.leaf"))
    }

    /// The sealed bodies of that segment's records.
    pub fn bodies(&self, first: u64) -> PathBuf {
        self.segments().join(format!("{first:0DIGITS$}.body"))
    }

    /// First indices of the segments that have bodies, ascending.
    pub fn list_bodies(&self) -> io::Result<Vec<u64>> {
        numbered(&self.segments(), "", ".body")
    }

    /// The index of that segment: derived, and absent until it was made.
    pub fn index(&self, first: u64) -> PathBuf {
        self.segments().join(format!("{first:0DIGITS$}.idx"))
    }

    /// What stays of that segment once it was pruned.
    pub fn pruned(&self, first: u64) -> PathBuf {
        self.segments().join(format!("{first:0DIGITS$}.pruned"))
    }

    /// The tail that begins with leaf `first`.
    pub fn tail(&self, first: u64) -> PathBuf {
        self.dir.join(tail_name(first))
    }

    /// First indices of the segments, ascending.
    pub fn list_segments(&self) -> io::Result<Vec<u64>> {
        numbered(&self.segments(), "", ".seg")
    }

    /// First indices of the pruned segments, ascending.
    pub fn list_pruned(&self) -> io::Result<Vec<u64>> {
        numbered(&self.segments(), "", ".pruned")
    }

    /// First indices of the tails, ascending. More than one stands there between a rotation and
    /// the next persist.
    pub fn list_tails(&self) -> io::Result<Vec<u64>> {
        numbered(&self.dir, "tail-", ".raw")
    }

    /// Whether the folder holds a log.
    pub fn exists(&self) -> bool {
        self.segments().is_dir() || self.list_tails().is_ok_and(|tails| !tails.is_empty())
    }
}

/// File name of the tail that begins with leaf `first`.
pub fn tail_name(first: u64) -> String {
    format!("tail-{first:0DIGITS$}.raw")
}

fn numbered(dir: &Path, prefix: &str, suffix: &str) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix(prefix))
            .and_then(|n| n.strip_suffix(suffix))
            .filter(|n| n.len() == DIGITS && n.bytes().all(|b| b.is_ascii_digit()));
        found.extend(number.and_then(|n| n.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Folders among those of tenants whose names are no tenants', by name: no log of ours, and passed over by
/// [`list_logs`].
pub(crate) fn list_foreign(audit_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    match fs::read_dir(audit_dir.join(TENANTS_DIR)) {
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                let name = path.file_name().and_then(OsStr::to_str);
                if name.is_none_or(|name| Name::new(name).is_err()) && path.is_dir() {
                    found.push(path);
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    found.sort();
    Ok(found)
}

/// The logs below an audit directory, the cluster's first, then tenants by name.
pub fn list_logs(audit_dir: &Path) -> io::Result<Vec<LogId>> {
    let mut logs = Vec::new();
    if audit_dir.join(CLUSTER_DIR).is_dir() {
        logs.push(LogId::CLUSTER);
    }
    match fs::read_dir(audit_dir.join(TENANTS_DIR)) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                let name = OsStr::to_str(&name).and_then(|n| Name::new(n).ok());
                logs.extend(name.map(|n| LogId(Some(n))));
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    logs.sort();
    Ok(logs)
}
