//! How busy the bus is with loading: whether minimum residency is needed now.

/// The share is of about this time. Microseconds.
const WINDOW_MICROS: f64 = 60_000_000.0;

/// The share of recent time in which the bus loaded, older time counting less (exponentially).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bus {
    share: f64,
    at: u64,
}

impl Bus {
    /// Brings the share up to `now`; `loading` is what the bus did since the last time.
    pub(super) fn advance(&mut self, now: u64, loading: bool) {
        let kept = (-(now.saturating_sub(self.at) as f64) / WINDOW_MICROS).exp();
        self.share = self.share * kept + if loading { 1.0 - kept } else { 0.0 };
        self.at = self.at.max(now);
    }

    /// True while the bus loads for less than this share of the time.
    pub(super) fn is_below(&self, percent: u32) -> bool {
        self.share * 100.0 < f64::from(percent)
    }

    /// When the share falls below if nothing is loaded from now on; none when it is, or never.
    pub(super) fn below_at(&self, percent: u32) -> Option<u64> {
        if percent == 0 || self.is_below(percent) {
            return None;
        }
        let wait = (self.share * 100.0 / f64::from(percent)).ln() * WINDOW_MICROS;
        Some(self.at.saturating_add(wait as u64 + 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_bus_is_calm_again_when_it_says() {
        let mut bus = Bus::default();
        assert!(bus.is_below(33) && bus.below_at(33).is_none());
        bus.advance(60_000_000, true);
        assert!(!bus.is_below(33), "a minute of loading");
        let calm = bus.below_at(33).unwrap();
        bus.advance(calm - 1_000_000, false);
        assert!(!bus.is_below(33));
        bus.advance(calm, false);
        assert!(bus.is_below(33));
        assert!(!bus.is_below(0) && bus.below_at(0).is_none(), "never below nothing");
    }
}
