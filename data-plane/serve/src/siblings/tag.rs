//! Which process something that a client carries came from.

use std::fmt;

/// A name for one run of a process: random, so that what an earlier run gave out is nobody's. It says
/// nothing of the node to those who see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tag(u32);

impl Tag {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    /// The tag in eight hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let good = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        good.then(|| u32::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_is_written_and_nothing_else_is() {
        for number in [0, 7, 0xdead_beef, u32::MAX] {
            assert_eq!(Tag::parse(&Tag(number).to_string()), Some(Tag(number)));
        }
        for bad in ["", "1", "0000000g", "DEADBEEF", "+0000001", "000000001"] {
            assert_eq!(Tag::parse(bad), None, "{bad}");
        }
    }
}
