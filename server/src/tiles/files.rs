//! The files of a log as they lie, in parts: what an auditor copies and verifies elsewhere.
//!
//! Invariant: only names that a log's folder has are opened.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use provost_audit_verify::{
    CHECKPOINT_FILE, COSIGNED_FILE, HISTORY_FILE, KEY_FILE, KEYS_FILE, LogLayout, SEGMENTS_DIR, tail_name,
};

/// Bytes of one answer.
pub const PART_BYTES: u64 = 4 * 1024 * 1024;
/// Files that are replaced and not appended to: who copies takes them first, and whole.
pub const REPLACED: [&str; 4] = [CHECKPOINT_FILE, COSIGNED_FILE, KEY_FILE, KEYS_FILE];
/// Endings of the files in the folder of segments.
const ENDINGS: [&str; 4] = ["seg", "leaf", "body", "pruned"];
/// Digits of the numbers in names.
const DIGITS: usize = 20;

/// `SIZE NAME` of each file that grows, one a line. Sizes are asked for in an order that makes the files
/// one log while it is written: no checkpoint of the history is of more records than the files hold, and
/// records that left the tail are in the segments.
pub fn list(layout: &LogLayout) -> io::Result<String> {
    let mut lines = String::new();
    add(&mut lines, layout, &layout.dir.join(HISTORY_FILE));
    for first in layout.list_tails()? {
        add(&mut lines, layout, &layout.dir.join(tail_name(first)));
    }
    let mut segments = [layout.list_segments()?, layout.list_pruned()?, layout.list_bodies()?].concat();
    segments.sort_unstable();
    segments.dedup();
    for first in segments {
        let of_segment: [PathBuf; 4] =
            [layout.segment(first), layout.leaf_hashes(first), layout.bodies(first), layout.pruned(first)];
        of_segment.iter().for_each(|path| add(&mut lines, layout, path));
    }
    Ok(lines)
}

/// One that is not there, or went meanwhile, has no line.
fn add(lines: &mut String, layout: &LogLayout, path: &Path) {
    let size = fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|meta| meta.len());
    if let (Some(size), Ok(name)) = (size, path.strip_prefix(&layout.dir)) {
        // A text takes whatever is written.
        let _ = writeln!(lines, "{size} {}", name.display());
    }
}

/// Up to [`PART_BYTES`] of a file from an offset on; empty at its end, `None` where there is no such file.
pub fn part(layout: &LogLayout, name: &str, offset: u64) -> io::Result<Option<Vec<u8>>> {
    if !is_ours(name) {
        return Ok(None);
    }
    let mut file = match File::open(layout.dir.join(name)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    if offset < meta.len() {
        file.seek(SeekFrom::Start(offset))?;
        file.take(PART_BYTES).read_to_end(&mut bytes)?;
    }
    Ok(Some(bytes))
}

/// Whether a log's folder has files of this name.
pub fn is_ours(name: &str) -> bool {
    let numbered = |name: &str, endings: &[&str]| {
        name.split_once('.').is_some_and(|(number, ending)| {
            number.len() == DIGITS && number.bytes().all(|b| b.is_ascii_digit()) && endings.contains(&ending)
        })
    };
    let in_segments = name.strip_prefix(SEGMENTS_DIR).and_then(|rest| rest.strip_prefix('/'));
    REPLACED.contains(&name)
        || name == HISTORY_FILE
        || name.strip_prefix("tail-").is_some_and(|rest| numbered(rest, &["raw"]))
        || in_segments.is_some_and(|rest| numbered(rest, &ENDINGS))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_logs_files_are_listed_with_their_sizes_and_given_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let layout = LogLayout::new(dir.path());
        fs::create_dir(layout.segments()).unwrap();
        for (path, text) in [
            (layout.dir.join(HISTORY_FILE), "notes"),
            (layout.dir.join(CHECKPOINT_FILE), "note"),
            (layout.tail(256), "tail"),
            (layout.segment(0), "records"),
            (layout.bodies(0), ""),
            (layout.index(0), "derived"),
            (layout.dir.join("other"), "nobody's"),
        ] {
            fs::write(path, text).unwrap();
        }
        let (tail, segment) = (tail_name(256), "segments/00000000000000000000.seg");
        let wanted = format!("5 checkpoints\n4 {tail}\n7 {segment}\n0 segments/00000000000000000000.body\n");
        assert_eq!(list(&layout).unwrap(), wanted);
        let part = |name: &str, offset| part(&layout, name, offset).unwrap();
        assert_eq!(part(segment, 3), Some(b"ords".to_vec()));
        assert_eq!(part(CHECKPOINT_FILE, 0), Some(b"note".to_vec()));
        assert_eq!((part(&tail, 4), part(&tail, u64::MAX)), (Some(Vec::new()), Some(Vec::new())));
        assert_eq!((part("other", 0), part(&tail_name(7), 0)), (None, None));
    }

    #[test]
    fn no_other_name_is_a_logs() {
        for name in ["checkpoint", "checkpoint.cosigned", "audit.pub", "keys", "checkpoints", &tail_name(1)] {
            assert!(is_ours(name), "{name}");
        }
        let number = "0".repeat(DIGITS);
        assert!(is_ours(&format!("segments/{number}.pruned")));
        for name in [
            "",
            "state",
            "../state",
            "segments",
            "segments/",
            "segments/../checkpoint",
            &format!("segments/{number}.idx"),
            &format!("segments/{number}.seg/x"),
            &format!("segments//{number}.seg"),
            &format!("tail-{number}.raw.old"),
            "tail-1.raw",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
