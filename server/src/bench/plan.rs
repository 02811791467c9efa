//! When each call is to be sent, fixed before the first one is.
//!
//! A pacer thread turns the plan into permits. It is a thread of its own because the async runtime's
//! timer counts in milliseconds, which would drown latencies of a tenth of that. It sleeps close to
//! each send time and spins the rest of the way; the spin is bounded to a tenth of the interval.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// Lowest offered rate, calls a second: below it not one call is due in any run.
pub const MIN_RATE: f64 = 0.001;
/// The longest that each part of a run may be told to take: what is longer than a day is a slip, and ends of centuries are no times.
pub const MAX_TIME: Duration = Duration::from_secs(24 * 3600);
/// Highest offered rate, calls a second: beyond it the pacer itself is the load.
pub const MAX_RATE: f64 = 200_000.0;
/// How early the pacer wakes: a Linux sleep ends about this late.
const WAKE_EARLY: Duration = Duration::from_micros(80);

/// How calls are offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// At fixed times, whatever the answers do.
    Open {
        /// Calls a second.
        rate: f64,
    },
    /// The next call of a connection follows its last answer.
    Saturated,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How calls are offered.
    pub load: Load,
    /// Connections, or streams of the one that all calls share, each with at most one call in flight.
    pub connections: usize,
    /// Load before the measurement.
    pub warmup: Duration,
    /// The measurement.
    pub duration: Duration,
    /// How long calls that are due but unsent may still be sent after the last send time.
    pub drain: Duration,
}

impl Plan {
    /// From the first send to the last.
    pub fn total(&self) -> Duration {
        self.warmup + self.duration
    }

    /// How many calls an open loop offers, warm-up included; `None` when saturated.
    pub fn offered(&self) -> Option<u64> {
        match self.load {
            Load::Open { rate } => Some((rate * self.total().as_secs_f64()).round().max(1.0) as u64),
            Load::Saturated => None,
        }
    }

    /// When call `index` is due, counted from the start.
    pub fn due(&self, index: u64) -> Duration {
        match self.load {
            Load::Open { rate } => Duration::from_secs_f64(index as f64 / rate),
            Load::Saturated => Duration::ZERO,
        }
    }

    /// Starts the thread that adds one permit at each send time, then one a connection to end it.
    pub fn pace(&self, start: Instant, permits: Arc<Semaphore>) -> std::io::Result<JoinHandle<()>> {
        let plan = self.clone();
        let offered = self.offered().unwrap_or(0);
        thread::Builder::new().name("bench-pacer".into()).spawn(move || {
            let early = WAKE_EARLY.min(plan.due(1) / 10);
            for index in 0..offered {
                wait_until(start + plan.due(index), early);
                permits.add_permits(1);
            }
            permits.add_permits(plan.connections);
        })
    }
}

fn wait_until(due: Instant, early: Duration) {
    if let Some(sleep) = due.checked_duration_since(Instant::now()).and_then(|left| left.checked_sub(early)) {
        thread::sleep(sleep);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// `500ms`, `10s`, `2m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("`{text}` has no unit: write 500ms, 10s or 2m")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a duration such as 10s"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("`{text}` is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rate: f64) -> Plan {
        Plan {
            load: Load::Open { rate },
            connections: 2,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(2),
            drain: Duration::from_secs(1),
        }
    }

    #[test]
    fn send_times_are_fixed_by_the_rate_alone() {
        let plan = open(500.0);
        assert_eq!(plan.offered(), Some(1_500));
        assert_eq!(plan.due(0), Duration::ZERO);
        assert_eq!(plan.due(250), Duration::from_millis(500));
    }

    #[test]
    fn the_pacer_never_sends_early_and_ends_every_connection() {
        let plan = Plan { warmup: Duration::ZERO, duration: Duration::from_millis(20), ..open(1_000.0) };
        let permits = Arc::new(Semaphore::new(0));
        let start = Instant::now();
        plan.pace(start, permits.clone()).unwrap().join().unwrap();
        assert!(start.elapsed() >= plan.due(19));
        assert_eq!(permits.available_permits(), 20 + 2);
    }

    #[test]
    fn durations() {
        for (text, expect) in [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("0.5s", 500)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(expect)), "{text}");
        }
        for text in ["10", "s", "-1s", "1h", ""] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
