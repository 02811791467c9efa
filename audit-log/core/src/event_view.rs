//! What a record of an event says of it, whatever its other values are.

use std::borrow::Cow;

use serde::Deserialize;

/// Objects and detail of an event. The leaf is taken to be a canonical record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct EventView<'a> {
    /// `event.objects`.
    #[serde(default, borrow, rename = "event.objects")]
    pub objects: Vec<Cow<'a, str>>,
    /// `event.detail`, empty when there is none.
    #[serde(default, borrow, rename = "event.detail")]
    pub detail: Cow<'a, str>,
}

impl<'a> EventView<'a> {
    /// Reads `leaf`; `None` when the objects are no list of texts, or the detail is no text.
    pub fn read(leaf: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(leaf).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_and_detail_are_read() {
        let leaf = br#"{"event.detail":"a\"b","event.objects":["x","y\n"],"status":"none of ours"}"#;
        let read = EventView::read(leaf).unwrap();
        assert_eq!((&*read.detail, read.objects.len(), &*read.objects[1]), ("a\"b", 2, "y\n"));
        assert_eq!(EventView::read(b"{}"), Some(EventView::default()));
        for other in [br#"{"event.objects":7}"#.as_slice(), br#"{"event.objects":"x"}"#, br#"{"event.detail":["x"]}"#] {
            assert_eq!(EventView::read(other), None);
        }
    }
}
