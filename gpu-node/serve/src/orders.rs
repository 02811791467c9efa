//! What administrators ask of models: to load them, to let them go, to keep them.
//!
//! The scheduler follows orders between its turns. A load waits in the queue of the arbiter like a request, and holds
//! nothing once the weights are there; who gave the order and does not wait any more is forgotten. Pins are looked after all
//! the time: a model that is to stay and is not there is loaded, and where there was no room for it, tried again some time
//! later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use provost_gpu_vram::{Rejection, Standing, Ticket, WeightsKey};
use provost_types::FileDigest;
use tokio::sync::oneshot;

use crate::standing::ModelStanding;

/// Between two looks at what is to stay in memory.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a load that failed a model that is to stay is not loaded again for so long.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Orders that may wait; more are refused.
pub(crate) const MOST_ORDERS: usize = 64;

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelOrder {
    /// Bring it into memory.
    Load,
    /// Take it out of memory. Refused while it is used, unless to drain: then it takes no new requests until it has gone.
    Unload {
        /// Wait for those who use it.
        drain: bool,
    },
    /// Bring it into memory, and let it stay whoever else needs room.
    Pin,
    /// Let it go like others.
    Unpin,
}

/// Why an order was not followed: code, cause and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRefusal(pub(crate) String);

impl fmt::Display for ModelRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ModelRefusal {}

/// Where the answer to an order goes.
pub(crate) type OrderReply = oneshot::Sender<Result<ModelStanding, ModelRefusal>>;

/// What is put into the inbox.
pub(crate) enum Order {
    /// Of one model.
    Of { name: String, order: ModelOrder, reply: OrderReply },
    /// Where all of them stand.
    List { reply: oneshot::Sender<Vec<ModelStanding>> },
    /// Which stored models are not declared any more, and used.
    Uses { reply: oneshot::Sender<BTreeSet<FileDigest>> },
    /// What is declared has changed.
    Declared,
}

/// An order that is being followed.
pub(crate) struct Pending {
    pub(crate) name: String,
    pub(crate) order: ModelOrder,
    pub(crate) reply: OrderReply,
    pub(crate) since: Instant,
    /// Something was done for it: the weights were told to go, or the model to stay.
    pub(crate) has_begun: bool,
}

/// Orders under way, and what is to stay.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) pending: Vec<Pending>,
    /// By order, over what is declared, until that changes.
    asked: BTreeMap<String, bool>,
    /// What was declared when it was last looked at.
    declared: BTreeSet<String>,
    /// The weights that the arbiter was told to keep.
    pub(crate) kept: BTreeSet<WeightsKey>,
    /// Weights that are waited for.
    loads: HashMap<WeightsKey, Ticket>,
    refused: HashMap<WeightsKey, (Rejection, Instant)>,
    /// Weights of stored models that are not declared any more, until they have gone.
    /// An adapter has a key of its own over the same files.
    leaving: BTreeSet<(FileDigest, WeightsKey)>,
    looked: Option<Instant>,
}

/// What became of a load that was asked for.
pub(crate) enum LoadStands {
    /// It is not under way.
    Idle,
    /// It waits, or is under way.
    Waits,
    /// It was refused, not long ago.
    Refused(Rejection),
}

impl Orders {
    /// Takes an order in; one too many is refused.
    pub(crate) fn take(&mut self, name: String, order: ModelOrder, reply: OrderReply) {
        if self.pending.len() >= MOST_ORDERS {
            let text = format!("PV-INFERENCE-BUSY: {MOST_ORDERS} orders are being followed; try again in a moment");
            drop(reply.send(Err(ModelRefusal(text))));
            return;
        }
        self.pending.push(Pending { name, order, reply, since: Instant::now(), has_begun: false });
    }

    /// Keeps a model, or does not, whatever is declared.
    pub(crate) fn keep(&mut self, name: &str, stays: bool) {
        self.asked.insert(name.to_owned(), stays);
        self.looked = None;
    }

    /// As if nothing had been ordered: what is declared holds.
    pub(crate) fn take_back(&mut self, name: &str) {
        self.asked.remove(name);
        self.looked = None;
    }

    /// Notes what is declared to stay. What is declared otherwise than before counts over what was ordered.
    pub(crate) fn declare(&mut self, pinned: Vec<String>) {
        let pinned: BTreeSet<String> = pinned.into_iter().collect();
        for changed in pinned.symmetric_difference(&self.declared) {
            self.asked.remove(changed);
        }
        self.declared = pinned;
        self.looked = None;
    }

    /// Whether a model is to stay.
    pub(crate) fn is_kept(&self, name: &str) -> bool {
        self.asked.get(name).copied().unwrap_or_else(|| self.declared.contains(name))
    }

    /// The models that are to stay.
    pub(crate) fn to_keep(&self) -> Vec<String> {
        let asked = self.asked.iter().filter(|(_, stays)| **stays).map(|(name, _)| name);
        let names: BTreeSet<&String> = asked.chain(self.declared.iter().filter(|name| self.is_kept(name))).collect();
        names.into_iter().cloned().collect()
    }

    /// Whether it is time to look after what is to stay.
    pub(crate) fn is_time_to_look(&mut self) -> bool {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return false;
        }
        self.looked = Some(Instant::now());
        true
    }

    /// The weights are waited for from now on.
    pub(crate) fn load_begins(&mut self, key: WeightsKey, ticket: Ticket) {
        self.refused.remove(&key);
        self.loads.insert(key, ticket);
    }

    /// They are not there and will not come.
    pub(crate) fn load_refused(&mut self, key: WeightsKey, why: Rejection) {
        self.loads.remove(&key);
        self.refused.retain(|_, (_, at)| at.elapsed() < TRY_AGAIN_AFTER);
        self.refused.insert(key, (why, Instant::now()));
    }

    /// A request that was refused may be a load. True: it was.
    pub(crate) fn hears_of_refusal(&mut self, ticket: Ticket, why: Rejection) -> bool {
        let Some(key) = self.loads.iter().find(|(_, waits)| **waits == ticket).map(|(key, _)| *key) else {
            return false;
        };
        self.load_refused(key, why);
        true
    }

    /// A request that was started may be a load. True: it was.
    pub(crate) fn hears_of_start(&mut self, ticket: Ticket) -> bool {
        let before = self.loads.len();
        self.loads.retain(|_, waits| *waits != ticket);
        self.loads.len() < before
    }

    /// How a load of these weights stands. Whoever ordered it at a time is not told of what was refused before.
    pub(crate) fn load_stands(&self, key: WeightsKey, ordered: Option<Instant>) -> LoadStands {
        if self.loads.contains_key(&key) {
            return LoadStands::Waits;
        }
        match self.refused.get(&key) {
            Some((why, at)) if ordered.map_or(at.elapsed() < TRY_AGAIN_AFTER, |ordered| *at >= ordered) => {
                LoadStands::Refused(*why)
            }
            _ => LoadStands::Idle,
        }
    }

    /// A stored model is not declared any more; its weights go when nobody uses them.
    pub(crate) fn leaves(&mut self, digest: FileDigest, key: WeightsKey) {
        self.leaving.insert((digest, key));
    }

    /// Of the stored models that are not declared any more, those that are used.
    pub(crate) fn used_yet(&mut self, standing: impl Fn(WeightsKey) -> Standing) -> BTreeSet<FileDigest> {
        self.leaving.retain(|(_, key)| standing(*key) != Standing::Absent);
        let is_used = |key: WeightsKey| match standing(key) {
            Standing::Absent => false,
            Standing::Loading => true,
            Standing::Ready { leases } | Standing::Draining { leases } => leases > 0,
        };
        self.leaving.iter().filter(|(_, key)| is_used(*key)).map(|(digest, _)| *digest).collect()
    }

    /// Whether somebody waits for something.
    pub(crate) fn is_busy(&self) -> bool {
        !self.pending.is_empty() || !self.loads.is_empty()
    }
}

pub(crate) fn unknown(name: &str) -> ModelRefusal {
    ModelRefusal(format!("PV-MODEL-NOT-FOUND: no model `{name}` here; `provost model status` lists what nodes have"))
}

pub(crate) fn in_use(name: &str, by: u32) -> ModelRefusal {
    let who = if by == 1 { "1 request uses".to_owned() } else { format!("{by} requests use") };
    ModelRefusal(format!(
        "PV-MODEL-IN-USE: {who} model `{name}`; wait until they have ended, or let it drain with `--drain`"
    ))
}

pub(crate) fn being_loaded(name: &str) -> ModelRefusal {
    ModelRefusal(format!("PV-MODEL-IN-USE: model `{name}` is being loaded; wait for it, or use `--drain`"))
}

pub(crate) fn pinned(name: &str) -> ModelRefusal {
    ModelRefusal(format!("PV-MODEL-PINNED: model `{name}` is pinned; unpin it first"))
}

pub(crate) fn too_much_pinned(name: &str, bytes: u64, most: u64) -> ModelRefusal {
    ModelRefusal(format!(
        "PV-MODEL-PINNED: with model `{name}`, {bytes} bytes of models would be pinned, of which this node keeps at most \
         {most}; unpin another one, or give the node more memory"
    ))
}

/// Of a model that a resource pins.
pub(crate) fn not_kept() -> String {
    "PV-MODEL-PINNED: pinned models that come before it have the memory that this node keeps for them; unpin one, or give \
     the node more memory"
        .to_owned()
}

pub(crate) fn not_in_time(name: &str) -> ModelRefusal {
    ModelRefusal(format!(
        "PV-INFERENCE-BUSY: model `{name}` did not get there in time; look at its status and try again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_used_until_nobody_uses_it() {
        let mut orders = Orders::default();
        let (digest, key) = (FileDigest::from_bytes([1; 32]), WeightsKey::new([2; 32]));
        orders.leaves(digest, key);
        for used in [Standing::Loading, Standing::Ready { leases: 1 }, Standing::Draining { leases: 1 }] {
            assert_eq!(orders.used_yet(|_| used), BTreeSet::from([digest]), "{used:?}");
        }
        for unused in [Standing::Ready { leases: 0 }, Standing::Draining { leases: 0 }] {
            assert!(orders.used_yet(|_| unused).is_empty(), "{unused:?}");
        }
        assert_eq!(orders.used_yet(|_| Standing::Loading).len(), 1);
        assert!(orders.used_yet(|_| Standing::Absent).is_empty());
        assert!(orders.used_yet(|_| Standing::Loading).is_empty(), "it is forgotten");
        // An adapter that nobody uses says nothing of the model that it is over.
        let adapter = WeightsKey::new([3; 32]);
        orders.leaves(digest, key);
        orders.leaves(digest, adapter);
        let standing = |of: WeightsKey| Standing::Ready { leases: u32::from(of == key) };
        assert_eq!(orders.used_yet(standing), BTreeSet::from([digest]));
    }

    #[test]
    fn an_order_holds_until_what_is_declared_changes() {
        let mut orders = Orders::default();
        orders.declare(vec!["a".to_owned()]);
        assert_eq!(orders.to_keep(), ["a"]);
        orders.keep("a", false);
        orders.keep("b", true);
        assert_eq!(orders.to_keep(), ["b"]);
        orders.declare(vec!["a".to_owned()]);
        assert_eq!(orders.to_keep(), ["b"], "nothing has changed");
        orders.declare(vec!["a".to_owned(), "c".to_owned()]);
        assert_eq!(orders.to_keep(), ["b", "c"]);
        orders.declare(Vec::new());
        assert_eq!(orders.to_keep(), ["b"]);
        orders.declare(vec!["a".to_owned()]);
        assert_eq!(orders.to_keep(), ["a", "b"], "it was declared otherwise since");
    }
}
