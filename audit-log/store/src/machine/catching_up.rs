//! A replica that is behind the Raft log makes its files of what another one gives it.

use std::{io, time::Duration};

use provost_audit_core::{Hash, LogId, RecordView, VerifierKey, leaf_hash, split_notes};
use provost_audit_verify::{HISTORY_FILE, LogLayout};

use super::{AuditMachine, signing::signers};
use crate::{
    catch_up::{LeafSource, earlier_checkpoints},
    log_files::LogFiles,
    prune_files::PruneFiles,
    retention_state::Pruned,
    state::{MachineState, Signed},
};

/// A history without a change of keys is asked for again so often, with this pause between.
const HISTORY_TRIES: u32 = 40;
const HISTORY_PAUSE: Duration = Duration::from_millis(500);

/// The earlier checkpoints of a log, of a replica that has published every change of keys. One that is a moment
/// behind is asked again: nobody gives the missing checkpoint to this replica later.
fn history(source: &dyn LeafSource, manifest: &MachineState, log: &LogId, signed: &Signed) -> io::Result<String> {
    let origin = log.origin(&manifest.cluster);
    for _ in 0..HISTORY_TRIES {
        let found = earlier_checkpoints(&source.checkpoints(log)?, &origin, &signed.note, signed.head.size);
        if every_key_follows(&found, &signed.note, &origin, &manifest.keys) {
            return Ok(found);
        }
        std::thread::sleep(HISTORY_PAUSE);
    }
    let text = format!("PV-AUDIT-BEHIND: no replica has the checkpoint of {log} that both keys of a change signed");
    Err(io::Error::other(text))
}

/// Whether each key that signed here is followed by the next one in a checkpoint that both signed.
fn every_key_follows(history: &str, latest: &str, origin: &str, keys: &[(Option<u64>, [u8; 32])]) -> bool {
    if keys.len() < 2 {
        return true;
    }
    let notes: Vec<_> = split_notes(history).into_iter().chain([latest]).map(|note| signers(note, origin)).collect();
    let id = |(_, public_key): &(_, [u8; 32])| VerifierKey { name: origin.to_owned(), public_key: *public_key }.id();
    let ids: Vec<[u8; 4]> = keys.iter().map(id).collect();
    ids.windows(2).all(|pair| {
        let mut of_first = notes.iter().filter(|signers| signers.contains(&pair[0])).peekable();
        of_first.peek().is_none() || of_first.any(|signers| signers.contains(&pair[1]))
    })
}

impl AuditMachine {
    /// Brings every log to the manifest's head and takes its state. Files that were grown are beyond
    /// the stored state until the state is replaced: a crash or an error in between leaves what the
    /// next start cuts off.
    pub(super) fn catch_up(&mut self, manifest: MachineState) -> io::Result<()> {
        let Some(source) = self.source.clone() else {
            let text = "PV-AUDIT-BEHIND: this replica is too far behind to catch up from the Raft log, and \
                        knows no other";
            return Err(io::Error::other(text));
        };
        if manifest.cluster != self.state.cluster {
            return Err(io::Error::other(format!("the snapshot is of cluster {}", manifest.cluster)));
        }
        self.broken = true;
        if self.keys.state.applied < manifest.body_keys {
            // Before the records: whatever fails behind this, keys that are newer do no harm.
            let exported = source.keys(manifest.body_keys)?;
            self.keys.adopt(&exported, manifest.body_keys)?;
        }
        for (log, head) in &manifest.logs {
            if let Some(pruned) = manifest.retention.pruned.get(log) {
                self.begin_after(log, pruned, &*source)?;
            }
            let files = self.log(log)?;
            let have = files.head.size();
            tracing::info!(%log, from = have, to = head.size(), "takes records from another replica");
            if have < head.size() {
                source.leaves(log, have, head.size(), &mut |leaf, body| {
                    let view = RecordView::read(leaf).map_err(|e| io::Error::other(e.to_string()))?;
                    if body.map(|body| Hash(provost_sealed::sha256(body))) != view.body_sealed {
                        let text = format!("PV-AUDIT-BEHIND: a body of {log} is not the one that its record names");
                        return Err(io::Error::other(text));
                    }
                    let index = files.append(leaf, leaf_hash(leaf), view.time_ns)?;
                    body.map_or(Ok(()), |body| files.append_body(index, body))
                })?;
            }
            files.flush()?;
            if (files.head.size(), files.head.chain) != (head.size(), head.chain)
                || files.head.frontier.root() != head.frontier.root()
            {
                let text = format!("PV-AUDIT-BEHIND: the records of {log} are not those that the group agreed on");
                return Err(io::Error::other(text));
            }
        }
        for (log, signed) in &manifest.checkpoints {
            let history = history(&*source, &manifest, log, signed)?;
            let path = self.dir.join(log.folder()).join(HISTORY_FILE);
            crate::persist::replace(&path, history.as_bytes())?;
        }
        self.state = manifest;
        self.prune_due.extend(self.state.retention.pruned.keys().cloned());
        self.broken = false;
        self.published = self.state.checkpoints.keys().cloned().collect();
        self.cosigned_due = self.state.cosigned.keys().cloned().collect();
        if let Some(noted) = self.noted() {
            self.public_key = noted;
            self.keys_due = true;
        }
        Ok(())
    }

    /// Records before `pruned` are nowhere any more: what stays of them takes their place here.
    fn begin_after(&mut self, log: &LogId, pruned: &Pruned, source: &dyn LeafSource) -> io::Result<()> {
        let older = self.logs.get(log).map(|files| files.head.clone());
        if older.as_ref().is_some_and(|head| head.size() >= pruned.to) {
            return Ok(());
        }
        let origin = log.origin(&self.state.cluster);
        let layout = LogLayout::new(self.dir.join(log.folder()));
        self.disk.make_dir(&layout.segments())?;
        let stays =
            PruneFiles { disk: self.disk.clone(), layout: layout.clone(), to: pruned.to, record: pruned.record };
        let head = stays.take(&source.pruned(log, pruned.to)?, &origin)?;
        let key = VerifierKey { name: origin.clone(), public_key: self.public_key };
        let mut files = LogFiles::begin(&self.disk, layout, &origin, &key.to_text(), head).map_err(io::Error::other)?;
        if let Some(older) = &older {
            files.replace(older);
        }
        self.logs.insert(log.clone(), files);
        Ok(())
    }
}
