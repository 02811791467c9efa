//! The books of one device's memory.
//!
//! Weights go Absent -> Loading -> Ready -> (Draining ->) Absent. Eviction is GreedyDual-Size
//! (Cao and Irani, 1997) with frequency: H = L + value * reload time / bytes, where L rises to the
//! H of the last victim, so what was valuable long ago ages. The value is the number of
//! uses here; the arbiter puts in class weight and demand. The books change when a decision is
//! returned: the driver must have dropped the named weights before it allocates anything else.

use std::collections::HashMap;

use crate::eviction::{Candidate, cheapest_set};
use crate::{Admission, Drain, Lease, Refusal, Reserved, Standing, Usage, WeightsKey};

/// Uses beyond these add nothing, so that the favourite of last month can be outlived.
const MOST_USES: u64 = 32;

/// The books of one device.
#[derive(Debug)]
pub struct DeviceMemory {
    capacity: u64,
    used: u64,
    /// Bytes that the books call free and the device has not.
    withheld: u64,
    /// Bytes that are in use and that no lease has.
    aside: u64,
    weights: HashMap<WeightsKey, Resident>,
    leases: HashMap<u64, Holding>,
    next_lease: u64,
    /// The inflation term L of GreedyDual-Size.
    age: f64,
    /// Orders uses, to break ties by least recent use.
    ticks: u64,
}

#[derive(Debug)]
struct Resident {
    bytes: u64,
    reload_micros: u64,
    state: State,
    refs: u32,
    uses: u64,
    /// L when it was last used.
    age: f64,
    last_use: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Loading,
    Ready,
    Draining { loading: bool },
}

#[derive(Clone, Copy, Debug)]
enum Holding {
    Weights(WeightsKey),
    Budget(u64),
}

impl DeviceMemory {
    /// An empty device of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            used: 0,
            withheld: 0,
            aside: 0,
            weights: HashMap::new(),
            leases: HashMap::new(),
            next_lease: 0,
            age: 0.0,
            ticks: 0,
        }
    }

    /// Asks to use weights of `bytes` whose loading takes about `reload_micros`.
    ///
    /// # Errors
    /// [`Refusal`] when they are absent and room cannot be made, or when they are draining.
    pub fn acquire(&mut self, key: WeightsKey, bytes: u64, reload_micros: u64) -> Result<Admission, Refusal> {
        match self.weights.get(&key).map(|resident| resident.state) {
            Some(State::Draining { .. }) => Err(Refusal::Draining { key }),
            Some(state) => {
                self.touch(key);
                let lease = self.grant(Holding::Weights(key));
                Ok(match state {
                    State::Ready => Admission::Ready { lease },
                    _ => Admission::Loading { lease },
                })
            }
            None => {
                let evict = self.make_room(bytes)?;
                self.used += bytes;
                self.weights.insert(
                    key,
                    Resident {
                        bytes,
                        reload_micros: reload_micros.max(1),
                        state: State::Loading,
                        refs: 0,
                        uses: 0,
                        age: 0.0,
                        last_use: 0,
                    },
                );
                self.touch(key);
                let lease = self.grant(Holding::Weights(key));
                Ok(Admission::Load { lease, evict })
            }
        }
    }

    /// Reports that weights are in place and took `reload_micros`. True: a drain was asked for
    /// meanwhile and nobody uses them, so drop them now.
    pub fn loaded(&mut self, key: WeightsKey, reload_micros: u64) -> bool {
        let Some(resident) = self.weights.get_mut(&key) else {
            return false;
        };
        resident.reload_micros = reload_micros.max(1);
        resident.state = match resident.state {
            State::Draining { .. } => State::Draining { loading: false },
            _ => State::Ready,
        };
        self.drop_if_drained(key)
    }

    /// Reports that weights could not be loaded: they are absent again and every lease on them
    /// is void (releasing a void lease does nothing).
    pub fn load_failed(&mut self, key: WeightsKey) {
        if let Some(resident) = self.weights.remove(&key) {
            self.used -= resident.bytes;
            self.leases.retain(|_, holding| !matches!(holding, Holding::Weights(k) if *k == key));
        }
    }

    /// Asks for a budget of bytes, such as a KV cache.
    ///
    /// # Errors
    /// [`Refusal`] when room cannot be made.
    pub fn reserve(&mut self, bytes: u64) -> Result<Reserved, Refusal> {
        let evict = self.make_room(bytes)?;
        self.used += bytes;
        let lease = self.grant(Holding::Budget(bytes));
        Ok(Reserved { lease, evict })
    }

    /// A budget out of what is free, or none: nothing is evicted for it.
    pub(crate) fn reserve_free(&mut self, bytes: u64) -> Option<Lease> {
        (bytes <= self.free()).then(|| {
            self.used += bytes;
            self.grant(Holding::Budget(bytes))
        })
    }

    /// Takes `bytes` out of a budget into a lease of their own; none when it has not so many.
    pub(crate) fn split(&mut self, budget: &Lease, bytes: u64) -> Option<Lease> {
        match self.leases.get_mut(&budget.id) {
            Some(Holding::Budget(held)) => *held = held.checked_sub(bytes)?,
            Some(Holding::Weights(_)) | None => return None,
        }
        Some(self.grant(Holding::Budget(bytes)))
    }

    /// Gives a lease back. Some: these weights were draining and are free now: drop them.
    pub fn release(&mut self, lease: Lease) -> Option<WeightsKey> {
        match self.leases.remove(&lease.id)? {
            Holding::Budget(bytes) => {
                self.used -= bytes;
                None
            }
            Holding::Weights(key) => {
                let resident = self.weights.get_mut(&key)?;
                resident.refs -= 1;
                self.drop_if_drained(key).then_some(key)
            }
        }
    }

    /// Removes weights: at once when idle, else after the last lease. No new leases meanwhile.
    pub fn drain(&mut self, key: WeightsKey) -> Drain {
        let Some(resident) = self.weights.get_mut(&key) else {
            return Drain::Absent;
        };
        let loading = matches!(resident.state, State::Loading | State::Draining { loading: true });
        resident.state = State::Draining { loading };
        if self.drop_if_drained(key) { Drain::Drop } else { Drain::Later }
    }

    /// True when the weights can be used now.
    pub fn is_ready(&self, key: WeightsKey) -> bool {
        self.weights.get(&key).is_some_and(|resident| resident.state == State::Ready)
    }

    /// Live leases on these weights.
    pub fn refs(&self, key: WeightsKey) -> u32 {
        self.weights.get(&key).map_or(0, |resident| resident.refs)
    }

    /// Where these weights stand.
    pub fn standing(&self, key: WeightsKey) -> Standing {
        match self.weights.get(&key) {
            None => Standing::Absent,
            Some(Resident { state: State::Loading, .. }) => Standing::Loading,
            Some(Resident { state: State::Ready, refs, .. }) => Standing::Ready { leases: *refs },
            Some(Resident { state: State::Draining { .. }, refs, .. }) => Standing::Draining { leases: *refs },
        }
    }

    /// The books in sums.
    pub fn usage(&self) -> Usage {
        let weights = self.weights.values().map(|resident| resident.bytes).sum();
        Usage { capacity: self.capacity, weights, reserved: self.used - weights + self.aside }
    }

    /// Bytes that can be had without evicting.
    pub(crate) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.used + self.withheld + self.aside)
    }

    /// Bytes by which the device is fuller than it may be: something else took memory.
    pub(crate) fn overdraft(&self) -> u64 {
        (self.used + self.withheld + self.aside).saturating_sub(self.capacity)
    }

    /// Sets the bytes that are not to be given away although they are not booked.
    pub(crate) fn withhold(&mut self, bytes: u64) {
        self.withheld = bytes;
    }

    /// Bytes that are booked without a lease.
    pub(crate) fn aside(&self) -> u64 {
        self.aside
    }

    /// Sets the bytes that are booked without a lease.
    pub(crate) fn set_aside(&mut self, bytes: u64) {
        self.aside = bytes;
    }

    /// True when the weights are in the books in any state.
    pub(crate) fn holds(&self, key: WeightsKey) -> bool {
        self.weights.contains_key(&key)
    }

    /// Ready weights, leased or not, with their value; `value` gives class weight times frequency.
    pub(crate) fn ready(&self, value: impl Fn(WeightsKey) -> f64) -> Vec<Candidate> {
        let ready = self.weights.iter().filter(|(_, resident)| resident.state == State::Ready);
        let mut ready: Vec<Candidate> = ready.map(|(key, resident)| resident.candidate(*key, value(*key))).collect();
        ready.sort_by(Candidate::by_worth);
        ready
    }

    /// Strikes idle weights from the books.
    pub(crate) fn strike(&mut self, victims: &[Candidate]) {
        for victim in victims {
            let idle = self.weights.get(&victim.key).is_some_and(|r| r.refs == 0 && r.state == State::Ready);
            if idle && let Some(resident) = self.weights.remove(&victim.key) {
                self.used -= resident.bytes;
                self.age = self.age.max(victim.worth);
            }
        }
    }

    /// Chooses idle weights to evict so that `bytes` fit, and strikes them from the books.
    fn make_room(&mut self, bytes: u64) -> Result<Vec<WeightsKey>, Refusal> {
        if bytes > self.capacity {
            return Err(Refusal::TooLarge { needed: bytes, capacity: self.capacity });
        }
        let free = self.free();
        let Some(lacking) = bytes.checked_sub(free).filter(|lacking| *lacking > 0) else {
            return Ok(Vec::new());
        };
        let idle: Vec<Candidate> = self
            .weights
            .iter()
            .filter(|(_, resident)| resident.state == State::Ready && resident.refs == 0)
            .map(|(key, resident)| resident.candidate(*key, resident.uses.min(MOST_USES) as f64))
            .collect();
        let evictable: u64 = idle.iter().map(|victim| victim.bytes).sum();
        let Some(victims) = cheapest_set(idle, lacking) else {
            return Err(Refusal::NoRoom { needed: bytes, free, evictable });
        };
        self.strike(&victims);
        Ok(victims.into_iter().map(|victim| victim.key).collect())
    }

    fn touch(&mut self, key: WeightsKey) {
        self.ticks += 1;
        if let Some(resident) = self.weights.get_mut(&key) {
            resident.uses += 1;
            resident.last_use = self.ticks;
            resident.age = self.age;
        }
    }

    fn grant(&mut self, holding: Holding) -> Lease {
        if let Holding::Weights(key) = holding
            && let Some(resident) = self.weights.get_mut(&key)
        {
            resident.refs += 1;
        }
        let id = self.next_lease;
        self.next_lease += 1;
        self.leases.insert(id, holding);
        Lease { id }
    }

    fn drop_if_drained(&mut self, key: WeightsKey) -> bool {
        let drained = self
            .weights
            .get(&key)
            .is_some_and(|resident| resident.refs == 0 && resident.state == State::Draining { loading: false });
        if drained && let Some(resident) = self.weights.remove(&key) {
            self.used -= resident.bytes;
        }
        drained
    }
}

impl Resident {
    fn candidate(&self, key: WeightsKey, value: f64) -> Candidate {
        let per_byte = self.reload_micros as f64 / self.bytes.max(1) as f64;
        Candidate {
            key,
            bytes: self.bytes,
            refs: self.refs,
            worth: self.age + value * per_byte,
            last_use: self.last_use,
        }
    }
}
