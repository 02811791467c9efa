//! The history of a log's checkpoints: a file that notes are appended to.
//!
//! A crash may cut the note that was being written. Were the next one appended behind the cut one,
//! the two would read as one forged note for ever after; so the cut one is removed first. It is
//! not lost: the latest checkpoint is held in consensus and published again.

use std::{io, path::Path};

use provost_audit_core::MAX_CHECKPOINT_BYTES;

use crate::disk::Disk;

/// Appends one note and makes it durable.
pub(crate) fn append_note(disk: &Disk, path: &Path, note: &str) -> io::Result<()> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => disk.create(path)?,
        Err(e) => return Err(e),
    };
    let len = file.len()?;
    let window = len.min(2 * MAX_CHECKPOINT_BYTES as u64);
    let mut end = vec![0; window as usize];
    file.read_exact_at(&mut end, len - window)?;
    let at = len - window + whole_notes(&end) as u64;
    if at < len {
        file.set_len(at)?;
    }
    // One blank line after each note separates it from the next.
    file.write_all_at(format!("{note}\n").as_bytes(), at)?;
    file.sync_data()
}

/// Where the last whole note of `bytes` ends: behind the blank line that follows a signature line.
fn whole_notes(bytes: &[u8]) -> usize {
    let mark = "\u{2014} ".as_bytes();
    let mut end = bytes.len();
    while let Some(blank) = bytes[..end].windows(2).rposition(|two| two == b"\n\n") {
        let line = bytes[..blank].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if bytes[line..blank].starts_with(mark) {
            return blank + 2;
        }
        end = blank + 1;
    }
    0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_note_is_removed_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        let note = |n: u32| format!("provost/acme\n{n}\nroot\nchain c\ntime 1\n\n\u{2014} provost/acme blob{n}\n");
        let disk = Disk::default();
        append_note(&disk, &path, &note(1)).unwrap();
        append_note(&disk, &path, &note(2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let first = whole.len() / 2;
        assert_eq!(whole, format!("{}\n{}\n", note(1), note(2)).into_bytes());
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            append_note(&disk, &path, &note(2)).unwrap();
            let expect = if cut < first { format!("{}\n", note(2)) } else { format!("{}\n{}\n", note(1), note(2)) };
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expect, "cut at {cut}");
        }
    }
}
