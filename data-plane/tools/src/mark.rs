//! Texts that are looked for in most messages and are in hardly any of them.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// A text that is looked for in JSON as it stands, before that is taken apart. To make a search ready costs more than to search a
/// short message, so it is done once.
pub(crate) struct Mark(LazyLock<Finder<'static>>);

impl Mark {
    /// What the search that `make` gives finds.
    pub(crate) const fn new(make: fn() -> Finder<'static>) -> Self {
        Self(LazyLock::new(make))
    }

    /// Whether the text has it.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        self.0.find(text).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_wherever_it_stands() {
        static MARK: Mark = Mark::new(|| Finder::new(b"\"taskId\""));
        for (text, expect) in
            [("", false), ("\"taskId\"", true), ("{\"taskId\":1}", true), ("{\"taskid\":1}", false), ("taskId", false)]
        {
            assert_eq!(MARK.is_in(text.as_bytes()), expect, "{text}");
        }
    }
}
