//! The bounded queue: priority with ageing, first come first served within it.
//!
//! Those who wait for the same weights with the same priority may be ranked by the driver, which
//! knows whose they are: they take each other's places then, and nobody else's.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{Priority, Request, Ticket, WeightsKey};

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) since: u64,
    /// The lesser goes first among those for the same weights with the same priority.
    pub(super) rank: u64,
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

    /// Those with whom it may exchange places.
    fn equals(&self) -> (WeightsKey, Priority) {
        (self.request.weights.key, self.request.priority)
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

    /// Everyone, in the order in which they should go.
    pub(super) fn in_order(&self, now: u64, ageing_micros: u64) -> Vec<(Place, Waiting)> {
        let mut order: Vec<_> = self.waiting.iter().map(|w| (w.place(now, ageing_micros), *w)).collect();
        order.sort_by_key(|(place, _)| *place);
        if self.waiting.iter().any(|waiting| waiting.rank != 0) {
            exchange(&mut order);
        }
        order
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

/// Gives the places of equals to them by rank.
fn exchange(order: &mut [(Place, Waiting)]) {
    let mut equals: BTreeMap<(WeightsKey, Priority), Vec<Waiting>> = BTreeMap::new();
    for (_, waiting) in order.iter() {
        equals.entry(waiting.equals()).or_default().push(*waiting);
    }
    for ranked in equals.values_mut() {
        // Taken from the end below.
        ranked.sort_by_key(|waiting| Reverse((waiting.rank, waiting.ticket)));
    }
    for (_, waiting) in order.iter_mut() {
        if let Some(next) = equals.get_mut(&waiting.equals()).and_then(Vec::pop) {
            *waiting = next;
        }
    }
}
