//! The values of a record that are kept while it is read.

use provost_types::{CallId, Phase};

use crate::{
    hash::Hash,
    keys::Field,
    marks,
    quick::{call_id, list_end, phase, short_number, text_end},
    scan::Scan,
    view::{RecordView, ViewError},
};

/// See [`RecordView`].
#[derive(Default)]
pub(crate) struct Found<'a> {
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
    /// Reads a value at `at` that is as it nearly always is, and gives where it ends, for a text before
    /// its quote; `None` where [`Found::take`] has to look.
    #[inline(always)]
    pub(crate) fn quickly(
        &mut self,
        field: Field,
        text: bool,
        leaf: &'a [u8],
        marks: &[u64],
        at: usize,
    ) -> Option<usize> {
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
        let str = || std::str::from_utf8(bytes).ok();
        match field {
            Field::CallId => self.call_id = Some(call_id(bytes)?),
            Field::Phase => self.phase = Some(phase(bytes)?),
            Field::Status => self.status = Some(str()?),
            Field::Tenant => self.tenant = Some(str()?),
            Field::Event => self.event = Some(str()?),
            Field::WriterId => self.writer_id = Some(str()?),
            Field::BodyKey => self.body_key = Some(str()?),
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
            Field::Status => self.status = Some(scan.str()?),
            Field::Tenant => self.tenant = Some(scan.str()?),
            Field::TimeNs => self.time_ns = Some(scan.decimal_text()?),
            Field::Event => self.event = Some(scan.str()?),
            Field::WriterId => self.writer_id = Some(scan.str()?),
            Field::Epoch => self.epoch = Some(scan.number()?),
            Field::Seq => self.seq = Some(scan.number()?),
            Field::Version => self.version = Some(scan.number()?),
            Field::WriterPrev => self.prev = Some(hash(scan, "writer_prev is not a hash")?),
            Field::BodyKey => self.body_key = Some(scan.str()?),
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
