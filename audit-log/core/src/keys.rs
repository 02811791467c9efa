//! The keys that a reader of many records has met: which, and which behind which.
//!
//! Invariants: a key is remembered only as the bytes that were read as a key; one key is remembered
//! as the successor of another only after their order was checked. Both tables are bounded, and full
//! ones only make reading slower, never different.

/// Keys that are remembered.
const MAX_KEYS: usize = 96;
/// Longest key that is remembered, with its quotes and colon.
const MAX_KEY_LEN: usize = 40;
/// Successors of one key that are remembered.
const MAX_NEXT: usize = 6;

/// What the verifier wants of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    CallId,
    Phase,
    Status,
    Tenant,
    TimeNs,
    Event,
    WriterId,
    Epoch,
    Seq,
    Version,
    WriterPrev,
    /// Only that it is well formed.
    Other,
}

impl Field {
    pub(crate) fn of(key: &[u8]) -> Self {
        match key {
            b"call_id" => Field::CallId,
            b"phase" => Field::Phase,
            b"status" => Field::Status,
            b"tenant" => Field::Tenant,
            b"time_ns" => Field::TimeNs,
            b"event" => Field::Event,
            b"writer_id" => Field::WriterId,
            b"epoch" => Field::Epoch,
            b"seq" => Field::Seq,
            b"v" => Field::Version,
            b"writer_prev" => Field::WriterPrev,
            _ => Field::Other,
        }
    }
}

/// Where a record begins: before its first key.
pub(crate) const START: Option<usize> = Some(0);

#[derive(Debug)]
struct Known {
    /// With quotes and colon; the first eight bytes also as a number, cut to the length.
    text: Vec<u8>,
    first: u64,
    mask: u64,
    field: Field,
    next: Vec<usize>,
}

impl Known {
    /// Whether `rest`, whose first eight bytes are the key's, begins with all of it.
    #[inline]
    fn ends_so(&self, rest: &[u8]) -> bool {
        let len = self.text.len();
        match len {
            0..=8 => true,
            // Two words cover it: quicker than a call to compare so few bytes.
            9..=16 => last_eight(rest.get(..len)) == last_eight(Some(&self.text)),
            _ => rest.starts_with(&self.text),
        }
    }
}

#[inline]
fn last_eight(bytes: Option<&[u8]>) -> Option<&[u8; 8]> {
    bytes?.last_chunk()
}

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyBook {
    /// The first stands for the beginning of a record.
    known: Vec<Known>,
}

impl Default for KeyBook {
    fn default() -> Self {
        let start = Known { text: Vec::new(), first: 0, mask: 0, field: Field::Other, next: Vec::new() };
        Self { known: vec![start] }
    }
}

impl KeyBook {
    /// The remembered successor of `after` that `rest` begins with: its number, its length with
    /// quotes and colon, its field.
    #[inline]
    pub(crate) fn follow(&self, after: Option<usize>, rest: &[u8]) -> Option<(usize, usize, Field)> {
        let word = u64::from_le_bytes(*rest.first_chunk::<8>()?);
        for number in &self.known.get(after?)?.next {
            let key = self.known.get(*number)?;
            if (word ^ key.first) & key.mask == 0 && key.ends_so(rest) {
                return Some((*number, key.text.len(), key.field));
            }
        }
        None
    }

    /// Remembers that `text` (quotes, key, colon) was read behind `after`; gives its number.
    pub(crate) fn learn(&mut self, after: Option<usize>, text: &[u8], field: Field) -> Option<usize> {
        let found = self.known.iter().skip(1).position(|key| key.text == text).map(|at| at + 1);
        let number = match found {
            Some(number) => number,
            None if self.known.len() < MAX_KEYS && text.len() <= MAX_KEY_LEN => {
                let mut eight = [0; 8];
                eight.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
                let bits = 8 * text.len().min(8) as u32;
                let mask = u64::MAX.checked_shr(64 - bits).unwrap_or_default();
                let first = u64::from_le_bytes(eight) & mask;
                self.known.push(Known { text: text.to_vec(), first, mask, field, next: Vec::new() });
                self.known.len() - 1
            }
            None => return None,
        };
        if let Some(before) = after.and_then(|after| self.known.get_mut(after))
            && before.next.len() < MAX_NEXT
            && !before.next.contains(&number)
        {
            before.next.push(number);
        }
        Some(number)
    }
}
