//! A replica that is behind the Raft log makes its files of what another one gives it.

use std::io;

use provost_audit_core::{Hash, LogId, RecordView, VerifierKey, leaf_hash};
use provost_audit_verify::{HISTORY_FILE, LogLayout};

use super::AuditMachine;
use crate::{
    catch_up::{LeafSource, earlier_checkpoints},
    log_files::LogFiles,
    prune_files::PruneFiles,
    retention_state::Pruned,
    state::MachineState,
};

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
            let dir = self.dir.join(log.folder());
            let (origin, size) = (log.origin(&manifest.cluster), signed.head.size);
            let history = earlier_checkpoints(&source.checkpoints(log)?, &origin, &signed.note, size);
            crate::persist::replace(&dir.join(HISTORY_FILE), history.as_bytes())?;
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
