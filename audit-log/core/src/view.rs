//! Reads what the chain needs from a leaf without building a record.
//!
//! Purpose: the sequencer's machine and the verifier look at every leaf; a full decode costs
//! several times the hash. The reader accepts only the canonical shape: one flat object, no white
//! space, keys in strictly ascending order (so no key twice), values that are texts, whole
//! numbers or lists of texts.

use provost_types::{CallId, Phase};

use crate::{
    found::Found,
    hash::Hash,
    keys::{Field, KeyBook, START},
    marks,
    record::MAX_LEAF,
    runs::{Runs, Step},
    scan::{Key, Scan},
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

/// What the chain and the completeness rules need of a record. Texts are the bytes of valid UTF-8, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The call, or the event's own id.
    pub call_id: CallId,
    /// Intent, outcome, denial or event.
    pub phase: Phase,
    /// The status (escapes undone are never needed: statuses are plain words).
    pub status: Option<&'a [u8]>,
    /// The tenant; `None` in the cluster's log.
    pub tenant: Option<&'a [u8]>,
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// SHA-256 of the sealed body that is stored beside the log, if one is.
    pub body_sealed: Option<Hash>,
    /// The key that the body is sealed under, as written.
    pub body_key: Option<&'a [u8]>,
    /// The name of the event, for `phase` event.
    pub event: Option<&'a [u8]>,
    /// The node that wrote it.
    pub writer_id: &'a [u8],
    /// The writer's start count.
    pub epoch: u64,
    /// The writer's sequence in this log and epoch.
    pub seq: u64,
    /// The writer's previous leaf in this log.
    pub prev: Hash,
}

impl<'a> RecordView<'a> {
    /// Reads `leaf`. Who reads many uses a [`RecordReader`].
    pub fn read(leaf: &'a [u8]) -> Result<Self, ViewError> {
        RecordReader { forgets: true, ..RecordReader::default() }.read(leaf)
    }
}

/// Reads many records, and remembers the keys that it has met.
///
/// Records repeat their keys in few orders. What stands between two values (the end of the one, a key,
/// the beginning of the other) and was read once behind another key is known to be well formed and in
/// order; met there again, it is only compared. So are whole runs of keys and values that most records
/// repeat.
#[derive(Debug, Default)]
pub struct RecordReader {
    keys: KeyBook,
    runs: Runs,
    /// For one record it is not worth while to remember anything.
    forgets: bool,
    /// Of the record at hand.
    marks: Vec<u64>,
}

impl RecordReader {
    /// Reads `leaf`.
    pub fn read<'a>(&mut self, leaf: &'a [u8]) -> Result<RecordView<'a>, ViewError> {
        if leaf.len() > MAX_LEAF {
            return Err(ViewError { at: MAX_LEAF, what: "longer than a leaf may be" });
        }
        if !marks::find(leaf, &mut self.marks) {
            std::str::from_utf8(leaf).map_err(|e| ViewError { at: e.valid_up_to(), what: "not UTF-8" })?;
        }
        let mut scan = Scan::new(leaf, &self.marks);
        let mut found = Found::default();
        scan.byte(b'{', "an object was expected")?;
        // The piece before the value that was read last, and whether that value was a text: then its
        // quote stands next. `last` is the last key that is not in the book's.
        let (mut known, mut text, mut last) = (START, false, Key::default());
        let mut votes = self.runs.begin();
        loop {
            // The place is a local value here, and not the scan's, so that it stays in a register.
            let mut at = scan.at;
            while let Some(before) = known {
                let rest = leaf.get(at..).unwrap_or_default();
                let (start, run, met);
                if let Some((number, repeated)) = self.runs.follow(before, rest) {
                    repeated.kept.iter().for_each(|kept| found.keep(*kept, rest));
                    (start, run, met) = (at, Some(number), repeated.last);
                    at += repeated.len();
                } else if let Some(piece) = self.keys.follow(known, rest) {
                    (start, run, met) = (at, None, piece);
                    at += piece.len;
                } else {
                    break;
                }
                if votes {
                    self.runs.step(Step { run, piece: met, start, value: at });
                }
                at = found.value(met.field, met.text, &mut scan, &self.marks, at)?;
                (known, text) = (Some(met.number), met.text);
            }
            scan.at = at;
            let piece = scan.at;
            scan.at += usize::from(text);
            if piece > 1 {
                match scan.next() {
                    Some(b',') => {}
                    Some(b'}') => break,
                    _ => return Err(scan.wrong("`,` or `}` was expected")),
                }
            }
            let at = scan.at;
            let key = scan.key()?;
            let before = known.map_or(last, |number| Key { bytes: self.keys.key(number) });
            if !before.precedes(&key) {
                return Err(ViewError { at, what: "keys are not in ascending order" });
            }
            last = key;
            scan.byte(b':', "`:` was expected")?;
            text = leaf.get(scan.at) == Some(&b'"');
            let piece = leaf.get(piece..scan.at + usize::from(text)).unwrap_or_default();
            found.take(Field::of(key.bytes), &mut scan)?;
            scan.at -= usize::from(text);
            known = if self.forgets { None } else { self.keys.learn(known, piece, key.bytes, text) };
            votes = false;
        }
        if scan.at != leaf.len() {
            return Err(scan.wrong("bytes after the object"));
        }
        let view = found.finish(leaf.len())?;
        if votes {
            self.runs.vote(leaf);
        }
        Ok(view)
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
            // Nor does a reader that has met the good form before take the bad one.
            let mut reader = RecordReader::default();
            assert_eq!(reader.read(good.as_bytes()), RecordView::read(good.as_bytes()));
            assert_eq!(reader.read(text.as_bytes()), RecordView::read(text.as_bytes()), "{name}");
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

    /// Record `n` of a busy log: much repeats itself, some of it in two forms.
    fn record(n: u64) -> String {
        let hash = format!("{n:064x}");
        let (phase, status) = if n % 16 < 8 { ("intent", "") } else { ("outcome", r#""status":"ok","#) };
        let tool = ["sql.query", "files.read", "a \\\"b\\\""][(n % 3) as usize];
        format!(
            r#"{{"agent":"desk","attempt":1,"body.len":200,"call_id":"{n:032x}","decision":"allow","epoch":7,"gen_ai.tool.name":"{tool}","mcp.method.name":"tools/call","phase":"{phase}","policies":["a","b"],"policy.revision":{},"seq":{n},{status}"tenant":"acme","time_ns":"{}","v":1,"writer_id":"node-1","writer_prev":"{hash}"}}"#,
            1200 + n / 5_000,
            1_763_000_000_000_000_000 + n,
        )
    }

    #[test]
    fn runs_change_nothing() {
        let mut reader = RecordReader::default();
        let (mut by_runs, mut damaged) = (0, 0);
        for n in 0..40_000 {
            let mut bytes = record(n).into_bytes();
            if n % 5 == 4 {
                // Any byte, in time, becomes something else.
                let at = (n as usize * 131) % bytes.len();
                bytes[at] = b"\"\\,:0a{}"[n as usize % 8];
                damaged += usize::from(RecordView::read(&bytes).is_err());
            }
            assert_eq!(reader.read(&bytes), RecordView::read(&bytes), "{}", String::from_utf8_lossy(&bytes));
            by_runs += usize::from(reader.runs.any());
        }
        assert!(by_runs > 30_000, "{by_runs}");
        assert!(damaged > 4_000, "{damaged}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = RecordView::read(&bytes);
        }

        #[test]
        fn any_damage_is_read_or_refused(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = leaf().into_bytes();
            let mut reader = RecordReader::default();
            let good = leaf();
            reader.read(good.as_bytes()).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            prop_assert_eq!(reader.read(&bytes).ok(), RecordView::read(&bytes).ok());
        }
    }
}
