//! The circuit breaker as a pure machine: closed, open, half open.
//!
//! Invariants: while it is open nothing passes but, once its time is over, one trial at a time; what began
//! before the last change of state changes nothing any more; after each trial that fails it stays open twice
//! as long, up to a bound, and one success closes it and forgets that. Time comes in as milliseconds of a
//! clock that never goes back.
//! Left out: what counts as a failure (`verdict`), and who tells of changes (`watch`).

use provost_types::BreakerSpec;

/// Parts of the window: it moves on by one of them.
const BUCKETS: usize = 10;

/// What the end of a call says of its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It answered.
    Good,
    /// It failed.
    Bad,
    /// It failed in a way that leaves no doubt: it kept somebody waiting for as long as it may.
    Hopeless,
    /// Nothing can be said: the caller gave up.
    Neither,
}

/// A call's leave to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    epoch: u64,
    /// It is the one that finds out.
    pub(crate) is_trial: bool,
}

/// Why a call may not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Since when it is open.
    pub(crate) since_ms: u64,
    /// Until when nothing is tried.
    pub(crate) until_ms: u64,
}

/// A change of state, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Calls are refused until then.
    Opened {
        /// When the next trial may go.
        until_ms: u64,
    },
    /// Calls go again.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { since_ms: u64, until_ms: u64, trial: bool },
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    total: u32,
    bad: u32,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Breaker {
    spec: BreakerSpec,
    state: State,
    /// Counts changes of state.
    epoch: u64,
    consecutive: u32,
    /// How long it was open the last time; 0 after a success.
    last_open_ms: u64,
    buckets: [Bucket; BUCKETS],
    /// Which part of which window the newest bucket is: time divided by a bucket's length.
    newest: u64,
}

impl Breaker {
    pub(crate) fn new(spec: BreakerSpec) -> Self {
        Self {
            spec,
            state: State::Closed,
            epoch: 0,
            consecutive: 0,
            last_open_ms: 0,
            buckets: Default::default(),
            newest: 0,
        }
    }

    /// Asks to go. Whoever gets a pass settles it, whatever happens.
    pub(crate) fn admit(&mut self, now_ms: u64) -> Result<Pass, Refused> {
        let epoch = self.epoch;
        match &mut self.state {
            State::Closed => Ok(Pass { epoch, is_trial: false }),
            State::Open { until_ms, trial, .. } if now_ms >= *until_ms && !*trial => {
                *trial = true;
                Ok(Pass { epoch, is_trial: true })
            }
            State::Open { since_ms, until_ms, .. } => Err(Refused { since_ms: *since_ms, until_ms: *until_ms }),
        }
    }

    #[cfg(test)]
    /// Why a call that arrived now would be refused, if it would; changes nothing.
    pub(crate) fn refuses(&self, now_ms: u64) -> Option<Refused> {
        match self.state {
            State::Open { since_ms, until_ms, trial } if trial || now_ms < until_ms => {
                Some(Refused { since_ms, until_ms })
            }
            _ => None,
        }
    }

    /// Whether it is not closed.
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// A call ended.
    pub(crate) fn settle(&mut self, pass: Pass, verdict: Verdict, now_ms: u64) -> Option<Change> {
        if pass.epoch != self.epoch || !self.spec.enabled {
            return None;
        }
        match (&mut self.state, verdict) {
            (State::Closed, Verdict::Neither) => None,
            (State::Closed, Verdict::Good) => {
                self.count(now_ms, false);
                self.consecutive = 0;
                self.last_open_ms = 0;
                None
            }
            (State::Closed, Verdict::Bad) => {
                self.count(now_ms, true);
                self.consecutive = self.consecutive.saturating_add(1);
                self.is_too_bad().then(|| self.open(now_ms, now_ms))
            }
            (State::Closed, Verdict::Hopeless) => Some(self.open(now_ms, now_ms)),
            // Only the trial has a pass of this epoch.
            (State::Open { trial, .. }, Verdict::Neither) => {
                *trial = false;
                None
            }
            (State::Open { .. }, Verdict::Good) => {
                self.state = State::Closed;
                self.epoch += 1;
                self.consecutive = 0;
                self.last_open_ms = 0;
                self.buckets = Default::default();
                Some(Change::Closed)
            }
            (State::Open { since_ms, .. }, Verdict::Bad | Verdict::Hopeless) => {
                let since_ms = *since_ms;
                Some(self.open(since_ms, now_ms))
            }
        }
    }

    fn is_too_bad(&self) -> bool {
        if self.consecutive >= self.spec.consecutive_failures {
            return true;
        }
        let (total, bad) = self.buckets.iter().fold((0_u64, 0_u64), |(total, bad), bucket| {
            (total + u64::from(bucket.total), bad + u64::from(bucket.bad))
        });
        let percent = u64::from(self.spec.failure_percent);
        percent > 0 && total >= u64::from(self.spec.min_calls) && bad * 100 >= total * percent
    }

    fn open(&mut self, since_ms: u64, now_ms: u64) -> Change {
        let open_ms = match self.last_open_ms {
            0 => self.spec.open_ms,
            last => last.saturating_mul(2).min(self.spec.max_open_ms),
        };
        self.last_open_ms = open_ms;
        self.epoch += 1;
        self.consecutive = 0;
        self.buckets = Default::default();
        let until_ms = now_ms.saturating_add(open_ms);
        self.state = State::Open { since_ms, until_ms, trial: false };
        Change::Opened { until_ms }
    }

    fn count(&mut self, now_ms: u64, is_bad: bool) {
        let length = (self.spec.window_ms / BUCKETS as u64).max(1);
        let current = now_ms / length;
        let gone = current.saturating_sub(self.newest).min(BUCKETS as u64);
        for step in 1..=gone {
            let index = ((self.newest + step) % BUCKETS as u64) as usize;
            self.buckets[index] = Bucket::default();
        }
        if gone == BUCKETS as u64 {
            self.buckets = Default::default();
        }
        self.newest = self.newest.max(current);
        let bucket = &mut self.buckets[(self.newest % BUCKETS as u64) as usize];
        bucket.total = bucket.total.saturating_add(1);
        bucket.bad = bucket.bad.saturating_add(u32::from(is_bad));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec() -> BreakerSpec {
        BreakerSpec {
            consecutive_failures: 3,
            failure_percent: 50,
            min_calls: 10,
            window_ms: 1_000,
            open_ms: 100,
            max_open_ms: 350,
            ..BreakerSpec::default()
        }
    }

    /// `g`, `b`, `h`, `n`: a call that ends so; a number: so many milliseconds; then what state it is in.
    fn after(script: &[(&str, u64)]) -> (Breaker, u64) {
        let mut breaker = Breaker::new(spec());
        let mut now = 0;
        for (what, n) in script {
            for _ in 0..*n {
                let verdict = match *what {
                    "wait" => {
                        now += 1;
                        continue;
                    }
                    "good" => Verdict::Good,
                    "bad" => Verdict::Bad,
                    "hopeless" => Verdict::Hopeless,
                    _ => Verdict::Neither,
                };
                if let Ok(pass) = breaker.admit(now) {
                    breaker.settle(pass, verdict, now);
                }
            }
        }
        (breaker, now)
    }

    #[test]
    fn it_opens_and_closes_by_what_upstreams_do() {
        type Case<'a> = (&'a [(&'a str, u64)], bool);
        let table: &[Case<'_>] = &[
            (&[("bad", 2)], false),
            (&[("bad", 3)], true),
            (&[("bad", 2), ("good", 1), ("bad", 2)], false),
            (&[("bad", 2), ("neither", 5), ("bad", 1)], true),
            (&[("hopeless", 1)], true),
            // Half of ten in the window.
            (&[("good", 5), ("bad", 2), ("good", 1), ("bad", 2)], false),
            (&[("good", 4), ("bad", 2), ("good", 1), ("bad", 2), ("good", 1), ("bad", 2)], true),
            // The same, but the first ones are too long ago.
            (&[("good", 5), ("bad", 2), ("good", 1), ("wait", 1_200), ("bad", 2), ("good", 1), ("bad", 2)], false),
            // Open for 100 ms, then one trial.
            (&[("bad", 3), ("wait", 99), ("good", 1)], true),
            (&[("bad", 3), ("wait", 100), ("good", 1)], false),
            (&[("bad", 3), ("wait", 100), ("bad", 1), ("wait", 199), ("good", 1)], true),
            (&[("bad", 3), ("wait", 100), ("bad", 1), ("wait", 200), ("good", 1)], false),
            // A trial that says nothing leaves its place to the next.
            (&[("bad", 3), ("wait", 100), ("neither", 1), ("good", 1)], false),
        ];
        for (script, expect) in table {
            let (breaker, _) = after(script);
            assert_eq!(breaker.is_open(), *expect, "{script:?}: {breaker:?}");
        }
    }

    #[test]
    fn it_says_since_when_and_waits_longer_up_to_a_bound() {
        let (mut breaker, mut now) = after(&[("wait", 5), ("bad", 3)]);
        for open_ms in [100, 200, 350, 350] {
            let refused = breaker.refuses(now).unwrap();
            assert_eq!(refused, Refused { since_ms: 5, until_ms: now + open_ms });
            now = refused.until_ms;
            let trial = breaker.admit(now).unwrap();
            assert!(trial.is_trial && breaker.admit(now).is_err(), "one trial at a time");
            breaker.settle(trial, Verdict::Bad, now);
        }
        let trial = breaker.admit(now + 350).unwrap();
        assert_eq!(breaker.settle(trial, Verdict::Good, now + 350), Some(Change::Closed));
        for _ in 0..3 {
            let pass = breaker.admit(now + 400).unwrap();
            breaker.settle(pass, Verdict::Bad, now + 400);
        }
        assert_eq!(breaker.refuses(now + 400).unwrap().until_ms, now + 500, "a success forgets the longer times");
    }

    #[test]
    fn what_began_before_a_change_says_nothing_after_it() {
        let mut breaker = Breaker::new(spec());
        let old: Vec<Pass> = (0..10).map(|_| breaker.admit(0).unwrap()).collect();
        for pass in &old[..3] {
            breaker.settle(*pass, Verdict::Bad, 1);
        }
        assert!(breaker.is_open());
        assert_eq!(breaker.settle(old[3], Verdict::Good, 2), None);
        assert!(breaker.is_open(), "an answer from before does not close it");
        assert_eq!(breaker.settle(old[4], Verdict::Bad, 2), None);
        assert_eq!(breaker.refuses(2).unwrap().until_ms, 101, "a failure from before does not prolong it");
    }

    #[test]
    fn a_disabled_one_never_opens() {
        let mut breaker = Breaker::new(BreakerSpec { enabled: false, ..spec() });
        for now in 0..100 {
            let pass = breaker.admit(now).unwrap();
            assert_eq!(breaker.settle(pass, Verdict::Hopeless, now), None);
        }
    }

    proptest! {
        /// Whatever comes: an open one lets nothing through but one trial at a time, and not before its time.
        #[test]
        fn an_open_one_lets_nothing_through_but_trials(steps in prop::collection::vec((0_u64..60, 0_usize..8, 0_u8..4), 1..400)) {
            let mut breaker = Breaker::new(spec());
            let (mut now, mut running): (u64, Vec<(Pass, bool)>) = (0, Vec::new());
            for (wait, which, what) in steps {
                now += wait;
                let before = breaker.refuses(now);
                let was_open = breaker.is_open();
                if let Ok(pass) = breaker.admit(now) {
                    prop_assert_eq!(before, None);
                    prop_assert_eq!(pass.is_trial, was_open);
                    if pass.is_trial {
                        prop_assert!(breaker.admit(now).is_err(), "a second trial");
                    }
                    running.push((pass, was_open));
                } else {
                    prop_assert!(before.is_some() && was_open);
                }
                if !running.is_empty() && which > 2 {
                    let (pass, _) = running.swap_remove(which % running.len());
                    let verdict = [Verdict::Good, Verdict::Bad, Verdict::Hopeless, Verdict::Neither][usize::from(what)];
                    breaker.settle(pass, verdict, now);
                }
                if let Some(refused) = breaker.refuses(now) {
                    prop_assert!(refused.since_ms <= now && refused.until_ms <= now + 350);
                }
                let trials = running.iter().filter(|(pass, _)| pass.is_trial && pass.epoch == breaker.epoch).count();
                prop_assert!(trials <= 1);
            }
        }
    }
}
