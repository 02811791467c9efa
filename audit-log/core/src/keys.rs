//! What a reader of many records has met between two values: the end of the one, a key, the
//! beginning of the other; and which behind which.
//!
//! Invariants: such a piece is remembered only as the bytes that were read so; it is remembered
//! behind another only after the order of their keys was checked. The table is bounded, and a full
//! one only makes reading slower, never different.

/// Pieces that are remembered.
const MAX_PIECES: usize = 128;
/// The longest piece that is remembered.
const MAX_LEN: usize = 32;
/// Successors of one piece that are remembered.
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
    BodyKey,
    BodySealed,
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
            b"body.key" => Field::BodyKey,
            b"body.sealed" => Field::BodySealed,
            _ => Field::Other,
        }
    }
}

/// Where a record begins: before its first key.
pub(crate) const START: Option<u8> = Some(0);

/// A piece as it is met again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met {
    pub number: u8,
    pub len: usize,
    pub field: Field,
    /// Whether a text follows, whose quote is the piece's last byte; otherwise a number or a list.
    pub text: bool,
}

#[derive(Debug)]
struct Piece {
    /// Its bytes, and zeros behind them.
    bytes: [u64; WORDS],
    /// Ones where they stand.
    mask: [u64; WORDS],
    len: u8,
    field: Field,
    text: bool,
    /// Numbers of pieces; 0, which follows none, where there is none yet.
    next: [u8; MAX_NEXT],
    key: Vec<u8>,
}

/// Words of [`MAX_LEN`] bytes.
const WORDS: usize = MAX_LEN / 8;
const _: () = assert!(MAX_PIECES <= u8::MAX as usize + 1 && MAX_LEN.is_multiple_of(8));

impl Piece {
    fn new(bytes: &[u8; MAX_LEN], len: usize, key: &[u8], text: bool) -> Self {
        let ones = std::array::from_fn(|n| if n < len { u8::MAX } else { 0 });
        Self {
            bytes: words(bytes),
            mask: words(&ones),
            len: len as u8,
            field: Field::of(key),
            text,
            next: [0; MAX_NEXT],
            key: key.to_vec(),
        }
    }

    #[inline]
    fn met(&self, number: u8) -> Met {
        Met { number, len: usize::from(self.len), field: self.field, text: self.text }
    }

    /// Whether the words begin with it. All of them are looked at, so that there is one branch.
    #[inline]
    fn begins(&self, words: &[u64; WORDS]) -> bool {
        let parts = words.iter().zip(&self.bytes).zip(&self.mask);
        parts.fold(0, |differs, ((word, bytes), mask)| differs | (word ^ bytes) & mask) == 0
    }
}

#[inline]
fn words(bytes: &[u8; MAX_LEN]) -> [u64; WORDS] {
    std::array::from_fn(|n| u64::from_le_bytes(bytes.as_chunks::<8>().0[n]))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyBook {
    /// The first stands for the beginning of a record, and is the successor of none.
    pieces: Vec<Piece>,
}

impl Default for KeyBook {
    fn default() -> Self {
        Self { pieces: vec![Piece::new(&[0; MAX_LEN], 0, &[], false)] }
    }
}

impl KeyBook {
    /// The remembered successor of `after` that `rest` begins with.
    #[inline]
    pub(crate) fn follow(&self, after: Option<u8>, rest: &[u8]) -> Option<Met> {
        let words = words(rest.first_chunk()?);
        for number in self.pieces.get(usize::from(after?))?.next {
            let piece = self.pieces.get(usize::from(number)).filter(|_| number > 0)?;
            if piece.begins(&words) {
                return Some(piece.met(number));
            }
        }
        None
    }

    /// The key of a remembered piece.
    pub(crate) fn key(&self, number: u8) -> &[u8] {
        self.pieces.get(usize::from(number)).map_or(&[], |piece| &piece.key)
    }

    /// Remembers that `bytes` with `key` in them were read behind `after`; gives their number.
    #[cold]
    pub(crate) fn learn(&mut self, after: Option<u8>, bytes: &[u8], key: &[u8], text: bool) -> Option<u8> {
        let mut filled = [0; MAX_LEN];
        filled.get_mut(..bytes.len())?.copy_from_slice(bytes);
        // No piece has zeros in it, so that no two have the same bytes with zeros behind them.
        let found = self.pieces.iter().position(|piece| piece.bytes == words(&filled));
        let number = u8::try_from(found.unwrap_or(self.pieces.len())).ok()?;
        if found.is_none() {
            if self.pieces.len() >= MAX_PIECES {
                return None;
            }
            self.pieces.push(Piece::new(&filled, bytes.len(), key, text));
        }
        if let Some(before) = after.and_then(|after| self.pieces.get_mut(usize::from(after)))
            && !before.next.contains(&number)
            && let Some(free) = before.next.iter_mut().find(|next| **next == 0)
        {
            *free = number;
        }
        Some(number)
    }
}
