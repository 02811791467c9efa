//! The bounded queue: priority with ageing, first come first served within it.
//!
//! Those with the same priority may be ranked by the driver, which knows whose they are. Those of
//! them who wait for the same weights take each other's places; and where weights are there, those of
//! one lane begin by rank, so that a crowd at one model does not hold up who asks for another.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{Priority, Request, Ticket, WeightsKey};

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) since: u64,
    /// The lesser goes first among those with the same priority.
    pub(super) rank: u64,
    /// It has lacked memory for longer than its patience: whatever its rank, no equal passes it.
    pub(super) is_held_up: bool,
    /// It found its cache full when so many requests of its model had ended.
    pub(super) full_at: Option<u64>,
}

/// Where a request stands: compared, the lesser goes first.
pub(super) type Place = (Reverse<u64>, Ticket);

impl Waiting {
    /// The priority that waiting has raised; all end at the highest, where only age counts.
    pub(super) fn place(&self, now: u64, ageing_micros: u64) -> Place {
        let aged = now.saturating_sub(self.since) / ageing_micros.max(1);
        let level = (self.request.priority.level() + aged).min(Priority::Critical.level());
        (Reverse(level), self.ticket)
    }

    /// When its priority rises next; none at the highest.
    pub(super) fn rises_at(&self, now: u64, ageing_micros: u64) -> Option<u64> {
        let (Reverse(level), _) = self.place(now, ageing_micros);
        let rises = level + 1 - self.request.priority.level();
        (level < Priority::Critical.level())
            .then(|| self.since.saturating_add(rises.saturating_mul(ageing_micros.max(1))))
    }

    /// Compared among equals, the lesser goes first.
    fn precedence(&self) -> (bool, u64, Ticket) {
        (!self.is_held_up, if self.is_held_up { 0 } else { self.rank }, self.ticket)
    }

    pub(super) fn overdue_at(&self) -> u64 {
        self.since.saturating_add(self.request.patience_micros)
    }
}

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Vec<Waiting>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// Everyone, in the order in which their weights are loaded.
    pub(super) fn in_order(&self, now: u64, ageing_micros: u64) -> Vec<(Place, Waiting)> {
        let mut order: Vec<_> = self.waiting.iter().map(|w| (w.place(now, ageing_micros), *w)).collect();
        order.sort_by_key(|(place, _)| *place);
        if self.is_ranked() {
            let same_weights = |request: &Request| (request.weights.key, request.priority);
            exchange(&mut order, same_weights, |at, next| at.1 = next.1);
        }
        order
    }

    /// Everyone, in the order in which those begin whose weights are there. Each has the place that it has in the order
    /// of loads, so that what is loaded does not change with every token that somebody gets.
    pub(super) fn to_begin(&self, now: u64, ageing_micros: u64) -> Vec<(Place, Waiting)> {
        let mut order = self.in_order(now, ageing_micros);
        if self.is_ranked() {
            exchange(&mut order, |request| (request.lane, request.priority), |at, next| *at = next);
        }
        order
    }

    fn is_ranked(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.rank != 0)
    }

    /// Lets no equal pass a request any more.
    pub(super) fn hold_up(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) {
            waiting.is_held_up = true;
        }
    }

    /// Ranks a request among its equals.
    pub(super) fn rank(&mut self, ticket: Ticket, rank: u64) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) {
            waiting.rank = rank;
        }
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        Some(self.waiting.remove(at))
    }

    /// Takes out those for whom `leaves` is true, in order of arrival.
    pub(super) fn take(&mut self, leaves: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let (gone, stay) = self.waiting.drain(..).partition(|waiting| leaves(waiting));
        self.waiting = stay;
        gone
    }

    pub(super) fn of_model(&self, key: WeightsKey) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(move |waiting| waiting.request.weights.key == key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter()
    }

    /// The time that all of them will run, one after the other.
    pub(super) fn service_micros(&self) -> u64 {
        self.waiting.iter().fold(0, |sum, waiting| sum.saturating_add(waiting.request.service_micros))
    }
}

/// Gives the places of equals to them by precedence; `put` says what of one goes to the place of another.
fn exchange<K: Ord>(
    order: &mut [(Place, Waiting)],
    equals: impl Fn(&Request) -> K,
    put: impl Fn(&mut (Place, Waiting), (Place, Waiting)),
) {
    let mut groups: BTreeMap<K, Vec<(Place, Waiting)>> = BTreeMap::new();
    for entry in order.iter() {
        groups.entry(equals(&entry.1.request)).or_default().push(*entry);
    }
    for group in groups.values_mut() {
        // Taken from the end below.
        group.sort_by_key(|(_, waiting)| Reverse(waiting.precedence()));
    }
    for entry in order.iter_mut() {
        if let Some(next) = groups.get_mut(&equals(&entry.1.request)).and_then(Vec::pop) {
            put(entry, next);
        }
    }
}
