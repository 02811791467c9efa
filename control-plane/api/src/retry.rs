//! Tries of a change that others came before.
//!
//! Invariants: whoever loses waits a random time, so that those who lost together do not lose together again; the longer a
//! change has waited the shorter its pauses are, so that it comes before those who came later; it ends.

use std::time::Duration;

use aws_lc_rs::rand;
use tokio::time::Instant;

use crate::{ControlError, ErrorKind};

/// How long a change is tried again: well within the time of a call of the admin API.
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// The longest pause after the first try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause of all.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Tries of one change.
pub(crate) struct Retry {
    began: Instant,
    lost: u32,
}

impl Retry {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), lost: 0 }
    }

    /// Waits for the next try; an error if there is none any more. `so` says what was not done.
    pub(crate) async fn again(&mut self, so: &str) -> Result<(), ControlError> {
        let Some(most) = longest(self.lost, self.began.elapsed()) else {
            let text = format!("other changes kept coming first for {} s; {so}", RETRY_LIMIT.as_secs());
            return Err(ControlError::new(ErrorKind::Unavailable, "PV-CTL-BUSY", text, "try again"));
        };
        self.lost = self.lost.saturating_add(1);
        tokio::time::sleep(some_of(most)).await;
        Ok(())
    }
}

/// The longest pause of who has lost so often and waited so long; `None`: the time is over.
fn longest(lost: u32, waited: Duration) -> Option<Duration> {
    let left = RETRY_LIMIT.checked_sub(waited).filter(|left| !left.is_zero())?;
    let most = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(lost).unwrap_or(u32::MAX)).min(MAX_PAUSE);
    Some(most.mul_f64(left.as_secs_f64() / RETRY_LIMIT.as_secs_f64()))
}

/// Any time up to this one.
fn some_of(most: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness nobody waits, and others may come first again.
    let _ = rand::fill(&mut random);
    most.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_each_loss_and_shrink_with_the_wait() {
        let ms = Duration::from_millis;
        for (lost, waited, expect) in [
            (0, ms(0), Some(FIRST_PAUSE)),
            (1, ms(0), Some(ms(10))),
            (6, ms(0), Some(ms(320))),
            (7, ms(0), Some(MAX_PAUSE)),
            (u32::MAX, ms(0), Some(MAX_PAUSE)),
            (u32::MAX, RETRY_LIMIT / 2, Some(MAX_PAUSE / 2)),
            (0, RETRY_LIMIT, None),
            (0, RETRY_LIMIT * 2, None),
        ] {
            assert_eq!(longest(lost, waited), expect, "{lost} {waited:?}");
        }
        for _ in 0..100 {
            assert!(some_of(MAX_PAUSE) <= MAX_PAUSE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_for_its_time_and_not_longer() {
        let (began, mut retry, mut tries) = (Instant::now(), Retry::new(), 0_u32);
        let ended = loop {
            match retry.again("nothing was changed").await {
                Ok(()) => tries += 1,
                Err(ended) => break ended,
            }
            // What a try takes.
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(began.elapsed() < RETRY_LIMIT * 2, "it does not end");
        };
        assert_eq!(ended.code(), "PV-CTL-BUSY");
        assert!(began.elapsed() >= RETRY_LIMIT && tries > 50, "{tries} tries in {:?}", began.elapsed());
    }
}
