//! The simulated world: nodes, calls, faults, and one queue of what happens when.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    sync::Arc,
};

use provost_control_state::{ClockReading, Ledger};
use provost_data_policy::quota::{Held, LeaseAnswer, LeaseBook, QuotaCall, QuotaIndex, Slot, Waiting, Wanting};
use provost_types::{Metadata, Name, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource, Revision, Snapshot, Spec};

use super::network::{Sent, apply};
use crate::seeds::Rng;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// 2026-11-21T00:20:00Z.
const START: u64 = 1_795_220_400 * SECOND;
const NODES: usize = 5;
/// Control-plane nodes that stamp commands, each with its clock.
const PROPOSERS: usize = 3;
/// A node sends an exchange again after so long.
const RESEND: u64 = 300 * MS;
/// A call waits so long for units.
const PATIENCE: u64 = 250 * MS;
/// A node looks after its accounts this often.
const TICK: u64 = 50 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    None,
    All,
}

/// What callers do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Calls in all.
    pub calls: u64,
    /// Between two calls of all nodes together.
    pub mean_gap_us: u64,
    /// So many calls in a row come mostly to one node, then to the next; 0: each to any.
    pub phase: u64,
    /// The longest that a node is cut off now and then.
    pub longest_cut_ms: u64,
    pub longest_call_ms: u64,
}

#[derive(Clone, Debug)]
enum Event {
    Call,
    Tick { node: usize, epoch: u64 },
    Arrive(Sent),
    Answer { node: usize, epoch: u64, seq: u64, answer: LeaseAnswer },
    Resend { node: usize, epoch: u64, seq: u64 },
    Finish { call: u64 },
    Crash { node: usize },
    Cut { node: usize, is_cut: bool },
    Jump { proposer: usize },
}

/// A process. After a crash the next one stands in its place; one that only seemed to have
/// crashed goes on beside it, under the same name.
struct Node {
    name: usize,
    epoch: u64,
    index: QuotaIndex,
    book: LeaseBook,
    is_cut: bool,
    /// The exchange that is waited for.
    in_flight: Option<u64>,
    waiting: VecDeque<(Waiting, u64)>,
}

impl Node {
    fn new(name: usize, epoch: u64, snapshot: &Snapshot) -> Self {
        Self {
            name,
            epoch,
            index: QuotaIndex::compile(snapshot),
            book: LeaseBook::default(),
            is_cut: false,
            in_flight: None,
            waiting: VecDeque::new(),
        }
    }
}

pub struct World {
    rng: Rng,
    faults: Faults,
    load: Load,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    happening: BTreeMap<u64, Event>,
    snapshot: Snapshot,
    ledger: Ledger,
    nodes: Vec<Node>,
    clocks: [i64; PROPOSERS],
    /// Another with each start of a proposer.
    sources: [u64; PROPOSERS],
    tenant: Name,
    principal: Name,
    running: BTreeMap<u64, (usize, Held)>,
    calls: u64,
    /// Calls that ran, by the end of the window they count in.
    pub admitted: BTreeMap<u64, u64>,
    times: Vec<u64>,
    pub most_at_once: u64,
}

impl World {
    pub fn new(
        seed: u64,
        limit: u64,
        unit: QuotaUnit,
        window: Option<QuotaWindow>,
        faults: Faults,
        load: Load,
    ) -> Self {
        let tenant = Name::new("acme").unwrap();
        let metadata =
            Metadata { name: Name::new("q").unwrap(), tenant: Some(tenant.clone()), labels: BTreeMap::new() };
        let (principals, tools) = (BTreeSet::new(), BTreeSet::new());
        let spec = Spec::Quota(QuotaSpec { limit, unit, per: QuotaPer::Tenant, window, principals, tools });
        let quota = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
        let mut snapshot = Snapshot { revision: Revision(1), ..Snapshot::default() };
        snapshot.resources.insert(quota.key(), Arc::new(quota));
        let mut world = Self {
            rng: Rng::new(seed),
            faults,
            load,
            now: SECOND,
            order: 0,
            events: BinaryHeap::new(),
            happening: BTreeMap::new(),
            nodes: (0..NODES).map(|name| Node::new(name, 1, &snapshot)).collect(),
            snapshot,
            ledger: Ledger::default(),
            clocks: [0; PROPOSERS],
            sources: [1, 2, 3],
            tenant,
            principal: Name::new("ana").unwrap(),
            running: BTreeMap::new(),
            calls: 0,
            admitted: BTreeMap::new(),
            times: Vec::new(),
            most_at_once: 0,
        };
        world.at(0, Event::Call);
        for node in 0..NODES {
            world.at(node as u64 * 7 * MS, Event::Tick { node, epoch: 1 });
        }
        if faults == Faults::All {
            for proposer in 0..PROPOSERS {
                world.at(0, Event::Jump { proposer });
            }
            for node in 0..NODES {
                let (crash, cut) = (world.rng.range(500, 20_000), world.rng.range(100, 6_000));
                world.at(crash * MS, Event::Crash { node });
                world.at(cut * MS, Event::Cut { node, is_cut: true });
            }
        }
        world
    }

    /// Something happens after `delay`.
    fn at(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + delay, self.order)));
        self.happening.insert(self.order, event);
    }

    /// Until all calls were made and the last of them are over.
    pub fn run(&mut self) {
        while let Some(Reverse((time, id))) = self.events.pop() {
            self.now = time;
            let event = self.happening.remove(&id).unwrap();
            self.happen(event);
            if self.calls >= self.load.calls && self.running.is_empty() {
                return;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Call => self.call(),
            Event::Tick { node, epoch } if epoch == self.nodes[node].epoch => {
                self.retry_waiting(node);
                self.send(node);
                self.at(TICK, Event::Tick { node, epoch });
            }
            Event::Arrive(sent) => self.arrive(&sent),
            Event::Answer { node, epoch, seq, answer } => self.answer(node, epoch, seq, &answer),
            Event::Resend { node, epoch, seq } => {
                if epoch == self.nodes[node].epoch && self.nodes[node].in_flight == Some(seq) {
                    self.nodes[node].in_flight = None;
                    self.send(node);
                }
            }
            Event::Finish { call } => {
                if let Some((node, held)) = self.running.remove(&call) {
                    held.settle(&provost_data_policy::quota::Actual::default());
                    drop(held);
                    self.retry_waiting(node);
                }
            }
            Event::Crash { node } => self.crash(node),
            Event::Cut { node, is_cut } => {
                self.nodes[node].is_cut = is_cut;
                let longest = if self.rng.chance(300) { self.load.longest_cut_ms } else { 3_000 };
                let length = self.rng.range(20, longest) * MS;
                self.at(length, Event::Cut { node, is_cut: !is_cut });
            }
            Event::Jump { proposer } => {
                let reach = if self.rng.chance(300) { 7_200 } else { 2 };
                let seconds = self.rng.range(0, 2 * reach) as i64 - reach as i64;
                self.clocks[proposer] = seconds * SECOND as i64;
                if self.rng.chance(100) {
                    self.sources[proposer] = self.rng.next();
                }
                let next = self.rng.range(200, 9_000) * MS;
                self.at(next, Event::Jump { proposer });
            }
            Event::Tick { .. } => {}
        }
    }

    fn slot(&self, node: usize) -> Arc<Slot> {
        let node = &self.nodes[node];
        let call = QuotaCall {
            tenant: &self.tenant,
            principal: &self.principal,
            tool: Some("sql.query"),
            model: None,
            workflow: "",
            tokens: 0,
            cost_micro: 0,
        };
        let quota = node.index.matching(&call).next().expect("the quota covers the call");
        quota.slot(&node.book, &call).expect("there is room")
    }

    fn call(&mut self) {
        if self.calls >= self.load.calls {
            return;
        }
        self.calls += 1;
        let node = self.who_is_called();
        let slot = self.slot(node);
        match slot.take(1, self.now) {
            Ok(held) => self.admit(node, held),
            Err(Wanting::Ask) => {
                if let Some(waiting) = slot.wait(1) {
                    let deadline = self.now + PATIENCE;
                    self.nodes[node].waiting.push_back((waiting, deadline));
                }
            }
            Err(_) => {}
        }
        self.send(node);
        let gap = self.rng.range(1, 2 * self.load.mean_gap_us) * 1_000;
        self.at(gap, Event::Call);
    }

    /// Some have more to do, and that changes; a process that should be gone is called now and then.
    fn who_is_called(&mut self) -> usize {
        if self.nodes.len() > NODES && self.rng.chance(200) {
            return self.rng.range(NODES as u64, self.nodes.len() as u64) as usize;
        }
        match self.load.phase {
            0 => self.rng.range(0, NODES as u64) as usize,
            phase => (self.calls / phase) as usize % NODES,
        }
    }

    fn admit(&mut self, node: usize, held: Held) {
        // Some are refused by a later stage: their units go back.
        if self.rng.chance(50) {
            return;
        }
        held.begin();
        let window = held.slot().facts().window_end_ns;
        *self.admitted.entry(window).or_default() += 1;
        self.times.push(self.now);
        let length = self.rng.range(1, self.load.longest_call_ms.max(2)) * MS;
        let call = self.order;
        self.running.insert(call, (node, held));
        self.most_at_once = self.most_at_once.max(self.running.len() as u64);
        self.at(length, Event::Finish { call });
    }

    fn retry_waiting(&mut self, node: usize) {
        for _ in 0..self.nodes[node].waiting.len() {
            let Some((waiting, deadline)) = self.nodes[node].waiting.pop_front() else { return };
            match self.slot(node).take(1, self.now) {
                Ok(held) => self.admit(node, held),
                Err(Wanting::Ask) if self.now < deadline => self.nodes[node].waiting.push_back((waiting, deadline)),
                Err(_) => {}
            }
        }
    }

    /// A message takes a while, and with faults is lost, repeated or late.
    fn deliver(&mut self, node: usize, event: Event) {
        let quick = self.rng.range(1, 6) * MS;
        if self.faults == Faults::None {
            return self.at(quick, event);
        }
        if self.nodes[node].is_cut || self.rng.chance(80) {
            return;
        }
        if self.rng.chance(80) {
            let late = self.rng.range(1, 2_500) * MS;
            self.at(late, event.clone());
        }
        let delay = if self.rng.chance(100) { self.rng.range(10, 900) * MS } else { quick };
        self.at(delay, event);
    }

    fn send(&mut self, node: usize) {
        if self.nodes[node].in_flight.is_some() {
            return;
        }
        let Some(exchange) = self.nodes[node].book.next(self.now) else { return };
        let (name, epoch, seq) = (self.nodes[node].name, self.nodes[node].epoch, exchange.seq);
        self.nodes[node].in_flight = Some(seq);
        self.deliver(node, Event::Arrive(Sent { node, name, epoch, exchange }));
        self.at(RESEND, Event::Resend { node, epoch, seq });
    }

    fn arrive(&mut self, sent: &Sent) {
        let proposer = self.rng.range(0, PROPOSERS as u64) as usize;
        let now_ns = (START + self.now).saturating_add_signed(self.clocks[proposer]);
        // The proposal was a while on its way.
        let age = if self.faults == Faults::All { self.rng.range(0, 500) * MS } else { 0 };
        let clock = ClockReading { source: self.sources[proposer], up_ns: self.now.saturating_sub(age) };
        let answer = apply(&mut self.ledger, &self.snapshot.resources, sent, now_ns, clock);
        if self.rng.chance(2) {
            // The leader changes, or a replica starts anew: the ledger is read from its rows.
            self.ledger = Ledger::from_rows(self.ledger.rows().map(|(_, row)| row));
        }
        if let Some(answer) = answer {
            let Sent { node, epoch, exchange, .. } = sent;
            self.deliver(*node, Event::Answer { node: *node, epoch: *epoch, seq: exchange.seq, answer });
        }
    }

    fn answer(&mut self, node: usize, epoch: u64, seq: u64, answer: &LeaseAnswer) {
        let now = self.now;
        let node_state = &mut self.nodes[node];
        if epoch != node_state.epoch {
            return;
        }
        node_state.book.answered(seq, answer, now);
        if node_state.in_flight == Some(seq) {
            node_state.in_flight = None;
        }
        self.retry_waiting(node);
        self.send(node);
    }

    /// The process is gone with all it knew; the next one has a later epoch. Or it is not gone.
    fn crash(&mut self, node: usize) {
        let (epoch, is_cut) = (self.nodes[node].epoch + 1, self.nodes[node].is_cut);
        let next = Node { is_cut, ..Node::new(node, epoch, &self.snapshot) };
        let last = std::mem::replace(&mut self.nodes[node], next);
        if self.rng.chance(300) {
            let ghost = self.nodes.len();
            for (of, _) in self.running.values_mut().filter(|(of, _)| *of == node) {
                *of = ghost;
            }
            self.at(0, Event::Tick { node: ghost, epoch: last.epoch });
            self.nodes.push(Node { in_flight: None, ..last });
        } else {
            self.running.retain(|_, (of, _)| *of != node);
        }
        self.at(0, Event::Tick { node, epoch });
        let next = self.rng.range(2_000, 60_000) * MS;
        self.at(next, Event::Crash { node });
    }

    /// The most calls that began within any one second.
    pub fn fullest_second(&self) -> u64 {
        let mut from = 0;
        let mut fullest = 0;
        for (i, time) in self.times.iter().enumerate() {
            while self.times[from] + SECOND <= *time {
                from += 1;
            }
            fullest = fullest.max(i - from + 1);
        }
        fullest as u64
    }

    /// How long it all took.
    pub fn seconds(&self) -> u64 {
        (self.now / SECOND).max(1)
    }
}
