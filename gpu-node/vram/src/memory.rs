//! The machine: books of one device's memory.
//!
//! Weights go Absent -> Loading -> Ready -> (Draining ->) Absent. Eviction is GreedyDual-Size
//! (Cao and Irani, 1997) with frequency: H = L + uses * reload cost / bytes, where L rises to the
//! H of the last victim, so what was valuable long ago ages. The books change when a decision is
//! returned: the driver must have dropped the named weights before it allocates anything else.

use std::collections::HashMap;

use crate::{Lease, Refusal, WeightsKey};

/// The books of one device.
#[derive(Debug)]
pub struct DeviceMemory {
    capacity: u64,
    used: u64,
    weights: HashMap<WeightsKey, Resident>,
    leases: HashMap<u64, Holding>,
    next_lease: u64,
    /// The inflation term L of GreedyDual-Size.
    age: f64,
    /// Orders uses, to break ties by least recent use.
    ticks: u64,
}

/// The answer to a request for weights.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// They are resident: use them.
    Ready {
        /// Pins them.
        lease: Lease,
    },
    /// An earlier caller is loading them: wait for that.
    Loading {
        /// Pins them from the moment they are loaded.
        lease: Lease,
    },
    /// The caller drops `evict`, loads, and then reports `loaded` or `load_failed`.
    Load {
        /// Pins them from the moment they are loaded.
        lease: Lease,
        /// To be dropped first.
        evict: Vec<WeightsKey>,
    },
}

/// A granted budget of bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Holds the bytes.
    pub lease: Lease,
    /// To be dropped before the bytes are used.
    pub evict: Vec<WeightsKey>,
}

/// What became of a request to remove weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They were idle: drop them now.
    Drop,
    /// They are in use or loading: `release` or `loaded` will say when to drop them.
    Later,
    /// They were not here.
    Absent,
}

/// Bytes by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the device.
    pub capacity: u64,
    /// Bytes of weights, in use or idle.
    pub weights: u64,
    /// Bytes of granted budgets.
    pub reserved: u64,
}

#[derive(Debug)]
struct Resident {
    bytes: u64,
    reload_micros: u64,
    state: State,
    refs: u32,
    uses: u64,
    worth: f64,
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
        Self { capacity, used: 0, weights: HashMap::new(), leases: HashMap::new(), next_lease: 0, age: 0.0, ticks: 0 }
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
                        worth: 0.0,
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

    /// The books in sums.
    pub fn usage(&self) -> Usage {
        let weights = self.weights.values().map(|resident| resident.bytes).sum();
        Usage { capacity: self.capacity, weights, reserved: self.used - weights }
    }

    /// Chooses idle weights to evict so that `bytes` fit, and strikes them from the books.
    fn make_room(&mut self, bytes: u64) -> Result<Vec<WeightsKey>, Refusal> {
        if bytes > self.capacity {
            return Err(Refusal::TooLarge { needed: bytes, capacity: self.capacity });
        }
        let free = self.capacity - self.used;
        let Some(lacking) = bytes.checked_sub(free).filter(|lacking| *lacking > 0) else {
            return Ok(Vec::new());
        };
        let mut idle = self.idle_by_worth();
        let evictable: u64 = idle.iter().map(|victim| victim.bytes).sum();
        if evictable < lacking {
            return Err(Refusal::NoRoom { needed: bytes, free, evictable });
        }
        let victims = cheapest_set(&mut idle, lacking);
        for victim in &victims {
            self.weights.remove(&victim.key);
            self.used -= victim.bytes;
            self.age = self.age.max(victim.worth);
        }
        Ok(victims.into_iter().map(|victim| victim.key).collect())
    }

    /// Idle weights, least worth first; among equals the least recently used first.
    fn idle_by_worth(&self) -> Vec<Victim> {
        let mut idle: Vec<Victim> = self
            .weights
            .iter()
            .filter(|(_, resident)| resident.state == State::Ready && resident.refs == 0)
            .map(|(key, resident)| Victim {
                key: *key,
                bytes: resident.bytes,
                worth: resident.worth,
                last_use: resident.last_use,
            })
            .collect();
        idle.sort_by(|a, b| a.worth.total_cmp(&b.worth).then(a.last_use.cmp(&b.last_use)));
        idle
    }

    fn touch(&mut self, key: WeightsKey) {
        self.ticks += 1;
        if let Some(resident) = self.weights.get_mut(&key) {
            resident.uses += 1;
            resident.last_use = self.ticks;
            let per_byte = resident.reload_micros as f64 / resident.bytes.max(1) as f64;
            resident.worth = self.age + resident.uses as f64 * per_byte;
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

struct Victim {
    key: WeightsKey,
    bytes: u64,
    worth: f64,
    last_use: u64,
}

/// Takes from the least worth upwards until enough is freed, then spares, from the most worth
/// downwards, what turned out not to be needed.
fn cheapest_set(idle: &mut Vec<Victim>, lacking: u64) -> Vec<Victim> {
    let mut freed = 0;
    let mut taken = 0;
    while freed < lacking && taken < idle.len() {
        freed += idle[taken].bytes;
        taken += 1;
    }
    let mut chosen: Vec<Victim> = idle.drain(..taken).collect();
    for index in (0..chosen.len()).rev() {
        if freed - chosen[index].bytes >= lacking {
            freed -= chosen[index].bytes;
            chosen.remove(index);
        }
    }
    chosen
}
