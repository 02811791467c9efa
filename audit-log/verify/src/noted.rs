//! What the cluster's log notes of one log, held against the tree while the log's records are read.
//!
//! Invariant: a root is compared with what the records themselves lead to, never with hashes that are
//! stored beside them.

use provost_audit_core::{EventView, Hash};

/// The event's name in the cluster's log.
pub const TENANT_CHECKPOINT: &str = "checkpoint";

/// One record of a tenant's checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The record's index in the cluster's log.
    pub record: u64,
    pub size: u64,
    pub root: Hash,
}

impl Noted {
    /// The origin that a record of the event names, and what it notes.
    pub(crate) fn read(index: u64, leaf: &[u8]) -> Option<(String, Self)> {
        let event = EventView::read(leaf)?;
        let origin = event.objects.first()?;
        let (size, root) = event.detail.split_once(' ')?;
        let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
        let (size, root) = (size.parse().ok().filter(|_| digits)?, Hash::parse(root.as_bytes()).ok()?);
        Some((origin.to_string(), Self { record: index, size, root }))
    }
}

/// A note that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub note: Noted,
    /// The root that is there; `None` when there are not so many records.
    pub actual: Option<Hash>,
}

/// The notes of one log, compared in the order of their sizes.
#[derive(Debug, Default)]
pub(crate) struct NotedRoots {
    /// By size; of equal ones in the order of the cluster's log.
    notes: Vec<Noted>,
    /// The first that was not compared yet.
    next: usize,
    broken: Option<Broken>,
}

impl NotedRoots {
    /// For a log whose records are read from `start` on, before which the tree has this root: notes of
    /// fewer records speak of records that are not read.
    pub(crate) fn new(notes: &[Noted], start: u64, root: Hash) -> Self {
        let mut notes: Vec<Noted> = notes.iter().filter(|note| note.size >= start).copied().collect();
        notes.sort_by_key(|note| note.size);
        let mut roots = Self { notes, next: 0, broken: None };
        roots.compare(start, root);
        roots
    }

    /// The sizes whose roots are asked for.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.notes.iter().map(|note| note.size)
    }

    /// The tree over `size` records has this root.
    pub(crate) fn compare(&mut self, size: u64, root: Hash) {
        while let Some(note) = self.notes.get(self.next).filter(|note| note.size == size) {
            if note.root != root {
                self.broken.get_or_insert(Broken { note: *note, actual: Some(root) });
            }
            self.next += 1;
        }
    }

    /// The records are at an end: the first note that does not hold, by size.
    pub(crate) fn finish(&self) -> Option<Broken> {
        let beyond = self.notes.get(self.next).map(|note| Broken { note: *note, actual: None });
        self.broken.or(beyond)
    }

    /// The one of most records among those that precede record `anchored` of the cluster's log.
    pub(crate) fn largest_below(&self, anchored: u64) -> Option<Noted> {
        self.notes.iter().rev().find(|note| note.record < anchored).copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn note(record: u64, size: u64, root: u8) -> Noted {
        Noted { record, size, root: Hash([root; 32]) }
    }

    #[test]
    fn a_note_has_one_form() {
        let root = "ab".repeat(32);
        let leaf = |objects: &str, detail: &str| {
            format!(r#"{{"event.detail":"{detail}","event.objects":{objects}}}"#).into_bytes()
        };
        let origin = r#"["provost/acme","more"]"#;
        let good = Noted::read(7, &leaf(origin, &format!("12 {root}"))).unwrap();
        assert_eq!(good, ("provost/acme".to_owned(), note(7, 12, 0xab)));
        let details = [format!("+12 {root}"), format!(" {root}"), format!("12  {root}"), format!("12 {root}0")];
        let details = details.into_iter().chain(["12".to_owned(), format!("18446744073709551616 {root}")]);
        for detail in details.chain([format!("12 {}", root.to_uppercase())]) {
            assert_eq!(Noted::read(7, &leaf(origin, &detail)), None, "{detail}");
        }
        for objects in ["7", "\"provost/acme\"", "[]"] {
            assert_eq!(Noted::read(7, &leaf(objects, &format!("12 {root}"))), None, "{objects}");
        }
    }

    #[test]
    fn every_note_is_compared_and_the_smallest_that_fails_is_named() {
        let notes = [note(1, 10, 1), note(2, 30, 3), note(3, 20, 2), note(4, 30, 9), note(5, 5, 7)];
        let mut roots = NotedRoots::new(&notes, 10, Hash([1; 32]));
        assert_eq!(roots.sizes().collect::<Vec<_>>(), [10, 20, 30, 30]);
        assert_eq!(roots.finish(), Some(Broken { note: notes[2], actual: None }));
        roots.compare(20, Hash([2; 32]));
        assert_eq!(roots.finish(), Some(Broken { note: notes[1], actual: None }));
        roots.compare(30, Hash([3; 32]));
        assert_eq!(roots.finish(), Some(Broken { note: notes[3], actual: Some(Hash([3; 32])) }));
        assert_eq!((roots.largest_below(2), roots.largest_below(1)), (Some(notes[0]), None));
        assert_eq!(roots.largest_below(4).map(|note| note.size), Some(30));
        let wrong = NotedRoots::new(&notes[..1], 10, Hash([8; 32])).finish();
        assert_eq!(wrong, Some(Broken { note: notes[0], actual: Some(Hash([8; 32])) }));
    }
}
