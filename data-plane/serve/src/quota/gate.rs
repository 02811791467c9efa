//! The gate: takes units of every quota that covers a call, or says why not.

use std::{sync::Arc, time::Duration};

use provost_data_pipeline::{Rejection, Reservation};
use provost_data_policy::quota::{CompiledQuota, Held, QuotaCall, QuotaIndex, Slot, Wanting};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Quotas, denial, hold::CallHold};

/// The longest wait for units when a balance is empty: enough for an exchange with a slow disk
/// under it, short enough for an interactive caller.
const REFILL_WAIT: Duration = Duration::from_secs(1);
/// The longest wait for one's turn under a rate; a call that is larger than a burst waits as for units.
const PACE_WAIT: Duration = Duration::from_millis(50);
/// When exchanges have failed for so long, an empty balance is denied without a wait.
const FAIL_FAST_AFTER: Duration = Duration::from_secs(3);

impl Quotas {
    /// Takes what the call can use at most of each quota that covers it. What was taken goes back
    /// when a later one denies, or when the call ends up not running.
    pub(crate) async fn reserve(&self, index: &QuotaIndex, call: &QuotaCall<'_>) -> Result<Reservation, Rejection> {
        let mut hold = CallHold::default();
        for quota in index.matching(call) {
            let units = quota.units(call);
            if units == 0 {
                continue;
            }
            let Some(slot) = quota.slot(&self.book, call) else {
                return Err(denial::unreachable(quota, None, "this node keeps as many accounts as it can"));
            };
            if units > quota.limit {
                // Nor may it wait: it would draw all that is left to this node for nothing.
                return Err(denial::too_large(quota, &slot, units));
            }
            let held = match slot.take(units, self.now_ns()) {
                Ok(held) => held,
                // In a box: hardly any call waits.
                Err(first) => Box::pin(self.wait(quota, &slot, units, first)).await?,
            };
            hold.0.push(held);
        }
        Ok(if hold.0.is_empty() { Reservation::default() } else { Reservation(vec![Box::new(hold)]) })
    }

    async fn wait(
        &self,
        quota: &CompiledQuota,
        slot: &Arc<Slot>,
        units: u64,
        first: Wanting,
    ) -> Result<Held, Rejection> {
        let began = Instant::now();
        let deadline = began + REFILL_WAIT;
        let mut wanting = first;
        let mut waiting = None;
        loop {
            match wanting {
                Wanting::TooLarge => return Err(denial::too_large(quota, slot, units)),
                Wanting::Exhausted { retry_ns } if slot.facts().limit > 0 => {
                    return Err(denial::exceeded(quota, slot, units, retry_ns));
                }
                Wanting::Exhausted { .. } => {
                    return Err(denial::unreachable(quota, Some(slot), "the control plane does not count it"));
                }
                Wanting::Early { retry_ns } => {
                    let pause = Duration::from_nanos(retry_ns);
                    let patience = if slot.is_large(units) { REFILL_WAIT } else { PACE_WAIT };
                    if began.elapsed() + pause > patience {
                        return Err(denial::exceeded(quota, slot, units, retry_ns));
                    }
                    sleep(pause).await;
                }
                Wanting::Ask => {
                    self.check_reachable(quota, slot)?;
                    match &mut waiting {
                        // Announced before the next look, so that no grant falls in between.
                        None => {
                            let Some(announced) = slot.wait(units) else {
                                return Err(denial::unreachable(quota, Some(slot), "too many calls wait for units"));
                            };
                            waiting = Some(announced);
                        }
                        Some(announced) => {
                            if timeout_at(deadline, announced).await.is_err() {
                                let cause = "the control plane did not answer in time";
                                return Err(denial::unreachable(quota, Some(slot), cause));
                            }
                        }
                    }
                }
            }
            match slot.take(units, self.now_ns()) {
                Ok(held) => return Ok(held),
                Err(next) => wanting = next,
            }
        }
    }

    fn check_reachable(&self, quota: &CompiledQuota, slot: &Slot) -> Result<(), Rejection> {
        if self.book.is_fenced() {
            return Err(denial::unreachable(quota, Some(slot), "another process runs under this node's name"));
        }
        match self.failing_for(self.now_ns()) {
            Some(failing) if failing >= FAIL_FAST_AFTER => {
                let cause = "the control plane cannot be reached, and this node has no units left";
                Err(denial::unreachable(quota, Some(slot), cause))
            }
            _ => Ok(()),
        }
    }
}
