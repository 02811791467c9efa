//! The places of the bounded queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One tenant may take all places but this part of them: others always find some.
const PART_FOR_OTHERS: usize = 4;
/// Bounds of what a caller is told to wait.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Weight of the newest interval in the mean of intervals.
const NEWEST_WEIGHT: f64 = 0.2;

/// Who has a place in the queue.
#[derive(Debug)]
pub(crate) struct Places {
    bound: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_tenant: HashMap<String, usize>,
    /// When the last place became free, or the first was taken, and the mean time between two such moments, in seconds.
    last_left: Option<Instant>,
    interval_s: f64,
}

/// A place in the queue, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    tenant: String,
}

impl Places {
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound, taken: Mutex::new(Taken::default()) })
    }

    /// Takes a place for a tenant. Else: when it is worth trying again.
    pub(crate) fn take(self: &Arc<Self>, tenant: &str) -> Result<Place, Duration> {
        let mut taken = self.lock();
        let theirs = taken.by_tenant.get(tenant).copied().unwrap_or(0);
        let of_one = self.bound - self.bound / PART_FOR_OTHERS;
        if taken.all >= self.bound || theirs >= of_one {
            return Err(taken.wait_for(taken.all.min(theirs.max(1))));
        }
        if taken.all == 0 {
            // The pace is that of a queue in which somebody waits.
            taken.last_left = Some(Instant::now());
        }
        taken.all += 1;
        taken.by_tenant.insert(tenant.to_owned(), theirs + 1);
        Ok(Place { places: Arc::clone(self), tenant: tenant.to_owned() })
    }

    /// How many are taken, and the time in which as many become free.
    pub(crate) fn taken(&self) -> (usize, Duration) {
        let taken = self.lock();
        (taken.all, taken.wait_for(taken.all.max(1)))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The time in which `ahead` places become free at the present pace.
    fn wait_for(&self, ahead: usize) -> Duration {
        let since = self.last_left.map_or(0.0, |at| at.elapsed().as_secs_f64());
        let seconds = self.interval_s.max(since) * ahead as f64;
        Duration::from_secs_f64(seconds.min(LONGEST_WAIT.as_secs_f64())).max(SHORTEST_WAIT)
    }

    fn left(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last_left.replace(now) {
            let newest = now.duration_since(last).as_secs_f64().min(LONGEST_WAIT.as_secs_f64());
            self.interval_s += NEWEST_WEIGHT * (newest - self.interval_s);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(1);
        taken.left();
        if let Some(theirs) = taken.by_tenant.get_mut(&self.tenant) {
            *theirs -= 1;
            if *theirs == 0 {
                taken.by_tenant.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_cannot_take_every_place() {
        let places = Places::new(8);
        let mut held: Vec<Place> = (0..6).map(|_| places.take("greedy").unwrap()).collect();
        assert!(places.take("greedy").is_err());
        held.extend((0..2).map(|_| places.take("other").unwrap()));
        let wait = places.take("third").unwrap_err();
        assert!((SHORTEST_WAIT..=LONGEST_WAIT).contains(&wait));
        held.clear();
        assert!(places.take("third").is_ok());
        assert!(places.lock().by_tenant.is_empty());
    }
}
