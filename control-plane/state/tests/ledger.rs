//! Laws of the quota ledger, and tables of what a node gets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use provost_control_state::{
    ClockReading, LeaseGrant, LeaseReport, LeaseWant, Ledger, LedgerCommand, LedgerReply, LedgerRow, Span,
};
use provost_types::{Metadata, Name, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource, Resources, Revision, Spec};

const SECOND: u64 = 1_000_000_000;
/// 2026-11-21T00:00:00Z.
const NOON: u64 = 1_795_219_200 * SECOND;

fn quota(resources: &mut Resources, name: &str, made: u64, spec: QuotaSpec) {
    let metadata =
        Metadata { name: Name::new(name).unwrap(), tenant: Some(Name::new("acme").unwrap()), labels: BTreeMap::new() };
    let resource = Resource { metadata, spec: Spec::Quota(spec), created: Revision(made), modified: Revision(made) };
    resources.insert(resource.key(), Arc::new(resource));
}

fn spec(limit: u64, unit: QuotaUnit, window: Option<QuotaWindow>, per: QuotaPer) -> QuotaSpec {
    QuotaSpec { limit, unit, per, window, principals: BTreeSet::new(), tools: BTreeSet::new() }
}

fn daily(limit: u64) -> Resources {
    let mut resources = Resources::default();
    quota(&mut resources, "q", 1, spec(limit, QuotaUnit::Calls, Some(QuotaWindow::Day), QuotaPer::Tenant));
    resources
}

/// A node that keeps its place in the exchange.
struct Node {
    name: &'static str,
    epoch: u64,
    seq: u64,
}

impl Node {
    fn new(name: &'static str) -> Self {
        Self { name, epoch: 1, seq: 0 }
    }

    fn command(&self, now_ns: u64, reports: Vec<LeaseReport>, wants: Vec<(&str, u64)>) -> LedgerCommand {
        let wants = wants.into_iter().map(|(account, units)| LeaseWant { account: account.to_owned(), units });
        LedgerCommand::Exchange {
            node: self.name.to_owned(),
            epoch: self.epoch,
            seq: self.seq,
            now_ns,
            clock: ClockReading { source: 1, up_ns: now_ns },
            reports,
            wants: wants.collect(),
        }
    }

    fn ask(
        &mut self,
        ledger: &mut Ledger,
        resources: &Resources,
        now_ns: u64,
        reports: Vec<LeaseReport>,
        want: (&str, u64),
    ) -> LeaseGrant {
        self.seq += 1;
        let command = self.command(now_ns, reports, vec![want]);
        match ledger.apply(Revision(1), resources, command) {
            LedgerReply::Exchanged { grants } => grants[0].clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn report(lease: u64, settled: u64, returned: u64, closed: bool) -> LeaseReport {
    LeaseReport { lease, settled, returned, closed }
}

/// Settled and leased of all accounts.
fn sums(ledger: &Ledger) -> Vec<(u64, u64)> {
    ledger.accounts().map(|a| (a.settled, a.leased)).collect()
}

#[test]
fn a_lease_is_a_part_of_what_is_left_and_the_last_goes_call_by_call() {
    let (mut ledger, resources) = (Ledger::default(), daily(1_000));
    let (mut a, mut b) = (Node::new("a"), Node::new("b"));
    let first = a.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 1));
    assert_eq!((first.units, first.remaining, first.limit), (16, 984, 1_000));
    assert_eq!(first.window_end_ns, NOON + 86_400 * SECOND);
    assert_eq!(first.ttl_ms, 86_400_000);
    // A fast node gets more, but never more than a share of what is left.
    let mut lease = first;
    let mut now = NOON;
    let mut largest = 0;
    while lease.remaining > 20 {
        now += SECOND / 100;
        let used = report(lease.lease, lease.units, 0, false);
        let before = lease.remaining;
        lease = a.ask(&mut ledger, &resources, now, vec![used], ("acme/q", 1));
        assert!(lease.units <= (before / 2).max(1), "{} of {before}", lease.units);
        largest = largest.max(lease.units);
    }
    assert!(largest > 100, "the lease follows the pace: {largest}");
    // Nothing ahead any more: calls that wait get exactly what they need.
    assert_eq!(b.ask(&mut ledger, &resources, now, vec![], ("acme/q", 0)).units, 0);
    let left = lease.remaining;
    assert_eq!(b.ask(&mut ledger, &resources, now, vec![], ("acme/q", 1)).units, 1);
    assert_eq!(b.ask(&mut ledger, &resources, now, vec![], ("acme/q", left + 9)).units, left - 1);
    let none = b.ask(&mut ledger, &resources, now, vec![], ("acme/q", 1));
    assert_eq!((none.units, none.remaining), (0, 0));
    let (settled, leased) = sums(&ledger)[0];
    assert_eq!(settled + leased, 1_000);
}

#[test]
fn a_window_begins_afresh_and_never_again() {
    let (mut ledger, resources) = (Ledger::default(), daily(10));
    let mut a = Node::new("a");
    let old = a.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 10));
    assert_eq!(old.units, 10);
    let tomorrow = NOON + 86_400 * SECOND;
    // Given back after the window: nobody gets it, in whichever window.
    let new = a.ask(&mut ledger, &resources, tomorrow, vec![report(old.lease, 0, 10, true)], ("acme/q", 6));
    assert_eq!((new.units, new.remaining), (6, 4));
    assert_ne!(new.lease, old.lease);
    // A clock that is behind does not open the old window again.
    let late = a.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 5));
    assert_eq!((late.units, late.window_end_ns), (4, new.window_end_ns));
    // The old account is forgotten, and stays closed.
    a.ask(&mut ledger, &resources, tomorrow + 120 * SECOND, vec![], ("acme/q", 0));
    assert_eq!(ledger.accounts().count(), 1);
    assert_eq!(a.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 1)).units, 0);
}

#[test]
fn a_later_epoch_closes_the_one_before_and_counts_it_as_used() {
    let (mut ledger, resources) = (Ledger::default(), daily(100));
    let mut old = Node::new("a");
    let lease = old.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 30));
    assert_eq!(lease.units, 50);
    let mut new = Node { epoch: 2, ..Node::new("a") };
    let grant = new.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 1));
    assert_ne!(grant.lease, lease.lease);
    assert_eq!(sums(&ledger), [(50, grant.units)]);
    // The old process can neither take nor give back.
    old.seq += 1;
    let command = old.command(NOON, vec![report(lease.lease, 0, 50, true)], vec![("acme/q", 1)]);
    assert_eq!(ledger.apply(Revision(9), &resources, command), LedgerReply::Fenced);
    // Nor can the new one give back what was the old one's.
    new.ask(&mut ledger, &resources, NOON, vec![report(lease.lease, 0, 50, true)], ("acme/q", 0));
    assert_eq!(sums(&ledger)[0].0, 50);
}

#[test]
fn a_limit_may_change_while_units_are_out() {
    let (mut ledger, mut resources) = (Ledger::default(), daily(100));
    let mut a = Node::new("a");
    let lease = a.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 50));
    let change = |resources: &mut Resources, limit| {
        quota(resources, "q", 1, spec(limit, QuotaUnit::Calls, Some(QuotaWindow::Day), QuotaPer::Tenant));
    };
    // Lowered below what is out: nothing more until enough has come back.
    change(&mut resources, 10);
    let grant = a.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 1));
    assert_eq!((grant.units, grant.remaining, grant.limit), (0, 0, 10));
    let back = report(lease.lease, 5, lease.units - 5, false);
    let grant = a.ask(&mut ledger, &resources, NOON, vec![back], ("acme/q", 9));
    assert_eq!(grant.units, 5, "10 less the 5 that were used");
    // Raised: the rest is there at once.
    change(&mut resources, 20);
    let grant = a.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 99));
    assert_eq!((grant.units, grant.remaining), (10, 0));
    // Deleted: nothing. Made anew: other counts.
    let empty = Resources::default();
    assert_eq!(
        a.ask(&mut ledger, &empty, NOON, vec![], ("acme/q", 1)),
        LeaseGrant { account: "acme/q".into(), ..LeaseGrant::default() }
    );
    quota(&mut resources, "q", 7, spec(20, QuotaUnit::Calls, Some(QuotaWindow::Day), QuotaPer::Tenant));
    assert_eq!(a.ask(&mut ledger, &resources, NOON, vec![], ("acme/q", 20)).units, 20);
}

#[test]
fn accounts_of_subjects_are_counted_apart_and_only_where_the_quota_does() {
    let mut resources = daily(10);
    quota(&mut resources, "each", 2, spec(10, QuotaUnit::Calls, Some(QuotaWindow::Day), QuotaPer::Principal));
    quota(&mut resources, "talk", 3, spec(10, QuotaUnit::Calls, Some(QuotaWindow::Day), QuotaPer::Workflow));
    let (mut ledger, mut a) = (Ledger::default(), Node::new("a"));
    let table = [
        ("acme/each#ana", 10),
        ("acme/each#bob", 10),
        ("acme/each#ana", 0),
        ("acme/talk#ana~1f", 10),
        ("acme/talk#ana~", 10),
        ("acme/each", 0),
        ("acme/q#ana", 0),
        ("acme/each#ana~1f", 0),
        ("acme/talk#ana", 0),
        ("acme/none", 0),
        ("umbra/q", 0),
        ("", 0),
        ("acme", 0),
        ("#", 0),
    ];
    for (account, units) in table {
        let grant = a.ask(&mut ledger, &resources, NOON, vec![], (account, 10));
        assert_eq!(grant.units, units, "{account}");
    }
}

#[test]
fn shares_of_a_rate_follow_demand_and_come_back_only_when_surely_unused() {
    let mut resources = Resources::default();
    quota(&mut resources, "r", 1, spec(100, QuotaUnit::Calls, Some(QuotaWindow::Second), QuotaPer::Tenant));
    let mut ledger = Ledger::default();
    let (mut a, mut b) = (Node::new("a"), Node::new("b"));
    let whole = a.ask(&mut ledger, &resources, NOON, vec![], ("acme/r", 500));
    assert_eq!((whole.units, whole.burst, whole.rate_milli, whole.ttl_ms), (100, 10, 90_000, 5_000));
    // All is out: b is counted, and gets its part once a has kept to less and said so.
    let none = b.ask(&mut ledger, &resources, NOON + SECOND, vec![], ("acme/r", 500));
    assert_eq!((none.units, none.rate_milli, none.burst), (0, 0, 0));
    let less = a.ask(&mut ledger, &resources, NOON + 2 * SECOND, vec![], ("acme/r", 500));
    assert_eq!(less.units, 50);
    assert_eq!(b.ask(&mut ledger, &resources, NOON + 3 * SECOND, vec![], ("acme/r", 500)).units, 0);
    let back = report(whole.lease, 0, 50, false);
    a.ask(&mut ledger, &resources, NOON + 4 * SECOND, vec![back], ("acme/r", 500));
    assert_eq!(b.ask(&mut ledger, &resources, NOON + 4 * SECOND, vec![], ("acme/r", 500)).units, 50);
    // a falls silent. Its share is free after a quarter of a minute, and not before.
    for second in 5..19 {
        assert_eq!(b.ask(&mut ledger, &resources, NOON + second * SECOND, vec![], ("acme/r", 500)).units, 50);
    }
    let now = NOON + 19 * SECOND;
    b.ask(&mut ledger, &resources, now, vec![], ("acme/r", 500));
    assert_eq!(b.ask(&mut ledger, &resources, now, vec![], ("acme/r", 500)).units, 100);
    assert_eq!(ledger.leases().count(), 1);
}

#[test]
fn slots_come_back_when_returned_and_from_a_dead_start_after_a_while() {
    let mut resources = Resources::default();
    quota(&mut resources, "c", 1, spec(4, QuotaUnit::Concurrent, None, QuotaPer::Tenant));
    let mut ledger = Ledger::default();
    let (mut a, mut b) = (Node::new("a"), Node::new("b"));
    let lease = a.ask(&mut ledger, &resources, NOON, vec![], ("acme/c", 4));
    assert_eq!((lease.units, lease.ttl_ms), (4, 5_000));
    assert_eq!(b.ask(&mut ledger, &resources, NOON, vec![], ("acme/c", 1)).units, 0);
    a.ask(&mut ledger, &resources, NOON, vec![report(lease.lease, 3, 1, false)], ("acme/c", 0));
    assert_eq!(b.ask(&mut ledger, &resources, NOON, vec![], ("acme/c", 2)).units, 1, "slots are not used up");
    // a starts anew: what it held before waits until no call of the old start can be admitted.
    let mut again = Node { epoch: 2, ..Node::new("a") };
    assert_eq!(again.ask(&mut ledger, &resources, NOON, vec![], ("acme/c", 1)).units, 0);
    let now = NOON + 15 * SECOND;
    for second in 1..15 {
        let grant = again.ask(&mut ledger, &resources, NOON + second * SECOND, vec![], ("acme/c", 1));
        assert_eq!(grant.units, 0, "after {second} s");
    }
    assert_eq!(again.ask(&mut ledger, &resources, now - 1, vec![], ("acme/c", 1)).units, 0);
    again.ask(&mut ledger, &resources, now, vec![], ("acme/c", 0));
    assert_eq!(again.ask(&mut ledger, &resources, now, vec![], ("acme/c", 3)).units, 3);
}

#[derive(Clone, Debug)]
enum Step {
    /// Node, units, whether it is sent again, how far the clock moves (seconds, may go back).
    Exchange {
        node: usize,
        account: usize,
        units: u64,
        settle: u64,
        give: u64,
        close: bool,
        again: bool,
        clock: i64,
    },
    Crash {
        node: usize,
    },
    Limit {
        quota: usize,
        limit: u64,
    },
    Remake {
        quota: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let clock = prop_oneof![6 => 0..5_i64, 2 => 30..90_i64, 1 => -200_000..200_000_i64];
    let exchange = (0..3_usize, 0..5_usize, 0..40_u64, 0..40_u64, 0..40_u64, any::<bool>(), any::<bool>(), clock)
        .prop_map(|(node, account, units, settle, give, close, again, clock)| {
            let close = close && give % 4 == 0;
            Step::Exchange { node, account, units, settle, give, close, again, clock }
        });
    prop_oneof![
        20 => exchange,
        1 => (0..3_usize).prop_map(|node| Step::Crash { node }),
        1 => (0..4_usize, 1..120_u64).prop_map(|(quota, limit)| Step::Limit { quota, limit }),
        1 => (0..4_usize).prop_map(|quota| Step::Remake { quota }),
    ]
}

const ACCOUNTS: [&str; 5] = ["acme/day", "acme/minute#ana", "acme/minute#bob", "acme/rate", "acme/slots"];
const NODES: [&str; 3] = ["a", "b", "c"];

struct World {
    ledger: Ledger,
    resources: Resources,
    limits: [u64; 4],
    made: [u64; 4],
    revision: u64,
    nodes: [(u64, u64); 3],
    clock: u64,
    /// Rows as a store has them that is told only what was touched.
    rows: BTreeMap<String, LedgerRow>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            ledger: Ledger::default(),
            resources: Resources::default(),
            limits: [100, 40, 60, 5],
            made: [1; 4],
            revision: 1,
            nodes: [(1, 0); 3],
            clock: NOON,
            rows: Ledger::default().rows().map(|(key, row)| (key.to_string(), row)).collect(),
        };
        (0..4).for_each(|q| world.put(q));
        world
    }

    fn put(&mut self, q: usize) {
        let (name, unit, window, per) = [
            ("day", QuotaUnit::Tokens, Some(QuotaWindow::Day), QuotaPer::Tenant),
            ("minute", QuotaUnit::Calls, Some(QuotaWindow::Minute), QuotaPer::Principal),
            ("rate", QuotaUnit::Calls, Some(QuotaWindow::Second), QuotaPer::Tenant),
            ("slots", QuotaUnit::Concurrent, None, QuotaPer::Tenant),
        ][q];
        quota(&mut self.resources, name, self.made[q], spec(self.limits[q], unit, window, per));
    }

    fn limit_of(&self, name: &str) -> u64 {
        self.limits[["day", "minute", "rate", "slots"].iter().position(|n| *n == name).unwrap()]
    }

    fn apply(&mut self, command: LedgerCommand) -> LedgerReply {
        let reply = self.ledger.apply(Revision(1), &self.resources, command);
        for key in self.ledger.touched() {
            match self.ledger.row(key) {
                Some(row) => drop(self.rows.insert(key.to_string(), row)),
                None => drop(self.rows.remove(&key.to_string())),
            }
        }
        reply
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Crash { node } => self.nodes[node] = (self.nodes[node].0 + 1, 0),
            Step::Limit { quota, limit } => {
                self.limits[quota] = limit;
                self.put(quota);
            }
            Step::Remake { quota } => {
                self.revision += 1;
                self.made[quota] = self.revision;
                self.put(quota);
            }
            Step::Exchange { node, account, units, settle, give, close, again, clock } => {
                self.clock = self.clock.saturating_add_signed(clock * SECOND as i64);
                let (epoch, seq) = &mut self.nodes[node];
                *seq += 1;
                let (epoch, seq) = (*epoch, *seq);
                // Some of these leases are not this node's, or of another epoch.
                let leases: Vec<u64> = self.ledger.leases().map(|l| l.id).collect();
                let reports = leases.iter().skip(account % 2).step_by(2);
                let reports = reports.map(|id| report(*id, settle, give, close)).collect();
                let wants = vec![LeaseWant { account: ACCOUNTS[account].to_owned(), units }];
                let command = LedgerCommand::Exchange {
                    node: NODES[node].to_owned(),
                    epoch,
                    seq,
                    now_ns: self.clock,
                    clock: ClockReading { source: settle % 3, up_ns: self.clock },
                    reports,
                    wants,
                };
                let before: BTreeMap<String, u64> = self.totals();
                let reply = self.apply(command.clone());
                self.check_limits(&before);
                if again {
                    let state = self.ledger.clone();
                    assert_eq!(self.apply(command), reply, "the same question has the same answer");
                    assert_eq!(self.ledger, state, "and changes nothing");
                }
            }
        }
    }

    fn totals(&self) -> BTreeMap<String, u64> {
        self.ledger.accounts().map(|a| (a.key.to_string(), a.settled + a.leased)).collect()
    }

    /// The law: no account grows beyond its limit.
    fn check_limits(&self, before: &BTreeMap<String, u64>) {
        for (key, total) in self.totals() {
            let name = key.split(['/', '@']).nth(1).unwrap();
            let out = before.get(&key).copied().unwrap_or(0);
            assert!(total <= out.max(self.limit_of(name)), "{key}: {total}, was {out}");
        }
    }

    fn check_sums(&self) {
        for account in self.ledger.accounts() {
            let leases: u64 = self.ledger.leases().filter(|l| l.account == account.key).map(|l| l.units).sum();
            assert_eq!(account.leased, leases, "{}", account.key);
            assert!(matches!(account.key.span, Span::Window { .. }) || account.settled == 0);
        }
        for lease in self.ledger.leases() {
            assert!(self.ledger.accounts().any(|a| a.key == lease.account), "lease {} of no account", lease.id);
        }
    }
}

proptest! {
    #[test]
    fn no_account_exceeds_its_limit_and_what_is_stored_is_what_is(
        steps in proptest::collection::vec(any_step(), 1..120)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check_sums();
        }
        let stored = Ledger::from_rows(world.rows.values().cloned());
        prop_assert_eq!(&stored, &world.ledger);
        let json = serde_json::to_vec(&world.ledger).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Ledger>(&json).unwrap(), &world.ledger);
        let all: BTreeMap<_, _> = world.ledger.rows().map(|(key, row)| (key.to_string(), row)).collect();
        prop_assert_eq!(all, world.rows);
    }

    #[test]
    fn memory_is_given_back_when_windows_end(subjects in 1..300_usize) {
        let mut resources = Resources::default();
        quota(&mut resources, "m", 1, spec(9, QuotaUnit::Calls, Some(QuotaWindow::Minute), QuotaPer::Principal));
        let (mut ledger, mut a) = (Ledger::default(), Node::new("a"));
        for i in 0..subjects {
            let account = format!("acme/m#p{i}");
            assert_eq!(a.ask(&mut ledger, &resources, NOON, vec![], (&account, 9)).units, 9);
        }
        prop_assert_eq!(ledger.accounts().count(), subjects);
        a.ask(&mut ledger, &resources, NOON + 180 * SECOND, vec![], ("acme/m#p0", 1));
        prop_assert_eq!((ledger.accounts().count(), ledger.leases().count()), (1, 1));
        // The quota is gone, and with its last account everything of it.
        let empty = Resources::default();
        a.ask(&mut ledger, &empty, NOON + 360 * SECOND, vec![], ("acme/m#p0", 1));
        prop_assert_eq!(ledger.rows().count(), 2, "the clocks and the node");
    }
}
