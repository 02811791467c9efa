//! Back-pressure: how much work a replica takes at once.
//!
//! A proposal holds a place and its bytes until it is answered. While the state machine is far
//! behind the commits, nobody gets a place: openraft would queue without end, and purging would
//! come close to what is still being applied. Whoever waits longer than the bound is refused
//! before anything is logged, so that the caller may safely try again.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{Admission, GroupError};

/// Proposals in flight in one group unless configured otherwise; more wait for a place.
pub const MAX_INFLIGHT_PROPOSALS: usize = 8_192;
/// Bytes of one proposal.
pub const MAX_PROPOSAL_BYTES: usize = 8 << 20;
/// Between two looks at how far the state machine is behind.
const LAG_POLL: Duration = Duration::from_millis(10);

/// Places and bytes of one replica.
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    limits: Admission,
}

/// Held while a proposal is in flight, whether or not its caller still waits.
pub(crate) struct Place {
    _place: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(limits: Admission) -> Self {
        let bytes = limits.max_bytes.min(u32::MAX as usize);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { places: semaphore(limits.max_proposals), bytes: semaphore(bytes), limits }
    }

    /// Lets nobody in any more; those that wait are told that the group stopped.
    pub(crate) fn close(&self) {
        self.places.close();
        self.bytes.close();
    }

    /// Waits for places for `proposals` of together `size` bytes; more than there are take all.
    /// `lag` tells how many committed entries wait for the
    /// state machine.
    pub(crate) async fn enter(
        &self,
        proposals: usize,
        size: usize,
        lag: impl Fn() -> u64,
    ) -> Result<Place, GroupError> {
        let deadline = Instant::now() + Duration::from_millis(self.limits.wait_ms);
        let places = u32::try_from(proposals.min(self.limits.max_proposals)).unwrap_or(u32::MAX);
        let place = before(deadline, self.places.clone().acquire_many_owned(places), || {
            format!("{} proposals wait", self.limits.max_proposals)
        });
        let place = place.await?;
        // The configuration is refused when it has no room for the largest proposal.
        let wanted = u32::try_from(size.clamp(1, self.limits.max_bytes)).unwrap_or(u32::MAX);
        let bytes = self.bytes.clone().acquire_many_owned(wanted);
        let bytes = before(deadline, bytes, || format!("proposals of {} bytes wait", self.limits.max_bytes)).await?;
        while lag() > self.limits.max_apply_lag {
            if Instant::now() >= deadline {
                return Err(GroupError::Busy(format!("{} committed entries wait to be applied", lag())));
            }
            tokio::time::sleep(LAG_POLL).await;
        }
        if self.places.is_closed() {
            return Err(GroupError::Stopped);
        }
        Ok(Place { _place: place, _bytes: bytes })
    }
}

async fn before(
    deadline: Instant,
    acquire: impl Future<Output = Result<OwnedSemaphorePermit, AcquireError>>,
    what: impl Fn() -> String,
) -> Result<OwnedSemaphorePermit, GroupError> {
    match tokio::time::timeout_at(deadline, acquire).await {
        Ok(permit) => permit.map_err(|_| GroupError::Stopped),
        Err(_) => Err(GroupError::Busy(what())),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    impl Place {
        /// A place that is nobody else's.
        pub(crate) fn alone() -> Self {
            let permit = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            Self { _place: permit(), _bytes: permit() }
        }
    }

    fn gate(max_proposals: usize, max_bytes: usize) -> Gate {
        Gate::new(Admission { max_proposals, max_bytes, max_apply_lag: 10, wait_ms: 200 })
    }

    async fn code(gate: &Gate, size: usize, lag: u64) -> &'static str {
        gate.enter(1, size, || lag).await.err().map_or("in", |e| e.code())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_room_is_refused_after_the_bound() {
        let gate = gate(2, 100);
        let start = Instant::now();
        let _first = gate.enter(1, 90, || 0).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "an empty group takes work at once");
        assert_eq!(code(&gate, 11, 0).await, "PV-RAFT-BUSY");
        assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_millis(300));
        let second = gate.enter(1, 10, || 0).await.unwrap();
        assert_eq!(code(&gate, 0, 0).await, "PV-RAFT-BUSY");
        drop(second);
        assert_eq!(code(&gate, 10, 0).await, "in");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_behind_holds_proposals_back() {
        let gate = gate(2, 100);
        assert_eq!(code(&gate, 1, 11).await, "PV-RAFT-BUSY");
        assert_eq!(code(&gate, 1, 10).await, "in");
        let left = Cell::new(14_u64);
        let start = Instant::now();
        gate.enter(1, 1, || left.replace(left.get() - 1)).await.unwrap();
        assert!(start.elapsed() >= LAG_POLL * 3, "it waited until the machine had caught up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_lets_nobody_in() {
        let gate = gate(1, 100);
        let _held = gate.enter(1, 1, || 0).await.unwrap();
        let wait = gate.enter(1, 1, || 0);
        tokio::pin!(wait);
        assert!(futures::poll!(wait.as_mut()).is_pending());
        gate.close();
        assert_eq!(wait.await.err().unwrap().code(), "PV-RAFT-STOPPED");
        assert_eq!(code(&gate, 1, 0).await, "PV-RAFT-STOPPED");
    }
}
