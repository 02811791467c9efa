//! The device: runs a trace under a policy and measures what it was like.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use provost_gpu_vram::Priority;

use crate::policy::{Act, Policy};
use crate::trace::Trace;

/// An eviction sooner than this many loads after the weights came is early.
const EARLY_LOADS: u64 = 4;
/// The bus is busy while it has been loading for more than this share of the time …
const BUSY_SHARE: f64 = 0.5;
/// … of which the last counts most, and what is as long ago as this 1/e of it. Microseconds.
const SHARE_MICROS: f64 = 60_000_000.0;
const MINUTE_MICROS: u64 = 60_000_000;

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long each request waited, with its priority. Microseconds.
    pub waits: Vec<(Priority, u64)>,
    /// Requests that were refused.
    pub refused: u64,
    /// Weights given up.
    pub evictions: u64,
    /// Bytes loaded that had been there before.
    pub reload_bytes: u64,
    /// Evictions sooner than four loads after the weights came.
    pub early: u64,
    /// Those of them at a time at which the bus had been loading for more than half of the time,
    /// and not for a critical request.
    pub busy: u64,
    /// Those of these after which the model was asked for again before the four loads were over.
    pub missed: u64,
    /// Minutes in which the bus loaded for more than half of the time, and more than half of that
    /// brought back what had been evicted early and was asked for again so soon.
    pub thrash_minutes: u64,
    /// Time in which the bus loaded. Microseconds.
    pub loading_micros: u64,
    /// Time until the last request had ended. Microseconds.
    pub total_micros: u64,
    /// Things that a policy must not do: bytes over the capacity, weights evicted in use, starts
    /// on absent weights or beyond the slots.
    pub violations: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Finished(usize),
    Loaded(usize),
    Arrives(usize),
    Wake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Loading,
    Ready { since: u64 },
}

struct Device<'a> {
    trace: &'a Trace,
    now: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    states: Vec<State>,
    seen: Vec<bool>,
    running: BTreeSet<usize>,
    waiting: BTreeSet<usize>,
    /// The earliest wake in `events`; one is enough.
    wakes_at: Option<u64>,
    bus_free_at: u64,
    /// The recent share of the time in which the bus loaded, at `share_at`.
    share: f64,
    share_at: u64,
    early: Vec<Option<Early>>,
    minutes: BTreeMap<u64, Minute>,
    outcome: Outcome,
}

/// An early eviction that may turn out to be missed.
#[derive(Clone, Copy, Debug)]
struct Early {
    /// When it would not have been early.
    until: u64,
    busy: bool,
}

/// What the bus did in a minute. Microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    loading: u64,
    /// Loading again what was evicted early and missed.
    undoing: u64,
}

/// Runs a trace to its end.
pub fn run(trace: &Trace, policy: &mut dyn Policy) -> Outcome {
    let mut device = Device {
        trace,
        now: 0,
        events: BinaryHeap::new(),
        states: vec![State::Absent; trace.models.len()],
        seen: vec![false; trace.models.len()],
        running: BTreeSet::new(),
        waiting: BTreeSet::new(),
        wakes_at: None,
        bus_free_at: 0,
        share: 0.0,
        share_at: 0,
        early: vec![None; trace.models.len()],
        minutes: BTreeMap::new(),
        outcome: Outcome::default(),
    };
    for (id, arrival) in trace.arrivals.iter().enumerate() {
        device.events.push(Reverse((arrival.at, Event::Arrives(id))));
    }
    while let Some(Reverse((now, event))) = device.events.pop() {
        device.now = now;
        device.measure_bus();
        match event {
            Event::Arrives(id) => {
                device.waiting.insert(id);
                device.note_missed(trace.arrivals[id].model);
                policy.arrives(now, id, &trace.arrivals[id]);
            }
            Event::Loaded(model) => {
                device.states[model] = State::Ready { since: now };
                policy.loaded(now, model);
            }
            Event::Finished(id) => {
                device.running.remove(&id);
                policy.finished(now, id);
            }
            Event::Wake => device.wakes_at = device.wakes_at.filter(|wakes_at| *wakes_at > now),
        }
        let acts = policy.decide(now);
        for (at, act) in acts.iter().enumerate() {
            device.act(*act, &acts[at..]);
        }
        if device.bytes() > trace.capacity {
            device.outcome.violations += 1;
        }
        if !(device.waiting.is_empty() && device.running.is_empty())
            && let Some(wake) = policy.wake().map(|wake| wake.max(now + 1))
            && device.wakes_at.is_none_or(|wakes_at| wake < wakes_at)
        {
            device.wakes_at = Some(wake);
            device.events.push(Reverse((wake, Event::Wake)));
        }
        if !matches!(event, Event::Wake) {
            device.outcome.total_micros = now;
        }
    }
    device.outcome.thrash_minutes = device.minutes.values().filter(|minute| minute.is_thrash()).count() as u64;
    // Whoever was left waiting was never served.
    device.outcome.violations += device.waiting.len() as u64;
    device.outcome
}

impl Minute {
    fn is_thrash(&self) -> bool {
        self.loading * 2 > MINUTE_MICROS && self.undoing * 2 > self.loading
    }
}

impl Device<'_> {
    fn act(&mut self, act: Act, rest: &[Act]) {
        match act {
            Act::Evict(model) => self.evict(model, rest),
            Act::Load(model) => {
                self.check(self.states[model] == State::Absent);
                self.states[model] = State::Loading;
                let Some(facts) = self.trace.models.get(model) else {
                    return;
                };
                if std::mem::replace(&mut self.seen[model], true) {
                    self.outcome.reload_bytes += facts.bytes;
                }
                self.minute().loading += facts.load_micros;
                self.outcome.loading_micros += facts.load_micros;
                self.bus_free_at = self.bus_free_at.max(self.now) + facts.load_micros;
                self.events.push(Reverse((self.bus_free_at, Event::Loaded(model))));
            }
            Act::Start(id) => {
                let arrival = self.trace.arrivals[id];
                self.check(matches!(self.states[arrival.model], State::Ready { .. }));
                let waited = self.waiting.remove(&id);
                self.check(waited && self.running.len() < self.trace.slots);
                self.running.insert(id);
                self.outcome.waits.push((arrival.priority, self.now - arrival.at));
                self.events.push(Reverse((self.now + arrival.service_micros, Event::Finished(id))));
            }
            Act::Refuse(id) => {
                let waited = self.waiting.remove(&id);
                self.check(waited);
                self.outcome.refused += 1;
            }
        }
    }

    fn evict(&mut self, model: usize, rest: &[Act]) {
        let used = self.running.iter().any(|id| self.trace.arrivals[*id].model == model);
        self.check(!used);
        if let State::Ready { since } = self.states[model]
            && self.now < since + EARLY_LOADS * self.trace.models[model].load_micros
        {
            self.outcome.early += 1;
            let until = since + EARLY_LOADS * self.trace.models[model].load_micros;
            let busy = self.share > BUSY_SHARE;
            let critical = self.is_for_critical(rest);
            self.outcome.busy += u64::from(busy && !critical);
            self.early[model] = (!critical).then_some(Early { until, busy });
        }
        self.check(matches!(self.states[model], State::Ready { .. }));
        self.states[model] = State::Absent;
        self.outcome.evictions += 1;
    }

    /// A model is asked for that may have been evicted too early.
    fn note_missed(&mut self, model: usize) {
        if let Some(early) = self.early[model].take_if(|early| self.now < early.until) {
            self.outcome.missed += u64::from(early.busy);
            self.minute().undoing += self.trace.models[model].load_micros;
        }
    }

    fn minute(&mut self) -> &mut Minute {
        self.minutes.entry(self.now / MINUTE_MICROS).or_default()
    }

    /// True when what follows an eviction is for a critical request.
    fn is_for_critical(&self, rest: &[Act]) -> bool {
        let is_critical = |id: &usize| self.trace.arrivals[*id].priority == Priority::Critical;
        let next = rest.iter().find(|act| matches!(act, Act::Load(_) | Act::Start(_)));
        match next {
            Some(Act::Start(id)) => is_critical(id),
            Some(Act::Load(model)) => {
                self.waiting.iter().any(|id| self.trace.arrivals[*id].model == *model && is_critical(id))
            }
            _ => false,
        }
    }

    fn measure_bus(&mut self) {
        let kept = (-((self.now - self.share_at) as f64) / SHARE_MICROS).exp();
        let loading = self.share_at < self.bus_free_at;
        self.share = self.share * kept + if loading { 1.0 - kept } else { 0.0 };
        self.share_at = self.now;
    }

    fn check(&mut self, allowed: bool) {
        self.outcome.violations += u64::from(!allowed);
    }

    fn bytes(&self) -> u64 {
        let present = self.states.iter().zip(&self.trace.models).filter(|(state, _)| **state != State::Absent);
        let budgets = self.running.iter().map(|id| self.trace.arrivals[*id].budget_bytes);
        present.map(|(_, model)| model.bytes).sum::<u64>() + budgets.sum::<u64>()
    }
}
