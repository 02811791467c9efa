//! Invariant: a limit that is changed holds from the moment that nodes run the change, whatever they had leased before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use provost_control_state::{ClockReading, Ledger};
use provost_data_policy::quota::{Actual, LeaseAnswer, LeaseBook, LeaseExchange, QuotaCall, QuotaIndex, Slot, Wanting};
use provost_types::{Metadata, Name, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource, Revision, Snapshot, Spec};

use super::network::{Sent, apply};

const MS: u64 = 1_000_000;
/// 2026-11-21T00:20:00Z.
const START: u64 = 1_795_220_400_000 * MS;
const NODES: usize = 3;

/// A quota of the tenant `acme`, of so many calls a month.
fn snapshot(limit: u64) -> Snapshot {
    let metadata = Metadata { name: name("q"), tenant: Some(name("acme")), labels: BTreeMap::new() };
    let (unit, per, window) = (QuotaUnit::Calls, QuotaPer::Tenant, Some(QuotaWindow::Month));
    let (principals, tools) = (BTreeSet::new(), BTreeSet::new());
    let spec = Spec::Quota(QuotaSpec { limit, unit, per, window, principals, tools });
    let quota = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
    let mut snapshot = Snapshot { revision: Revision(1), ..Snapshot::default() };
    snapshot.resources.insert(quota.key(), Arc::new(quota));
    snapshot
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

struct Node {
    index: QuotaIndex,
    book: LeaseBook,
}

/// Nodes and a ledger between which nothing is lost.
struct Group {
    now: u64,
    snapshot: Snapshot,
    ledger: Ledger,
    nodes: Vec<Node>,
    admitted: u64,
}

impl Group {
    fn new(limit: u64) -> Self {
        let snapshot = snapshot(limit);
        let node = |_| Node { index: QuotaIndex::compile(&snapshot), book: LeaseBook::default() };
        let nodes = (0..NODES).map(node).collect();
        Self { now: 1_000 * MS, snapshot, ledger: Ledger::default(), nodes, admitted: 0 }
    }

    /// What the ledger makes of an exchange.
    fn apply(&mut self, node: usize, exchange: LeaseExchange) -> LeaseAnswer {
        self.now += 1;
        let clock = ClockReading { source: 1, up_ns: self.now };
        let sent = Sent { node, name: node, epoch: 1, exchange };
        apply(&mut self.ledger, &self.snapshot.resources, &sent, START + self.now, clock).unwrap()
    }

    fn exchange(&mut self, node: usize) {
        while let Some(exchange) = self.nodes[node].book.next(self.now) {
            let seq = exchange.seq;
            let answer = self.apply(node, exchange);
            self.nodes[node].book.answered(seq, &answer, self.now);
        }
    }

    fn slot(&self, node: usize) -> Arc<Slot> {
        let (tenant, principal) = (name("acme"), name("ana"));
        let call = QuotaCall {
            tenant: &tenant,
            principal: &principal,
            tool: Some("files.read"),
            model: None,
            workflow: "",
            tokens: 0,
            cost_micro: 0,
        };
        let Node { index, book } = &self.nodes[node];
        let slot = index.matching(&call).next().unwrap().slot(book, &call);
        slot.unwrap()
    }

    /// A call that waits for what the ledger says, and for no longer.
    fn call(&mut self, node: usize) {
        let slot = self.slot(node);
        let mut waiting = None;
        for _ in 0..4 {
            match slot.take(1, self.now) {
                Ok(held) => {
                    held.begin();
                    held.settle(&Actual::default());
                    self.admitted += 1;
                    return;
                }
                Err(Wanting::Ask) => {
                    waiting = waiting.or_else(|| slot.wait(1));
                    self.exchange(node);
                }
                Err(_) => return,
            }
        }
    }

    /// So many calls at each node.
    fn calls(&mut self, count: usize) {
        for call in 0..count * NODES {
            self.call(call % NODES);
        }
    }

    /// The change is committed, and then run by one node after the other.
    fn set_limit(&mut self, limit: u64) {
        self.snapshot = snapshot(limit);
        for node in &mut self.nodes {
            self.now += 1;
            let index = QuotaIndex::compile(&self.snapshot);
            node.book.recall(&index.changed_since(&node.index), self.now);
            node.index = index;
        }
    }
}

#[test]
fn a_changed_limit_holds_at_once() {
    for (used, lowered, raised) in [(66, 205, 300), (1, 10, 11), (66, 150, 400)] {
        let mut group = Group::new(1_000);
        group.calls(used);
        let before = group.admitted;
        assert_eq!(before, (used * NODES) as u64);
        // Granted under the old limit, and on its way while the limit is lowered.
        let slot = group.slot(0);
        let waiting = slot.wait(30);
        let exchange = group.nodes[0].book.next(group.now).unwrap();
        let seq = exchange.seq;
        let answer = group.apply(0, exchange);
        group.set_limit(lowered);
        let now = group.now;
        group.nodes[0].book.answered(seq, &answer, now);
        drop(waiting);
        group.calls(200);
        let most = lowered.max(before);
        assert!(group.admitted <= most, "{} of {most}", group.admitted);
        assert!(group.admitted + 5 >= most, "only {} of {most}", group.admitted);
        // At the same moment more can be used, although the ledger had no more just now.
        group.set_limit(raised);
        group.calls(200);
        assert!(group.admitted <= raised, "{} of {raised}", group.admitted);
        assert!(group.admitted + 5 >= raised, "only {} of {raised}", group.admitted);
    }
}
