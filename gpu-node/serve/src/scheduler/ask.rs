//! From a request that came to one that waits for its turn: its model is looked at, and it is read.

use std::sync::Arc;

use provost_gpu_vram::{Priority, Rejection};

use super::adapters::adapter_bytes;
use super::{NotReady, Scheduler};
use crate::catalogue::Entry;
use crate::error;
use crate::job::Job;
use crate::preparer::Done;
use crate::preparing::{Overdue, Reading, WasRead};
use crate::residency::Identity;
use crate::stats::RefusedFor;
use crate::turns::ADMISSION_DEADLINE;

impl Scheduler {
    /// Takes in a request that was read.
    pub(super) fn take_in_prepared(&mut self, done: Done) {
        let Some(WasRead { job, entry, result }) = self.preparing.take_in(done) else { return };
        match result {
            Ok(prepared) => self.asked.push(NotReady { job, read: Some((entry, prepared)) }),
            Err(cause) => job.work.refuse(error::of_infer(cause)),
        }
    }

    /// Refuses what was not read in time.
    pub(super) fn refuse_overdue(&mut self) {
        let Overdue { slow, late } = self.preparing.take_overdue();
        for job in slow {
            job.work.refuse(error::too_slow_to_prepare(self.preparing.deadline()));
        }
        for job in late {
            self.stats.refused(RefusedFor::Overdue);
            job.work.refuse(error::waited_too_long());
        }
    }

    /// Lets a request wait for its model, once it is known which weights that is and the request was read.
    pub(super) fn ask(&mut self, asked: NotReady) {
        let NotReady { job, read } = asked;
        if job.work.is_cancelled() {
            return;
        }
        if job.arrived.elapsed() > ADMISSION_DEADLINE {
            self.stats.refused(RefusedFor::Overdue);
            job.work.refuse(error::waited_too_long());
            return;
        }
        let is_seen = self.is_seen_by(job.work.model(), job.work.tenant());
        let Some(entry) = self.catalogue.find(job.work.model()).filter(|_| is_seen) else {
            let refusal = error::not_found(job.work.model());
            job.work.refuse(refusal);
            return;
        };
        if let Ok(source) = &entry.source
            && source.info().kind != job.work.kind()
        {
            job.work.refuse(error::wrong_kind(&entry.name, source.info().kind));
            return;
        }
        // Its adapter is there while its weights come: together they must fit. What never does is not read, and nothing goes for it.
        let needed = self.bytes_of(&entry).saturating_add(adapter_bytes(&entry));
        let capacity = self.turns.usage().capacity;
        if needed > capacity {
            return self.reject(job, &entry, Rejection::TooLarge { needed, capacity });
        }
        if !self.may_read_adapter(&entry) {
            self.asked.push(NotReady { job, read });
            return;
        }
        match self.residency.identify(&entry) {
            Identity::Pending => self.asked.push(NotReady { job, read }),
            Identity::Failed(cause) => {
                self.stats.refused(RefusedFor::NotLoaded);
                job.work.refuse(error::of_infer(cause));
            }
            Identity::Known(key) => {
                let class = self.class_of(&entry.name);
                // What was read for files that have changed since is read again.
                let Some((_, prepared)) = read.filter(|(of, _)| Arc::ptr_eq(of, &entry)) else {
                    return self.prepare(job, entry, class);
                };
                let weights = self.weights_of(&entry, key);
                if let Some((job, why)) = self.turns.submit(job, prepared, Arc::clone(&entry), weights) {
                    self.reject(job, &entry, why);
                }
            }
        }
    }

    /// Lets a request be read.
    fn prepare(&mut self, job: Job, entry: Arc<Entry>, class: Priority) {
        match self.residency.text(&entry) {
            Some(text) => self.preparing.push(Reading { job, entry, text, class }),
            // It is there whenever its weights are known; asking again is the safe answer.
            None => self.asked.push(NotReady { job, read: None }),
        }
    }
}
