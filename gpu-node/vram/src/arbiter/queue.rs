//! The bounded queue: priority with ageing, first come first served within it.

use std::cmp::Reverse;

use crate::{Priority, Request, Ticket, WeightsKey};

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) since: u64,
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
        order
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
