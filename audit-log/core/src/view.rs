//! Reads what the chain needs from a leaf without building a record.
//!
//! Purpose: the sequencer's machine and the verifier look at every leaf; a full decode costs
//! several times the hash. The reader accepts only the canonical shape: one flat object, no white
//! space, keys in strictly ascending order (so no key twice), values that are texts, whole
//! numbers or lists of texts.

use provost_types::{CallId, Phase};

use crate::{
    hash::{Hash, decode_hex},
    record::MAX_LEAF,
};

/// The leaf is not a canonical record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical record at byte {at}: {what}")]
pub struct ViewError {
    /// Offset within the leaf.
    pub at: usize,
    /// What was wrong.
    pub what: &'static str,
}

/// What the chain and the completeness rules need of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The call, or the event's own id.
    pub call_id: CallId,
    /// Intent, outcome, denial or event.
    pub phase: Phase,
    /// The status as written (escapes undone are never needed: statuses are plain words).
    pub status: Option<&'a str>,
    /// The tenant; `None` in the cluster's log.
    pub tenant: Option<&'a str>,
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The name of the event, for `phase` event.
    pub event: Option<&'a str>,
    /// The node that wrote it.
    pub writer_id: &'a str,
    /// The writer's start count.
    pub epoch: u64,
    /// The writer's sequence in this log and epoch.
    pub seq: u64,
    /// The writer's previous leaf in this log.
    pub prev: Hash,
}

impl<'a> RecordView<'a> {
    /// Reads `leaf`.
    pub fn read(leaf: &'a [u8]) -> Result<Self, ViewError> {
        if leaf.len() > MAX_LEAF {
            return Err(ViewError { at: MAX_LEAF, what: "longer than a leaf may be" });
        }
        let text = std::str::from_utf8(leaf).map_err(|e| ViewError { at: e.valid_up_to(), what: "not UTF-8" })?;
        let mut scan = Scan { text, bytes: leaf, at: 0 };
        let mut found = Found::default();
        scan.byte(b'{', "an object was expected")?;
        let mut last_key = Key::default();
        loop {
            let at = scan.at;
            let key = scan.key()?;
            if !last_key.precedes(&key) {
                return Err(ViewError { at, what: "keys are not in ascending order" });
            }
            last_key = key;
            scan.byte(b':', "`:` was expected")?;
            found.take(key.bytes, &mut scan)?;
            match scan.next() {
                Some(b',') => {}
                Some(b'}') => break,
                _ => return Err(scan.wrong("`,` or `}` was expected")),
            }
        }
        if scan.at != leaf.len() {
            return Err(scan.wrong("bytes after the object"));
        }
        found.finish(leaf.len())
    }
}

#[derive(Default)]
struct Found<'a> {
    call_id: Option<CallId>,
    phase: Option<Phase>,
    status: Option<&'a str>,
    tenant: Option<&'a str>,
    time_ns: Option<u64>,
    event: Option<&'a str>,
    writer_id: Option<&'a str>,
    epoch: Option<u64>,
    seq: Option<u64>,
    prev: Option<Hash>,
    version: Option<u64>,
}

impl<'a> Found<'a> {
    fn take(&mut self, key: &[u8], scan: &mut Scan<'a>) -> Result<(), ViewError> {
        // Most keys are none of these: their first byte and length say so.
        match (key.first(), key.len()) {
            (Some(b'c'), 7) if key == b"call_id" => self.call_id = Some(scan.call_id()?),
            (Some(b'p'), 5) if key == b"phase" => self.phase = Some(scan.phase()?),
            (Some(b's'), 6) if key == b"status" => self.status = Some(scan.text()?),
            (Some(b't'), 6) if key == b"tenant" => self.tenant = Some(scan.text()?),
            (Some(b't'), 7) if key == b"time_ns" => self.time_ns = Some(scan.decimal_text()?),
            (Some(b'e'), 5) if key == b"event" => self.event = Some(scan.text()?),
            (Some(b'w'), 9) if key == b"writer_id" => self.writer_id = Some(scan.text()?),
            (Some(b'e'), 5) if key == b"epoch" => self.epoch = Some(scan.number()?),
            (Some(b's'), 3) if key == b"seq" => self.seq = Some(scan.number()?),
            (Some(b'v'), 1) => self.version = Some(scan.number()?),
            (Some(b'w'), 11) if key == b"writer_prev" => {
                let at = scan.at;
                let text = scan.text()?;
                let hash =
                    Hash::parse(text.as_bytes()).map_err(|_| ViewError { at, what: "writer_prev is not a hash" })?;
                self.prev = Some(hash);
            }
            _ => scan.skip()?,
        }
        Ok(())
    }

    fn finish(self, at: usize) -> Result<RecordView<'a>, ViewError> {
        let missing = |what| ViewError { at, what };
        if self.version != Some(1) {
            return Err(missing("`v` is not 1"));
        }
        Ok(RecordView {
            call_id: self.call_id.ok_or(missing("`call_id` is missing"))?,
            phase: self.phase.ok_or(missing("`phase` is missing"))?,
            status: self.status,
            tenant: self.tenant,
            time_ns: self.time_ns.ok_or(missing("`time_ns` is missing"))?,
            event: self.event,
            writer_id: self.writer_id.ok_or(missing("`writer_id` is missing"))?,
            epoch: self.epoch.ok_or(missing("`epoch` is missing"))?,
            seq: self.seq.ok_or(missing("`seq` is missing"))?,
            prev: self.prev.ok_or(missing("`writer_prev` is missing"))?,
        })
    }
}

/// A key as it stands in the record.
#[derive(Clone, Copy, Default)]
struct Key<'a> {
    bytes: &'a [u8],
}

impl Key<'_> {
    /// Strictly, by bytes. The first eight decide nearly always.
    fn precedes(&self, next: &Key<'_>) -> bool {
        let (before, after) = (first_eight(self.bytes), first_eight(next.bytes));
        before < after || (before == after && self.bytes < next.bytes)
    }
}

/// The first eight bytes as one number; shorter keys end in zeros, which stand in no key.
fn first_eight(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => bytes.iter().fold(0, |word, b| word << 8 | u64::from(*b)) << (8 * (8 - bytes.len())).min(63),
    }
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES * 0x80;

/// How many bytes precede the first quote, backslash or control character; and whether any of
/// them is not ASCII.
///
/// Eight bytes at a time: texts are short, so a call of a general search would cost more than the
/// search. In each word the lowest mark is exact; marks above it may be carries, and are not used.
#[inline]
fn plain_len(bytes: &[u8]) -> (usize, bool) {
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut at, mut high) = (0, 0);
    for word in words {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
        let quotes = quote.wrapping_sub(ONES) & !quote;
        let backslashes = backslash.wrapping_sub(ONES) & !backslash;
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let hit = (quotes | backslashes | controls) & HIGHS;
        if hit != 0 {
            let len = hit.trailing_zeros() / 8;
            high |= word & ((1 << (8 * len)) - 1);
            return (at + len as usize, high & HIGHS != 0);
        }
        high |= word;
        at += 8;
    }
    let plain = rest.iter().take_while(|b| **b >= 0x20 && **b != b'"' && **b != b'\\');
    let len = plain.inspect(|b| high |= u64::from(**b)).count();
    (at + len, high & HIGHS != 0)
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn wrong(&self, what: &'static str) -> ViewError {
        ViewError { at: self.at, what }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte
    }

    fn byte(&mut self, wanted: u8, what: &'static str) -> Result<(), ViewError> {
        if self.next() == Some(wanted) { Ok(()) } else { Err(self.wrong(what)) }
    }

    /// A key: plain ASCII, no escapes.
    fn key(&mut self) -> Result<Key<'a>, ViewError> {
        self.byte(b'"', "a key was expected")?;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (len, high) = plain_len(rest);
        self.at += len;
        self.byte(b'"', "a key is not plain text")?;
        if high {
            return Err(self.wrong("a key is not plain ASCII"));
        }
        Ok(Key { bytes: rest.get(..len).unwrap_or_default() })
    }

    /// A text between quotes, escapes left as they are.
    fn text(&mut self) -> Result<&'a str, ViewError> {
        let start = self.at + 1;
        self.skip_text()?;
        self.text.get(start..self.at - 1).ok_or(self.wrong("the text is cut"))
    }

    fn skip_text(&mut self) -> Result<(), ViewError> {
        self.byte(b'"', "a text was expected")?;
        loop {
            self.at += plain_len(self.bytes.get(self.at..).unwrap_or_default()).0;
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.wrong("a control character stands in a text as it is")),
                None => return Err(self.wrong("the text does not end")),
            }
        }
    }

    /// The escapes that RFC 8785 writes, and no other spelling of the same character.
    fn escape(&mut self) -> Result<(), ViewError> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let len = match rest {
            [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..] => 6,
            [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => 6,
            _ => return Err(self.wrong("an escape that the canonical form does not have")),
        };
        self.at += len;
        Ok(())
    }

    fn number(&mut self) -> Result<u64, ViewError> {
        let start = self.at;
        let mut value = 0u64;
        while let Some(digit) = self.bytes.get(self.at).filter(|b| b.is_ascii_digit()) {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(u64::from(digit - b'0')))
                .ok_or(self.wrong("the number is too large"))?;
            self.at += 1;
        }
        let digits = self.at - start;
        if digits == 0 || (digits > 1 && self.bytes.get(start) == Some(&b'0')) {
            return Err(self.wrong("a whole number was expected"));
        }
        Ok(value)
    }

    fn decimal_text(&mut self) -> Result<u64, ViewError> {
        self.byte(b'"', "a decimal text was expected")?;
        let value = self.number()?;
        self.byte(b'"', "the decimal text does not end")?;
        Ok(value)
    }

    fn call_id(&mut self) -> Result<CallId, ViewError> {
        let wrong = self.wrong("call_id is not 32 hexadecimal digits");
        let mut bytes = [0; 16];
        decode_hex(self.text()?.as_bytes(), &mut bytes).ok_or(wrong)?;
        Ok(CallId(u128::from_be_bytes(bytes)))
    }

    fn phase(&mut self) -> Result<Phase, ViewError> {
        match self.text()? {
            "intent" => Ok(Phase::Intent),
            "outcome" => Ok(Phase::Outcome),
            "denied" => Ok(Phase::Denied),
            "event" => Ok(Phase::Event),
            _ => Err(self.wrong("unknown phase")),
        }
    }

    fn skip(&mut self) -> Result<(), ViewError> {
        match self.bytes.get(self.at) {
            Some(b'"') => self.skip_text(),
            Some(b'[') => self.skip_list(),
            _ => self.number().map(drop),
        }
    }

    fn skip_list(&mut self) -> Result<(), ViewError> {
        self.at += 1;
        loop {
            self.skip_text()?;
            match self.next() {
                Some(b',') => {}
                Some(b']') => return Ok(()),
                _ => return Err(self.wrong("`,` or `]` was expected")),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf() -> String {
        let zeros = "0".repeat(64);
        format!(
            r#"{{"call_id":"{:032x}","epoch":1,"phase":"intent","policies":["a","b\"c"],"seq":2,"time_ns":"3","v":1,"writer_id":"n","writer_prev":"{zeros}"}}"#,
            5
        )
    }

    #[test]
    fn only_the_canonical_shape_is_read() {
        let good = leaf();
        let view = RecordView::read(good.as_bytes()).unwrap();
        assert_eq!((view.call_id, view.epoch, view.seq), (CallId(5), 1, 2));
        let cases = [
            ("a key twice", good.replace(r#""seq":2"#, r#""seq":2,"seq":2"#)),
            ("keys out of order", good.replace(r#""seq":2"#, r#""zzz":1,"seq":2"#)),
            ("white space", good.replace(":2", ": 2")),
            ("overflow", good.replace(":2", ":18446744073709551616")),
            ("leading zero", good.replace(":2", ":02")),
            ("negative", good.replace(":2", ":-2")),
            ("fraction", good.replace(":2", ":2.0")),
            ("nested object", good.replace(":2", ":{}")),
            ("other version", good.replace(r#""v":1"#, r#""v":2"#)),
            ("unknown phase", good.replace("intent", "intend")),
            ("upper-case id", good.replace("0005", "000A")),
            ("missing field", good.replace(r#""epoch":1,"#, "")),
            ("trailing bytes", format!("{good} ")),
            ("not an object", "[]".to_owned()),
            ("empty", String::new()),
            ("an escape of a plain letter", good.replace("b\\\"c", "b\\u0041c")),
            ("an escaped slash", good.replace("b\\\"c", "b\\/c")),
            ("a long form of a short escape", good.replace("b\\\"c", "b\\u000ac")),
            ("an upper-case escape", good.replace("b\\\"c", "b\\u001Fc")),
            ("a bare control character", good.replace("b\\\"c", "b\u{1}c")),
            ("an escape in a key", good.replace("\"seq\"", "\"se\\\"q\"")),
        ];
        for (name, text) in cases {
            assert!(RecordView::read(text.as_bytes()).is_err(), "{name} was read: {text}");
        }
        for cut in 0..good.len() {
            assert!(RecordView::read(&good.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn canonical_escapes_are_read() {
        let all = r#"\"\\\b\f\n\r\t\u0000\u001f\u000b"#;
        let leaf = leaf().replace("b\\\"c", all);
        RecordView::read(leaf.as_bytes()).unwrap();
    }

    proptest! {
        #[test]
        fn plain_runs_are_measured(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
            let expect = bytes.iter().position(special).unwrap_or(bytes.len());
            let high = !bytes[..expect].is_ascii();
            prop_assert_eq!(plain_len(&bytes), (expect, high));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = RecordView::read(&bytes);
        }

        #[test]
        fn any_damage_is_read_or_refused(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = leaf().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = RecordView::read(&bytes);
        }
    }
}
