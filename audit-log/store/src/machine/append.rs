//! Batches of records: checked whole against their writer's chains, then given their places.

use std::{collections::BTreeMap, io};

use provost_audit_core::{Hash, LogId, RecordReader, VerifierKey, leaf_hash, leaf_hashes_of};
use provost_audit_verify::LogLayout;
use provost_types::{CallId, Phase};

use super::AuditMachine;
use crate::{
    entry::{Append, Reply},
    log_files::LogFiles,
    state::{Applied, OpenIntent, REMEMBERED_BATCHES, Writer, WriterChain},
};

impl AuditMachine {
    /// Intents of a writer's epochs before `epoch` that have no outcome.
    pub(crate) fn orphans(&self, writer: &str, epoch: u64) -> Vec<(LogId, CallId, u64)> {
        let intents = self.state.intents.iter();
        intents
            .filter(|(_, intent)| intent.writer == writer && intent.epoch < epoch)
            .map(|((log, call), intent)| (log.clone(), CallId(*call), intent.index))
            .collect()
    }

    /// Epoch of a writer, and where it stands in each log.
    pub(crate) fn writer(&self, id: &str) -> (u64, BTreeMap<LogId, WriterChain>) {
        let writer = self.state.writers.get(id);
        writer.map(|w| (w.epoch, w.chains.clone())).unwrap_or_default()
    }

    pub(super) fn append(&mut self, append: &Append) -> io::Result<Reply> {
        let writer = self.state.writers.get(&append.writer);
        let (epoch, next) = writer.map_or((0, 0), |w| (w.epoch, w.next_batch));
        if append.epoch < epoch || append.epoch == 0 {
            return Ok(Reply::Fenced { epoch });
        }
        let next = if append.epoch > epoch { 0 } else { next };
        if append.batch > next {
            return Ok(Reply::OutOfOrder { next });
        }
        if append.batch < next {
            let known = writer.and_then(|w| w.recent.iter().find(|known| known.batch == append.batch));
            return Ok(match known {
                Some(known) if append.records.last().map(|r| leaf_hash(&r.leaf)) == Some(known.last) => {
                    Reply::Appended(known.places.clone())
                }
                // Two processes took the same epoch; this one came second.
                Some(_) => Reply::Fenced { epoch },
                None => Reply::Invalid("the batch was applied too long ago".to_owned()),
            });
        }
        match check_batch(append, writer, &mut self.reader) {
            Ok(checked) => self.write(append, checked),
            Err(why) => Ok(Reply::Invalid(why)),
        }
    }

    fn write(&mut self, append: &Append, checked: Vec<Checked>) -> io::Result<Reply> {
        let mut places: Vec<(LogId, u64)> = Vec::new();
        for (record, checked) in append.records.iter().zip(&checked) {
            let files = self.log(&record.log)?;
            let index = files.append(&record.leaf, checked.hash, checked.time_ns)?;
            if let Some(body) = &record.body {
                files.append_body(index, body)?;
            }
            if !places.iter().any(|(log, _)| *log == record.log) {
                places.push((record.log.clone(), index));
            }
            self.note_intent(append, &record.log, checked, index);
        }
        let last = checked.last().map(|c| c.hash).unwrap_or(Hash::ZERO);
        let writer = self.state.writers.entry(append.writer.clone()).or_default();
        if append.epoch > writer.epoch {
            writer.epoch = append.epoch;
            writer.recent.clear();
        }
        writer.next_batch = append.batch + 1;
        for (record, checked) in append.records.iter().zip(checked) {
            let chain = WriterChain { epoch: append.epoch, seq: checked.seq, prev: checked.hash };
            writer.chains.insert(record.log.clone(), chain);
        }
        if writer.recent.len() == REMEMBERED_BATCHES {
            writer.recent.pop_front();
        }
        writer.recent.push_back(Applied { batch: append.batch, last, places: places.clone() });
        Ok(Reply::Appended(places))
    }

    fn note_intent(&mut self, append: &Append, log: &LogId, checked: &Checked, index: u64) {
        let key = (log.clone(), checked.call_id.0);
        match checked.phase {
            Phase::Intent => {
                let (writer, epoch) = (append.writer.clone(), append.epoch);
                self.state.intents.insert(key, OpenIntent { index, writer, epoch });
            }
            Phase::Outcome => {
                self.state.intents.remove(&key);
            }
            Phase::Denied | Phase::Event => {}
        }
    }

    /// The files of a log, which begins here if it is new.
    pub(super) fn log(&mut self, log: &LogId) -> io::Result<&mut LogFiles> {
        if !self.logs.contains_key(log) {
            let origin = log.origin(&self.state.cluster);
            let key = VerifierKey { name: origin.clone(), public_key: self.public_key };
            let layout = LogLayout::new(self.dir.join(log.folder()));
            let files = LogFiles::create(&self.disk, layout, &origin, &key.to_text())?;
            self.logs.insert(log.clone(), files);
        }
        self.logs.get_mut(log).ok_or_else(|| io::Error::other("a log was not kept"))
    }
}

/// What a checked record says of itself.
struct Checked {
    hash: Hash,
    phase: Phase,
    call_id: CallId,
    time_ns: u64,
    seq: u64,
}

/// Checks a whole batch against its writer's chains: form, identity, sequence, link, tenant.
fn check_batch(append: &Append, writer: Option<&Writer>, reader: &mut RecordReader) -> Result<Vec<Checked>, String> {
    let mut moved: BTreeMap<&LogId, WriterChain> = BTreeMap::new();
    let mut checked = Vec::with_capacity(append.records.len());
    let hashes = leaf_hashes_of(append.records.len(), |n| append.records.get(n).map_or(&[], |record| &record.leaf));
    for (n, (record, hash)) in append.records.iter().zip(hashes).enumerate() {
        let view = reader.read(&record.leaf).map_err(|e| format!("record {n}: {e}"))?;
        let before = moved.get(&record.log).cloned();
        let before = before.or_else(|| writer.and_then(|w| w.chains.get(&record.log)).cloned()).unwrap_or_default();
        let wrong = [
            (view.writer_id != append.writer.as_bytes(), "writer_id"),
            (view.epoch != append.epoch, "epoch"),
            (view.seq != before.next_seq(append.epoch), "seq"),
            (view.prev != before.prev, "writer_prev"),
            (view.tenant.unwrap_or_default() != record.log.tenant().as_bytes(), "tenant"),
        ];
        if let Some((_, field)) = wrong.iter().find(|(wrong, _)| *wrong) {
            return Err(format!("record {n}: `{field}` does not continue the writer's chain"));
        }
        // Beside the record stands the body that it names, or none.
        if record.body.as_deref().map(|body| Hash(provost_sealed::sha256(body))) != view.body_sealed {
            return Err(format!("record {n}: `body.sealed` is not the body that came with it"));
        }
        moved.insert(&record.log, WriterChain { epoch: append.epoch, seq: view.seq, prev: hash });
        checked.push(Checked { hash, phase: view.phase, call_id: view.call_id, time_ns: view.time_ns, seq: view.seq });
    }
    Ok(checked)
}
