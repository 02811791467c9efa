//! How many calls run on the node, and who is refused first when it is as many as may.
//!
//! Invariants: never more run than the bound; a call of a lower priority is refused before one of a higher, since the
//! last tenth of the bound is for high priority alone, and the tenth before it not for low; a call counts from its
//! admission to its recorded end. Counted is everything that `drive` runs but subscriptions, which wait most of the
//! time; the admin API, health and metrics do not come this way and are never refused by it.
//! Left out: bounds of single plugins (`provost-data-tools`), quotas.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use provost_data_pipeline::{Hold, Operation, Rejection, RejectionKind, Usage};
use provost_types::Priority;

/// Calls at once on a node, if its configuration names no other bound.
pub const DEFAULT_MAX_CALLS: u32 = 4_096;
/// The code of a call that was refused because as many ran as may.
pub(super) const SHED: &str = "PV-NODE-BUSY";
/// When a refused caller should come again.
const RETRY_MS: u64 = 1_000;

/// The calls that run.
#[derive(Debug)]
pub struct Load {
    most: AtomicU32,
    running: AtomicU32,
    refused: AtomicU64,
}

impl Default for Load {
    fn default() -> Self {
        Self { most: AtomicU32::new(DEFAULT_MAX_CALLS), running: AtomicU32::new(0), refused: AtomicU64::new(0) }
    }
}

impl Load {
    /// Sets the bound.
    pub fn limit(&self, most: u32) {
        self.most.store(most.max(1), Ordering::Relaxed);
    }

    /// Calls that run now.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Calls that were refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A place for a call, given back when it is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        operation: &Operation,
        priority: Priority,
    ) -> Result<Option<Running>, Rejection> {
        if matches!(operation, Operation::Listen) {
            return Ok(None);
        }
        let most = self.most.load(Ordering::Relaxed);
        let room = room_for(priority, most);
        let entered = self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < room).then_some(n + 1));
        if entered.is_ok() {
            return Ok(Some(Running(self.clone())));
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(overloaded(priority))
    }
}

/// How many calls may run when one of this priority is let in.
fn room_for(priority: Priority, most: u32) -> u32 {
    let kept = match priority {
        Priority::High => 0,
        Priority::Normal => most / 10,
        Priority::Low => most / 5,
    };
    most - kept
}

fn overloaded(priority: Priority) -> Rejection {
    let whose = match priority {
        Priority::Low => "low priority",
        Priority::Normal => "normal priority",
        Priority::High => "any priority",
    };
    let message = format!("this node runs as many calls as it may take for callers of {whose}; try again in a second");
    let mut rejection = Rejection::new(RejectionKind::Overloaded, SHED, message);
    let data = serde_json::json!({ "code": SHED, "retryAfterMs": RETRY_MS });
    rejection.error.data = Some(data.into());
    rejection.retry_after_ms = Some(RETRY_MS);
    rejection
}

/// A call that runs.
#[derive(Debug)]
pub(super) struct Running(Arc<Load>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hold for Running {
    fn begin(&self) {}
    fn settle(&self, _: &Usage) {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

    #[test]
    fn the_lowest_priority_is_refused_first() {
        let table = [
            (1, [1, 1, 1]),
            (4, [4, 4, 4]),
            (10, [8, 9, 10]),
            (100, [80, 90, 100]),
            (u32::MAX, [3_435_973_836, 3_865_470_566, u32::MAX]),
        ];
        for (most, rooms) in table {
            assert_eq!(ALL.map(|priority| room_for(priority, most)), rooms, "{most}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_again_and_subscriptions_do_not_count() {
        let load = Arc::new(Load::default());
        load.limit(1);
        let _running = load.enter(&Operation::ListTools, Priority::Low).unwrap().unwrap();
        assert!(load.enter(&Operation::Listen, Priority::Low).unwrap().is_none());
        let refused = load.enter(&Operation::ListTools, Priority::High).unwrap_err();
        assert_eq!(
            (refused.kind, refused.code, refused.retry_after_ms),
            (RejectionKind::Overloaded, "PV-NODE-BUSY", Some(1_000))
        );
        assert_eq!((load.running(), load.refused()), (1, 1));
    }

    proptest! {
        /// Whatever comes and goes: the bound holds, and whoever is refused sees no lower priority let in.
        #[test]
        fn the_bound_holds(most in 1_u32..40, steps in prop::collection::vec((0_usize..5, 0_usize..40), 1..300)) {
            let load = Arc::new(Load::default());
            load.limit(most);
            let mut running = Vec::new();
            for (what, which) in steps {
                match ALL.get(what) {
                    Some(priority) => match load.enter(&Operation::ListTools, *priority) {
                        Ok(entered) => running.push(entered.unwrap()),
                        Err(_) => {
                            for lower in ALL.into_iter().filter(|p| p <= priority) {
                                prop_assert!(load.enter(&Operation::ListTools, lower).is_err());
                            }
                        }
                    },
                    None if !running.is_empty() => drop(running.swap_remove(which % running.len())),
                    None => {}
                }
                prop_assert!(load.running() <= most && load.running() as usize == running.len());
            }
            // A low caller never fills what is kept for others.
            while let Ok(entered) = load.enter(&Operation::ListTools, Priority::Low) {
                running.push(entered.unwrap());
            }
            if most >= 10 && running.len() <= room_for(Priority::Low, most) as usize {
                prop_assert!(load.enter(&Operation::ListTools, Priority::High).is_ok());
            }
        }
    }
}
