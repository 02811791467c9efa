//! The values of a record that are kept while it is read.

use provost_types::{CallId, Phase};

use crate::{
    hash::Hash,
    keys::Field,
    marks,
    quick::{call_id, list_end, phase, short_number, text_end},
    runs::Kept,
    scan::Scan,
    view::{RecordView, ViewError},
};

/// See [`RecordView`].
#[derive(Default)]
pub(crate) struct Found<'a> {
    call_id: Option<CallId>,
    phase: Option<Phase>,
    status: Option<&'a [u8]>,
    tenant: Option<&'a [u8]>,
    time_ns: Option<u64>,
    body_sealed: Option<Hash>,
    body_key: Option<&'a [u8]>,
    event: Option<&'a [u8]>,
    writer_id: Option<&'a [u8]>,
    epoch: Option<u64>,
    seq: Option<u64>,
    prev: Option<Hash>,
    version: Option<u64>,
}

impl<'a> Found<'a> {
    /// A value of a run that `rest` begins with.
    #[inline]
    pub(crate) fn keep(&mut self, kept: Kept, rest: &'a [u8]) {
        match kept {
            Kept::Phase(phase) => self.phase = Some(phase),
            Kept::Epoch(number) => self.epoch = Some(number),
            Kept::Version(number) => self.version = Some(number),
            Kept::Text(field, from, to) => {
                let text = rest.get(from..to);
                match field {
                    Field::Status => self.status = text,
                    Field::Tenant => self.tenant = text,
                    Field::Event => self.event = text,
                    Field::WriterId => self.writer_id = text,
                    Field::BodyKey => self.body_key = text,
                    _ => {}
                }
            }
        }
    }

    /// Reads the value at `at`, for a text behind its quote, and gives where it ends, for a text before its quote.
    #[inline(always)]
    pub(crate) fn value(
        &mut self,
        field: Field,
        text: bool,
        scan: &mut Scan<'a, '_>,
        marks: &[u64],
        at: usize,
    ) -> Result<usize, ViewError> {
        if let Some(end) = self.quickly(field, text, scan.bytes, marks, at) {
            return Ok(end);
        }
        scan.at = at - usize::from(text);
        self.take(field, scan)?;
        Ok(scan.at - usize::from(text))
    }

    /// Reads a value at `at` that is as it nearly always is, and gives where it ends, for a text before
    /// its quote; `None` where [`Found::take`] has to look.
    #[inline(always)]
    fn quickly(&mut self, field: Field, text: bool, leaf: &'a [u8], marks: &[u64], at: usize) -> Option<usize> {
        if text && field == Field::Other {
            return text_end(leaf, marks, at);
        }
        if !text && field == Field::Other {
            return match leaf.get(at) {
                Some(b'[') => list_end(leaf, marks, at),
                _ => short_number(leaf.get(at..)?).map(|(_, len)| at + len),
            };
        }
        self.wanted(field, text, leaf, marks, at)
    }

    /// The same for a value that is kept.
    #[inline]
    fn wanted(&mut self, field: Field, text: bool, leaf: &'a [u8], marks: &[u64], at: usize) -> Option<usize> {
        if !text || field == Field::TimeNs {
            let (number, len) = short_number(leaf.get(at..)?)?;
            let to = match field {
                Field::TimeNs if text && leaf.get(at + len) == Some(&b'"') => &mut self.time_ns,
                Field::Epoch => &mut self.epoch,
                Field::Seq => &mut self.seq,
                Field::Version => &mut self.version,
                _ => return None,
            };
            *to = Some(number);
            return Some(at + len);
        }
        let end = marks::next(marks, at, leaf.len());
        let bytes = leaf.get(at..end).filter(|_| leaf.get(end) == Some(&b'"'))?;
        match field {
            Field::CallId => self.call_id = Some(call_id(bytes)?),
            Field::Phase => self.phase = Some(phase(bytes)?),
            Field::Status => self.status = Some(bytes),
            Field::Tenant => self.tenant = Some(bytes),
            Field::Event => self.event = Some(bytes),
            Field::WriterId => self.writer_id = Some(bytes),
            Field::BodyKey => self.body_key = Some(bytes),
            Field::WriterPrev => self.prev = Some(Hash::parse(bytes).ok()?),
            Field::BodySealed => self.body_sealed = Some(Hash::parse(bytes).ok()?),
            Field::TimeNs | Field::Epoch | Field::Seq | Field::Version | Field::Other => return None,
        }
        Some(end)
    }

    pub(crate) fn take(&mut self, field: Field, scan: &mut Scan<'a, '_>) -> Result<(), ViewError> {
        match field {
            Field::CallId => self.call_id = Some(scan.call_id()?),
            Field::Phase => self.phase = Some(scan.phase()?),
            Field::Status => self.status = Some(scan.text()?),
            Field::Tenant => self.tenant = Some(scan.text()?),
            Field::TimeNs => self.time_ns = Some(scan.decimal_text()?),
            Field::Event => self.event = Some(scan.text()?),
            Field::WriterId => self.writer_id = Some(scan.text()?),
            Field::Epoch => self.epoch = Some(scan.number()?),
            Field::Seq => self.seq = Some(scan.number()?),
            Field::Version => self.version = Some(scan.number()?),
            Field::WriterPrev => self.prev = Some(hash(scan, "writer_prev is not a hash")?),
            Field::BodyKey => self.body_key = Some(scan.text()?),
            Field::BodySealed => self.body_sealed = Some(hash(scan, "body.sealed is not a hash")?),
            Field::Other => scan.skip()?,
        }
        Ok(())
    }

    pub(crate) fn finish(self, at: usize) -> Result<RecordView<'a>, ViewError> {
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

fn hash(scan: &mut Scan<'_, '_>, what: &'static str) -> Result<Hash, ViewError> {
    let at = scan.at;
    Hash::parse(scan.text()?).map_err(|_| ViewError { at, what })
}
