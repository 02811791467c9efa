//! Reads what the chain needs from a leaf without building a record.
//!
//! Purpose: the sequencer's machine and the verifier look at every leaf; a full decode costs
//! several times the hash. The reader accepts only the canonical shape: one flat object, no white
//! space, keys in strictly ascending order (so no key twice), values that are texts, whole
//! numbers or lists of texts.

use memchr::memchr2;
use provost_types::{CallId, Phase};

use crate::{hash::Hash, record::MAX_LEAF};

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
    /// SHA-256 of the sealed body that is stored beside the log, if one is.
    pub body_sealed: Option<Hash>,
    /// The key that the body is sealed under, as written.
    pub body_key: Option<&'a str>,
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
        let mut last_key = "";
        loop {
            let at = scan.at;
            let key = scan.text()?;
            if key <= last_key {
                return Err(ViewError { at, what: "keys are not in ascending order" });
            }
            last_key = key;
            scan.byte(b':', "`:` was expected")?;
            found.take(key, &mut scan)?;
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
    body_sealed: Option<Hash>,
    body_key: Option<&'a str>,
    event: Option<&'a str>,
    writer_id: Option<&'a str>,
    epoch: Option<u64>,
    seq: Option<u64>,
    prev: Option<Hash>,
    version: Option<u64>,
}

impl<'a> Found<'a> {
    fn take(&mut self, key: &str, scan: &mut Scan<'a>) -> Result<(), ViewError> {
        match key {
            "call_id" => self.call_id = Some(scan.call_id()?),
            "phase" => self.phase = Some(scan.phase()?),
            "status" => self.status = Some(scan.text()?),
            "tenant" => self.tenant = Some(scan.text()?),
            "time_ns" => self.time_ns = Some(scan.decimal_text()?),
            "event" => self.event = Some(scan.text()?),
            "writer_id" => self.writer_id = Some(scan.text()?),
            "epoch" => self.epoch = Some(scan.number()?),
            "seq" => self.seq = Some(scan.number()?),
            "v" => self.version = Some(scan.number()?),
            "body.key" => self.body_key = Some(scan.text()?),
            "body.sealed" => self.body_sealed = Some(scan.hash("body.sealed is not a hash")?),
            "writer_prev" => self.prev = Some(scan.hash("writer_prev is not a hash")?),
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
            body_sealed: self.body_sealed,
            body_key: self.body_key,
            event: self.event,
            writer_id: self.writer_id.ok_or(missing("`writer_id` is missing"))?,
            epoch: self.epoch.ok_or(missing("`epoch` is missing"))?,
            seq: self.seq.ok_or(missing("`seq` is missing"))?,
            prev: self.prev.ok_or(missing("`writer_prev` is missing"))?,
        })
    }
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

    /// A text between quotes, escapes left as they are.
    fn text(&mut self) -> Result<&'a str, ViewError> {
        self.byte(b'"', "a text was expected")?;
        let start = self.at;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(hit) = memchr2(b'"', b'\\', rest) else {
                return Err(self.wrong("the text does not end"));
            };
            self.at += hit;
            if self.bytes.get(self.at) == Some(&b'"') {
                let found = self.text.get(start..self.at);
                self.at += 1;
                return found.ok_or(self.wrong("the text is cut"));
            }
            self.at += 2;
        }
    }

    fn hash(&mut self, what: &'static str) -> Result<Hash, ViewError> {
        let at = self.at;
        Hash::parse(self.text()?.as_bytes()).map_err(|_| ViewError { at, what })
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
        let text = self.text()?;
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(hexadecimal) {
            return Err(wrong);
        }
        text.parse().map_err(|_| wrong)
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
            Some(b'"') => self.text().map(drop),
            Some(b'[') => self.skip_list(),
            _ => self.number().map(drop),
        }
    }

    fn skip_list(&mut self) -> Result<(), ViewError> {
        self.at += 1;
        loop {
            self.text()?;
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
        ];
        for (name, text) in cases {
            assert!(RecordView::read(text.as_bytes()).is_err(), "{name} was read: {text}");
        }
        for cut in 0..good.len() {
            assert!(RecordView::read(&good.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
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
