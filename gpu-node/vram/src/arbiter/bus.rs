//! How busy the bus is with loading: how much minimum residency is worth now.

/// The share is of about this time. Microseconds.
const WINDOW_MICROS: f64 = 60_000_000.0;
/// Beyond this share of its time the queue at the bus grows long.
const HIGHEST_SHARE: f64 = 0.9;
/// Rounding does not make a wake come before what it is for. Microseconds.
const MARGIN_MICROS: f64 = 1_000.0;

/// The share of recent time in which the bus loaded, older time counting less (exponentially).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bus {
    loaded: f64,
    /// Less than one until it has been watched for some time.
    watched: f64,
    at: Option<u64>,
}

impl Bus {
    /// Brings the share up to `now`; `loading` is what the bus did since the last time.
    pub(super) fn advance(&mut self, now: u64, loading: bool) {
        let at = *self.at.get_or_insert(now);
        let kept = (-(now.saturating_sub(at) as f64) / WINDOW_MICROS).exp();
        self.loaded = self.loaded * kept + if loading { 1.0 - kept } else { 0.0 };
        self.watched = self.watched * kept + (1.0 - kept);
        self.at = Some(at.max(now));
    }

    fn share(&self) -> f64 {
        if self.watched > 0.0 { self.loaded / self.watched } else { 0.0 }
    }

    /// From when on the bus could also bring back what takes `own` of its time, if nothing is loaded
    /// from now on; at the latest `until`.
    pub(super) fn spares_at(&self, own: f64, until: u64) -> u64 {
        let at = self.at.unwrap_or(0);
        let left = HIGHEST_SHARE - own;
        if left <= 0.0 {
            return until;
        }
        let wait = (self.share() / left).ln() * WINDOW_MICROS;
        // Nothing was loaded: the logarithm is minus infinity, and it is now.
        if wait <= 0.0 { at.min(until) } else { until.min(at.saturating_add((wait + MARGIN_MICROS) as u64)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_busier_the_bus_the_longer_weights_stay() {
        let mut bus = Bus::default();
        bus.advance(0, false);
        bus.advance(600 * SECOND, false);
        let now = 600 * SECOND;
        assert_eq!(bus.spares_at(0.5, now + SECOND), now, "a bus that is idle spares them at once");
        assert_eq!(bus.spares_at(1.0, now + SECOND), now + SECOND, "but what would take all of it");
        bus.advance(660 * SECOND, true);
        let now = 660 * SECOND;
        // It loaded for 63 % of the last minute, as the mean has it.
        assert_eq!(bus.spares_at(0.2, now + 600 * SECOND), now);
        let spared = bus.spares_at(0.5, now + 600 * SECOND);
        assert!(spared > now + 25 * SECOND && spared < now + 30 * SECOND, "{spared}");
        assert_eq!(bus.spares_at(0.5, now + SECOND), now + SECOND);
        // It is so when it says, and was not before.
        bus.advance(spared - SECOND, false);
        assert!(bus.spares_at(0.5, now + 600 * SECOND) > spared - SECOND);
        bus.advance(spared, false);
        assert_eq!(bus.spares_at(0.5, now + 600 * SECOND), spared);
    }

    #[test]
    fn a_bus_that_was_watched_for_a_short_time_is_as_busy_as_it_was_then() {
        // Clocks may begin anywhere.
        let mut bus = Bus::default();
        bus.advance(1_000 * SECOND, false);
        assert!(bus.share() < 0.01);
        bus.advance(1_002 * SECOND, true);
        assert!(bus.share() > 0.99, "it has done nothing but load");
        bus.advance(1_004 * SECOND, false);
        assert!((0.4..0.6).contains(&bus.share()), "{}", bus.share());
    }
}
