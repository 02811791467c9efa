//! Which of several equal endpoints a call goes to, and which are left out, as a pure machine.
//!
//! Invariants: a call goes to an endpoint that is in service, of two taken at random to the one with fewer calls of
//! this node, and not again to one that it has tried while there is another; at most the share that the policy gives
//! is ejected at once, and the last one in service never is; what is ejected comes back only by a look, and stays out
//! twice as long after each one that fails, up to a bound. Time and entropy come in as arguments.
//! Left out: what counts as a failure (`verdict`), who looks and what an endpoint must show (`upstream::endpoints`).

use provost_types::OutlierSpec;

use super::breaker::Verdict;

/// The endpoints that a call has been sent to, as bits.
pub(crate) type Mask = u32;

/// How an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It gets calls.
    In,
    /// It failed, and is looked at again at this time.
    Ejected {
        /// When.
        until_ms: u64,
        /// It is being looked at.
        is_looked_at: bool,
    },
    /// It shows other definitions than those that the plugin shows.
    Differs,
}

/// A change of standing, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It gets no calls for so long.
    Ejected {
        /// Milliseconds.
        for_ms: u64,
    },
    /// It gets calls again.
    Readmitted,
    /// It gets no calls while it shows what it shows.
    SetAside,
}

#[derive(Debug)]
struct Endpoint {
    standing: Standing,
    /// Calls of this node that run there.
    running: u32,
    /// Failures one after the other.
    consecutive: u32,
    /// How long it was out the last time; 0: never.
    last_ms: u64,
    /// Since when it is in service.
    since_ms: u64,
    /// The last look at it succeeded. While others are known, only those get calls.
    is_known: bool,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Outliers {
    spec: OutlierSpec,
    endpoints: Vec<Endpoint>,
}

impl Endpoint {
    fn serves(&self, any_known: bool) -> bool {
        self.standing == Standing::In && (self.is_known || !any_known)
    }
}

impl Outliers {
    /// All of them in service.
    pub(crate) fn new(spec: OutlierSpec, count: usize) -> Self {
        let endpoint = || Endpoint {
            standing: Standing::In,
            running: 0,
            consecutive: 0,
            last_ms: 0,
            since_ms: 0,
            is_known: false,
        };
        Self { spec, endpoints: (0..count.max(1)).map(|_| endpoint()).collect() }
    }

    /// Where a call goes. There is always an answer: with none in service, one that does not show other things.
    pub(crate) fn choose(&self, tried: Mask, entropy: u64) -> usize {
        let pick = |may: &dyn Fn(usize, &Endpoint) -> bool| {
            let all: Vec<usize> =
                self.endpoints.iter().enumerate().filter(|(i, e)| may(*i, e)).map(|(i, _)| i).collect();
            self.less_loaded(&all, entropy)
        };
        let is_new = |i: usize| tried & (1 << i) == 0;
        let any_known = self.any_known();
        pick(&|i, e| e.serves(any_known) && is_new(i))
            .or_else(|| pick(&|_, e| e.serves(any_known)))
            .or_else(|| pick(&|i, e| e.standing != Standing::Differs && is_new(i)))
            .or_else(|| pick(&|_, e| e.standing != Standing::Differs))
            .unwrap_or_default()
    }

    /// Whether one in service is known.
    fn any_known(&self) -> bool {
        self.endpoints.iter().any(|e| e.standing == Standing::In && e.is_known)
    }

    /// Of two of them taken at random the one with fewer calls; on a tie the first taken.
    fn less_loaded(&self, among: &[usize], entropy: u64) -> Option<usize> {
        let count = among.len() as u64;
        if count < 2 {
            return among.first().copied();
        }
        let first = entropy % count;
        // Never the same one.
        let second = (first + 1 + (entropy >> 32) % (count - 1)) % count;
        let (first, second) = (among[first as usize], among[second as usize]);
        Some(if self.endpoints[second].running < self.endpoints[first].running { second } else { first })
    }

    /// Whether a call that was at the tried ones can go to one in good standing.
    pub(crate) fn has_other(&self, tried: Mask) -> bool {
        let any_known = self.any_known();
        let mut endpoints = self.endpoints.iter().enumerate();
        endpoints.any(|(i, e)| e.serves(any_known) && e.consecutive == 0 && tried & (1 << i) == 0)
    }

    /// How one stands.
    pub(crate) fn standing(&self, at: usize) -> Standing {
        self.endpoints.get(at).map_or(Standing::In, |e| e.standing)
    }

    /// A call goes there.
    pub(crate) fn begin(&mut self, at: usize) {
        if let Some(endpoint) = self.endpoints.get_mut(at) {
            endpoint.running = endpoint.running.saturating_add(1);
        }
    }

    /// A call that went there ended.
    pub(crate) fn end(&mut self, at: usize, verdict: Verdict, now_ms: u64) -> Option<Moved> {
        let threshold = self.spec.consecutive_failures;
        let endpoint = self.endpoints.get_mut(at)?;
        endpoint.running = endpoint.running.saturating_sub(1);
        match verdict {
            Verdict::Neither => return None,
            Verdict::Good => {
                endpoint.consecutive = 0;
                return None;
            }
            Verdict::Bad => endpoint.consecutive = endpoint.consecutive.saturating_add(1),
            Verdict::Hopeless => endpoint.consecutive = threshold.max(endpoint.consecutive.saturating_add(1)),
        }
        if endpoint.consecutive < threshold { None } else { self.eject(at, now_ms) }
    }

    /// A look at one ended: `Some(true)`: it shows what it should; `Some(false)`: other things; `None`: it failed.
    pub(crate) fn looked(&mut self, at: usize, shows: Option<bool>, now_ms: u64) -> Option<Moved> {
        let endpoint = self.endpoints.get_mut(at)?;
        endpoint.is_known = shows.is_some();
        match (shows, endpoint.standing) {
            (Some(true), Standing::In) => None,
            (Some(true), _) => {
                (endpoint.standing, endpoint.consecutive, endpoint.since_ms) = (Standing::In, 0, now_ms);
                Some(Moved::Readmitted)
            }
            (Some(false), Standing::Differs) => None,
            (Some(false), _) => {
                endpoint.standing = Standing::Differs;
                Some(Moved::SetAside)
            }
            // It stays where it is: what it showed last is all that is known of it.
            (None, Standing::Differs) => None,
            (None, Standing::In) => self.eject(at, now_ms),
            (None, Standing::Ejected { .. }) => {
                let for_ms = self.next_ms(at, now_ms);
                let endpoint = self.endpoints.get_mut(at)?;
                endpoint.last_ms = for_ms;
                endpoint.standing = Standing::Ejected { until_ms: now_ms.saturating_add(for_ms), is_looked_at: false };
                None
            }
        }
    }

    /// The ejected ones whose time is over; each is given out once, and comes back by `looked`.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<usize> {
        let mut due = Vec::new();
        for (i, endpoint) in self.endpoints.iter_mut().enumerate() {
            if let Standing::Ejected { until_ms, is_looked_at } = &mut endpoint.standing
                && *until_ms <= now_ms
                && !*is_looked_at
            {
                *is_looked_at = true;
                due.push(i);
            }
        }
        due
    }

    /// The calls that run at each, and how it stands.
    pub(crate) fn view(&self) -> impl Iterator<Item = (u32, Standing)> {
        self.endpoints.iter().map(|e| (e.running, e.standing))
    }

    fn eject(&mut self, at: usize, now_ms: u64) -> Option<Moved> {
        let count = |is: fn(&Standing) -> bool| self.endpoints.iter().filter(|e| is(&e.standing)).count();
        let (ejected, serving) = (count(|s| matches!(s, Standing::Ejected { .. })), count(|s| *s == Standing::In));
        let most = (self.endpoints.len() * self.spec.max_ejected_percent as usize / 100).max(1);
        if self.standing(at) != Standing::In || ejected >= most || serving < 2 {
            return None;
        }
        let for_ms = self.next_ms(at, now_ms);
        let endpoint = self.endpoints.get_mut(at)?;
        endpoint.last_ms = for_ms;
        endpoint.standing = Standing::Ejected { until_ms: now_ms.saturating_add(for_ms), is_looked_at: false };
        Some(Moved::Ejected { for_ms })
    }

    /// For how long it is out now: twice as long as the last time, unless it has served longer than that since.
    fn next_ms(&self, at: usize, now_ms: u64) -> u64 {
        let Some(endpoint) = self.endpoints.get(at) else { return self.spec.eject_ms };
        let served_well =
            endpoint.standing == Standing::In && now_ms.saturating_sub(endpoint.since_ms) > endpoint.last_ms;
        match endpoint.last_ms {
            0 => self.spec.eject_ms,
            _ if served_well => self.spec.eject_ms,
            last => last.saturating_mul(2).min(self.spec.max_eject_ms),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec() -> OutlierSpec {
        OutlierSpec { consecutive_failures: 3, eject_ms: 100, max_eject_ms: 350, max_ejected_percent: 50 }
    }

    fn failing(machine: &mut Outliers, at: usize, times: usize, now_ms: u64) -> Option<Moved> {
        let mut moved = None;
        for _ in 0..times {
            machine.begin(at);
            moved = moved.or(machine.end(at, Verdict::Bad, now_ms));
        }
        moved
    }

    #[test]
    fn so_many_may_be_out_and_never_all() {
        // Endpoints, percent, and how many are out when all fail for ever.
        for (count, percent, out) in
            [(1, 100, 0), (2, 50, 1), (2, 100, 1), (3, 50, 1), (4, 50, 2), (4, 1, 1), (5, 100, 4)]
        {
            let mut machine = Outliers::new(OutlierSpec { max_ejected_percent: percent, ..spec() }, count);
            for at in (0..count).cycle().take(count * 3) {
                failing(&mut machine, at, 3, 10);
            }
            let ejected = machine.view().filter(|(_, s)| matches!(s, Standing::Ejected { .. })).count();
            assert_eq!(ejected, out, "{count} endpoints, {percent} %");
        }
    }

    #[test]
    fn what_ends_a_call_decides_whether_it_counts() {
        let table: [(&[Verdict], bool); 5] = [
            (&[Verdict::Bad; 2], false),
            (&[Verdict::Bad; 3], true),
            (&[Verdict::Bad, Verdict::Bad, Verdict::Good, Verdict::Bad, Verdict::Bad], false),
            (&[Verdict::Bad, Verdict::Bad, Verdict::Neither, Verdict::Bad], true),
            (&[Verdict::Hopeless], true),
        ];
        for (verdicts, is_out) in table {
            let mut machine = Outliers::new(spec(), 2);
            for verdict in verdicts {
                machine.begin(0);
                machine.end(0, *verdict, 0);
            }
            assert_eq!(machine.standing(0) != Standing::In, is_out, "{verdicts:?}");
            assert!(machine.has_other(0b01), "the other one is fine");
            assert!(!machine.has_other(0b10), "{verdicts:?}");
        }
    }

    #[test]
    fn it_is_out_longer_each_time_and_that_is_forgotten() {
        let mut machine = Outliers::new(spec(), 2);
        assert_eq!(failing(&mut machine, 0, 3, 0), Some(Moved::Ejected { for_ms: 100 }));
        let mut now = 0;
        for for_ms in [100, 200, 350, 350] {
            assert_eq!(machine.due(now + for_ms - 1), [0; 0], "not before its time");
            now += for_ms;
            assert_eq!(machine.due(now), [0]);
            assert_eq!(machine.due(now), [0; 0], "one look at a time");
            assert_eq!(machine.looked(0, None, now), None);
        }
        now += 350;
        machine.due(now);
        assert_eq!(machine.looked(0, Some(true), now), Some(Moved::Readmitted));
        assert_eq!(failing(&mut machine, 0, 3, now + 10), Some(Moved::Ejected { for_ms: 350 }), "it did not last");
        assert_eq!(machine.looked(0, Some(true), now), Some(Moved::Readmitted));
        assert_eq!(failing(&mut machine, 0, 3, now + 351), Some(Moved::Ejected { for_ms: 100 }), "it did");
    }

    #[test]
    fn one_that_shows_other_things_gets_nothing_even_if_it_is_the_last() {
        let mut machine = Outliers::new(spec(), 2);
        assert_eq!(machine.looked(1, Some(false), 0), Some(Moved::SetAside));
        assert_eq!(failing(&mut machine, 0, 9, 0), None, "the last one in service stays");
        for entropy in [0, 1, u64::MAX] {
            assert_eq!(machine.choose(0b01, entropy), 0);
        }
        assert_eq!(machine.looked(1, None, 0), None);
        assert_eq!(machine.standing(1), Standing::Differs);
        assert_eq!(machine.looked(1, Some(true), 0), Some(Moved::Readmitted));
        assert_eq!(machine.choose(0b01, 0), 1);
    }

    #[test]
    fn who_was_never_looked_at_with_success_gets_calls_only_if_nobody_was() {
        let mut machine = Outliers::new(OutlierSpec { max_ejected_percent: 1, ..spec() }, 4);
        assert!((0..100).any(|entropy| machine.choose(0, entropy) == 3), "nobody was");
        assert!(matches!(machine.looked(2, None, 0), Some(Moved::Ejected { .. })));
        assert_eq!(machine.looked(3, None, 0), None, "no more may be out");
        machine.looked(0, Some(true), 0);
        machine.looked(1, Some(true), 0);
        for entropy in 0..100 {
            assert!(machine.choose(0, entropy) < 2);
            assert!(machine.choose(0b11, entropy) < 2);
        }
        assert!(!machine.has_other(0b11));
        machine.looked(3, Some(true), 0);
        assert!(machine.has_other(0b11) && machine.choose(0b11, 7) == 3);
    }

    #[test]
    fn the_less_loaded_of_two_takes_the_call() {
        let mut machine = Outliers::new(spec(), 2);
        machine.begin(0);
        for entropy in 0..100_u64 {
            assert_eq!(machine.choose(0, entropy.wrapping_mul(0x9E37_79B9_7F4A_7C15)), 1);
        }
        // Calls that never end are spread evenly enough over many.
        let mut machine = Outliers::new(spec(), 8);
        for n in 0..8_000_u64 {
            let mut entropy = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            entropy ^= entropy >> 29;
            machine.begin(machine.choose(0, entropy));
        }
        assert!(machine.view().all(|(running, _)| (950..1_050).contains(&running)), "{machine:?}");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Call { entropy: u64, tried: Mask, verdict: u8 },
        Look { at: usize, shows: Option<bool> },
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (any::<u64>(), 0_u32..64, 0_u8..4).prop_map(|(entropy, tried, verdict)| Step::Call { entropy, tried, verdict }),
            1 => (0_usize..6, prop::option::of(any::<bool>())).prop_map(|(at, shows)| Step::Look { at, shows }),
            1 => (0_u64..200).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        /// Whatever happens: calls go to one in service while there is one, to an untried one while there is such;
        /// no more are ejected than may be; nobody is out longer than the bound before the next look.
        #[test]
        fn calls_find_who_serves(count in 1_usize..7, percent in 1_u32..101, steps in steps()) {
            let mut machine = Outliers::new(OutlierSpec { max_ejected_percent: percent, ..spec() }, count);
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Call { entropy, tried, verdict } => {
                        let at = machine.choose(tried, entropy);
                        let any_known = machine.any_known();
                        let serving: Vec<usize> = (0..count).filter(|i| machine.endpoints[*i].serves(any_known)).collect();
                        let inside = machine.view().filter(|(_, s)| *s == Standing::In).count();
                        prop_assert!(at < count);
                        prop_assert!(serving.is_empty() || serving.contains(&at));
                        if serving.iter().any(|i| tried & (1 << i) == 0) {
                            prop_assert!(tried & (1 << at) == 0);
                        }
                        let verdict = [Verdict::Good, Verdict::Bad, Verdict::Hopeless, Verdict::Neither][usize::from(verdict)];
                        machine.begin(at);
                        let moved = machine.end(at, verdict, now);
                        prop_assert!(moved.is_none() || inside > 1, "the last one stays");
                    }
                    Step::Look { at, shows } => {
                        machine.looked(at % count, shows, now);
                    }
                    Step::Wait(ms) => {
                        now += ms;
                        machine.due(now);
                    }
                }
                let ejected: Vec<u64> = machine.view().filter_map(|(_, s)| match s {
                    Standing::Ejected { until_ms, .. } => Some(until_ms),
                    _ => None,
                }).collect();
                prop_assert!(ejected.len() <= (count * percent as usize / 100).max(1));
                prop_assert!(ejected.iter().all(|until| *until <= now + 350));
                prop_assert!(machine.view().all(|(running, _)| running == 0));
            }
        }
    }
}
