//! The wait before a new try: it doubles, ends at a bound, and differs between nodes.

use std::time::Duration;

pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, longest, tries: 0 }
    }

    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// Half of it is fixed, half is chance (`random`: from 0 to 1), so that nodes which lost the
    /// same control-plane node do not all come at once.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let factor = 2_u32.saturating_pow(self.tries);
        self.tries = self.tries.saturating_add(1);
        let full = self.first.saturating_mul(factor).min(self.longest);
        full / 2 + (full / 2).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_anew() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new((ms(100), ms(1_000)));
        for (random, expect) in [(1.0, 100), (0.0, 100), (1.0, 400), (0.5, 600), (1.0, 1_000), (0.0, 500)] {
            assert_eq!(backoff.next(random), ms(expect));
        }
        for _ in 0..100 {
            assert!(backoff.next(1.0) <= ms(1_000));
        }
        backoff.reset();
        assert_eq!(backoff.next(1.0), ms(100));
    }
}
