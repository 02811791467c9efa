//! Makes the indexes of full segments, beside the log and behind it.
//!
//! An index is derived: it is made from a segment that will not change any more, put in place as a
//! whole, and made again when it is gone. A crash leaves at most a temporary file. Nothing waits
//! for it: a query reads segments without an index whole.

use std::{fs, io, path::Path, sync::Weak, time::Duration};

use provost_audit_core::{LogId, MAX_INDEX_BYTES, SegmentIndex};
use provost_audit_verify::{LogLayout, ReadFault, SegmentFile, list_logs};

use crate::persist::replace;

/// How often the node looks for full segments without an index.
const EVERY: Duration = Duration::from_secs(5);

/// Makes the indexes that are missing below `audit_dir`; gives how many.
pub fn build_indexes(audit_dir: &Path) -> Result<usize, ReadFault> {
    let logs = list_logs(audit_dir).map_err(|e| fault(audit_dir, &e))?;
    logs.iter().map(|log| build_log(audit_dir, log)).sum()
}

fn build_log(audit_dir: &Path, log: &LogId) -> Result<usize, ReadFault> {
    let layout = LogLayout::new(audit_dir.join(log.folder()));
    let mut made = 0;
    for first in layout.list_segments().map_err(|e| fault(&layout.segments(), &e))? {
        let path = layout.index(first);
        if path.exists() {
            continue;
        }
        let Some(mut segment) = SegmentFile::open(&layout, first)? else { continue };
        let Some((bytes, _)) = segment.build_index()? else { continue };
        replace(&path, &bytes).map_err(|e| fault(&path, &e))?;
        made += 1;
    }
    Ok(made)
}

fn fault(file: &Path, e: &io::Error) -> ReadFault {
    ReadFault { file: file.to_owned(), offset: 0, index: 0, what: e.to_string(), missing: true }
}

/// The index of a segment when there is one that is its own.
pub(crate) fn read_index(layout: &LogLayout, segment: &SegmentFile, first: u64) -> Option<SegmentIndex> {
    let path = layout.index(first);
    if fs::metadata(&path).ok()?.len() > MAX_INDEX_BYTES as u64 {
        return None;
    }
    let root = segment.footer().ok()??.root;
    SegmentIndex::decode(fs::read(&path).ok()?).ok().filter(|index| index.is_of(first, &root))
}

/// Makes indexes at an interval, until the log is closed.
pub(crate) async fn run<T: Send + Sync + 'static>(open: Weak<T>, audit_dir: std::path::PathBuf) {
    while open.strong_count() > 0 {
        let dir = audit_dir.clone();
        match tokio::task::spawn_blocking(move || build_indexes(&dir)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "an index could not be made; queries read that segment whole"),
            Err(_) => return,
        }
        tokio::time::sleep(EVERY).await;
    }
}
