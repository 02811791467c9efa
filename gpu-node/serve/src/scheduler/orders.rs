//! Following orders between two turns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use provost_gpu_infer::{InferError, ModelSource};
use provost_gpu_vram::{Priority, Rejection, Standing, Weights, WeightsKey};

use super::{ASSUMED_BYTES_PER_MICRO, Scheduler};
use crate::catalogue::Entry;
use crate::copies::CopyStands;
use crate::error;
use crate::orders::{self, LoadStands, ModelOrder, ModelRefusal, Order, Pending};
use crate::residency::Identity;
use crate::standing::{ModelStanding, ModelState, class_of, priority_of};
use crate::turns::ADMISSION_DEADLINE;

/// Of the device's memory pinned models take at most this part, so that others can be served too: three of four.
const PINNED_PART: (u64, u64) = (3, 4);

/// What a step of an order came to.
enum Came {
    /// It is done, or refused.
    End(Result<(), ModelRefusal>),
    /// It goes on.
    NotYet,
}

impl Scheduler {
    /// Takes orders in.
    pub(super) fn hear(&mut self, order: Order) {
        match order {
            Order::Of { name, order, reply } => self.orders.take(name, order, reply),
            Order::List { reply } => {
                let entries = self.catalogue.entries();
                let all = entries.iter().map(|entry| self.standing_of(entry)).collect();
                // Who has left does not mind.
                drop(reply.send(all));
            }
            Order::Uses { reply } => {
                let turns = &self.turns;
                drop(reply.send(self.orders.used_yet(|key| turns.standing(key))));
            }
            Order::Declared => {
                self.orders.declare(self.catalogue.pinned());
                self.let_go_of_what_went();
            }
        }
    }

    /// Goes on with what is under way, and looks after what is to stay.
    pub(super) fn follow_orders(&mut self) {
        for mut pending in std::mem::take(&mut self.orders.pending) {
            if pending.reply.is_closed() {
                self.take_back(&pending);
                continue;
            }
            let came = match pending.since.elapsed() > ADMISSION_DEADLINE {
                true => Came::End(Err(orders::not_in_time(&pending.name))),
                false => self.step(&mut pending),
            };
            match came {
                Came::NotYet => self.orders.pending.push(pending),
                Came::End(result) => {
                    if result.is_err() {
                        self.take_back(&pending);
                    }
                    let found = self.catalogue.find(&pending.name);
                    let told = result.and_then(|()| match found {
                        Some(entry) => Ok(self.standing_of(&entry)),
                        None => Err(orders::unknown(&pending.name)),
                    });
                    drop(pending.reply.send(told));
                }
            }
        }
        if self.orders.is_time_to_look() {
            self.look_after_pins();
        }
    }

    /// Who is told that a model is not pinned, or is told nothing, does not find it pinned later.
    fn take_back(&mut self, pending: &Pending) {
        if pending.order == ModelOrder::Pin && pending.has_begun {
            self.orders.take_back(&pending.name);
        }
    }

    fn step(&mut self, pending: &mut Pending) -> Came {
        let Some(entry) = self.catalogue.find(&pending.name) else {
            return Came::End(Err(orders::unknown(&pending.name)));
        };
        match pending.order {
            ModelOrder::Load => self.bring(&entry, Some(pending.since)),
            ModelOrder::Unload { drain } => self.send_away(&entry, drain, &mut pending.has_begun),
            ModelOrder::Unpin => {
                self.orders.keep(&entry.name, false);
                self.look_after_pins();
                Came::End(Ok(()))
            }
            ModelOrder::Pin => {
                if !self.orders.is_kept(&entry.name) {
                    if let Err(refusal) = self.check_pinned(&entry) {
                        return Came::End(Err(refusal));
                    }
                    self.orders.keep(&entry.name, true);
                    pending.has_begun = true;
                }
                let came = self.bring(&entry, Some(pending.since));
                if matches!(came, Came::End(Ok(()))) {
                    self.look_after_pins();
                }
                came
            }
        }
    }

    /// Brings weights into memory, waiting in the queue like a request. Who orders it is told when that is refused; what
    /// is to stay is tried again later.
    fn bring(&mut self, entry: &Arc<Entry>, ordered: Option<Instant>) -> Came {
        let key = match self.residency.identify(entry) {
            Identity::Known(key) => key,
            Identity::Pending => return Came::NotYet,
            Identity::Failed(cause) => return Came::End(Err(of_infer(cause))),
        };
        match (self.turns.standing(key), self.orders.load_stands(key, ordered)) {
            (Standing::Ready { .. }, _) => Came::End(Ok(())),
            (_, LoadStands::Waits) => Came::NotYet,
            (_, LoadStands::Refused(why)) => Came::End(Err(self.of_rejection(entry, why))),
            (_, LoadStands::Idle) => {
                match self.turns.submit_load(self.weights_of(entry, key)) {
                    Ok(ticket) => self.orders.load_begins(key, ticket),
                    Err(why) if ordered.is_some() => return Came::End(Err(self.of_rejection(entry, why))),
                    Err(why) => self.orders.load_refused(key, why),
                }
                Came::NotYet
            }
        }
    }

    fn of_rejection(&self, entry: &Arc<Entry>, why: Rejection) -> ModelRefusal {
        let cause = self.residency.failure(entry).filter(|_| why == Rejection::LoadFailed);
        match cause {
            Some(cause) => of_infer(cause),
            None => ModelRefusal(error::of_rejection(&entry.name, &why).message),
        }
    }

    /// Takes weights out of memory.
    fn send_away(&mut self, entry: &Arc<Entry>, drain: bool, is_going: &mut bool) -> Came {
        let Some(key) = self.residency.key(entry) else {
            // It was never read: it is not in memory.
            return Came::End(Ok(()));
        };
        if self.orders.kept.contains(&key) || self.orders.is_kept(&entry.name) {
            return Came::End(Err(orders::pinned(&entry.name)));
        }
        match self.turns.standing(key) {
            Standing::Absent => return Came::End(Ok(())),
            // Others may have come for it since: they have it loaded again, and the order is done.
            Standing::Loading | Standing::Ready { .. } if *is_going => return Came::End(Ok(())),
            Standing::Draining { .. } if drain || *is_going => return Came::NotYet,
            Standing::Loading if !drain => return Came::End(Err(orders::being_loaded(&entry.name))),
            Standing::Ready { leases } | Standing::Draining { leases } if leases > 0 && !drain => {
                return Came::End(Err(orders::in_use(&entry.name, leases)));
            }
            Standing::Loading | Standing::Ready { .. } | Standing::Draining { .. } => {}
        }
        self.turns.unload(key);
        *is_going = true;
        Came::NotYet
    }

    /// Whether there is room for one more that stays.
    fn check_pinned(&self, entry: &Arc<Entry>) -> Result<(), ModelRefusal> {
        let names = self.orders.to_keep();
        let kept = names.iter().filter(|name| **name != entry.name).filter_map(|name| self.catalogue.find(name));
        let bytes = kept.map(|kept| self.bytes_of(&kept)).fold(self.bytes_of(entry), u64::saturating_add);
        let (part, of) = PINNED_PART;
        let most = self.turns.usage().capacity / of * part;
        if bytes > most {
            return Err(orders::too_much_pinned(&entry.name, bytes, most));
        }
        Ok(())
    }

    /// Tells the arbiter what stays, and loads what is to stay and is not there.
    fn look_after_pins(&mut self) {
        let names = self.orders.to_keep();
        if names.is_empty() && self.orders.kept.is_empty() {
            return;
        }
        let mut kept = BTreeSet::new();
        let (part, of) = PINNED_PART;
        let mut left = self.turns.usage().capacity / of * part;
        let entries: Vec<Arc<Entry>> = names.iter().filter_map(|name| self.catalogue.find(name)).collect();
        for entry in entries {
            // One that cannot be read is read again when its files have changed, or somebody asks for it.
            if self.residency.failure(&entry).is_some() {
                continue;
            }
            let Identity::Known(key) = self.residency.identify(&entry) else { continue };
            if kept.contains(&key) {
                continue;
            }
            // What is declared is not refused: as much of it stays as may, in order of the names.
            let Some(rest) = left.checked_sub(self.bytes_of(&entry)) else { continue };
            left = rest;
            kept.insert(key);
            // Its failures are told by its status.
            let _ = self.bring(&entry, None);
        }
        for key in self.orders.kept.difference(&kept) {
            self.turns.pin(*key, false);
        }
        for key in &kept {
            self.turns.pin(*key, true);
        }
        self.orders.kept = kept;
    }

    /// Weights of models that are not what they were go as soon as nobody uses them.
    fn let_go_of_what_went(&mut self) {
        let entries = self.catalogue.entries();
        let known = self.residency.known_keys();
        let is_current = |entry: &Arc<Entry>| entries.iter().any(|current| Arc::ptr_eq(current, entry));
        let needed: BTreeSet<WeightsKey> =
            known.iter().filter(|(entry, _)| is_current(entry)).map(|(_, key)| *key).collect();
        // What has gone since is forgotten.
        let turns = &self.turns;
        drop(self.orders.used_yet(|key| turns.standing(key)));
        for (entry, key) in known.iter().filter(|(entry, key)| !is_current(entry) && !needed.contains(key)) {
            tracing::info!(model = entry.name, "the model is not here any more");
            if let Some(digest) = entry.digest_of_weights() {
                self.orders.leaves(digest, *key);
            }
            self.turns.unload(*key);
        }
        // What they were read for: tokenizers and adapters would stay for ever.
        self.residency.keep(is_current);
    }

    /// Weights as they are in the books, and how long they may take to load.
    pub(super) fn weights_of(&self, entry: &Arc<Entry>, key: WeightsKey) -> Weights {
        let read = entry.source.as_ref().map_or(0, ModelSource::weight_bytes);
        let load_micros = read / ASSUMED_BYTES_PER_MICRO;
        Weights { key, bytes: self.bytes_of(entry), load_micros, class: self.class_of(&entry.name) }
    }

    /// Bytes that the weights of a model take on this device.
    pub(super) fn bytes_of(&self, entry: &Arc<Entry>) -> u64 {
        entry.source.as_ref().map_or(0, |source| source.weight_bytes_on(&self.device))
    }

    /// How much a model matters: what is declared counts over what is configured.
    pub(super) fn class_of(&self, name: &str) -> Priority {
        match self.catalogue.declared(name) {
            Some(spec) => class_of(spec.priority),
            None => self.priorities.get(name).copied().unwrap_or_default(),
        }
    }

    /// Whether a model is there for a tenant.
    pub(super) fn is_seen_by(&self, name: &str, tenant: &str) -> bool {
        self.catalogue.is_seen_by(name, tenant)
    }

    fn standing_of(&self, entry: &Arc<Entry>) -> ModelStanding {
        let key = self.residency.key(entry);
        let (mut state, leases) = ModelState::of(key.map_or(Standing::Absent, |key| self.turns.standing(key)));
        let failure = match &entry.source {
            Err(cause) => Some(cause.clone()),
            Ok(_) if state == ModelState::Absent => self.residency.failure(entry),
            Ok(_) => None,
        };
        if let Some(cause) = &failure {
            let is_missing = matches!(cause, InferError::Missing { .. });
            state = if is_missing { ModelState::Missing } else { ModelState::Failed };
        }
        let mut reason = failure.map(|cause| cause.to_string()).unwrap_or_default();
        let copy = match self.catalogue.copy_of(&entry.name).filter(|_| state == ModelState::Missing) {
            Some(CopyStands::Runs(copy)) => {
                (state, reason) = (ModelState::Copying, String::new());
                Some(copy)
            }
            Some(CopyStands::Stuck(why)) => {
                reason = why;
                None
            }
            None => None,
        };
        if let (ModelState::Absent, Some(LoadStands::Refused(why))) =
            (state, key.map(|key| self.orders.load_stands(key, None)))
        {
            reason = why.to_string();
        }
        let is_kept = self.orders.is_kept(&entry.name);
        if reason.is_empty() && is_kept && key.is_some_and(|key| !self.orders.kept.contains(&key)) {
            reason = orders::not_kept();
        }
        let source = entry.source.as_ref().ok();
        let asked = self.asked.iter().map(|asked| asked.job.work.model()).chain(self.preparing.models());
        let asked = asked.filter(|name| *name == entry.name).count();
        let waiting = self.turns.waiting_for(entry).saturating_add(asked);
        ModelStanding {
            name: entry.name.clone(),
            declared: entry.is_declared(),
            digest: entry.digest(),
            format: source.map(ModelSource::format),
            dtype: source.map(|source| source.dtype().to_owned()).unwrap_or_default(),
            architecture: source.map(|source| source.info().architecture.clone()).unwrap_or_default(),
            bytes: source.map_or(0, ModelSource::weight_bytes),
            state,
            reason,
            pinned: is_kept,
            priority: priority_of(self.class_of(&entry.name)),
            leases,
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            copy,
        }
    }
}

fn of_infer(cause: InferError) -> ModelRefusal {
    ModelRefusal(cause.to_string())
}
