//! Several logs as one sequence by time; within a log the order is the log's.

use std::{collections::VecDeque, iter::Peekable, sync::Arc};

use provost_audit_core::LogId;
use provost_audit_verify::LogLayout;

use crate::{
    query::{Found, Query, QueryError},
    scan::{LogScan, Parts, QueryStats},
};

/// Whole logs, record by record.
pub(crate) struct Merge {
    streams: Vec<Peekable<LogScan>>,
}

impl Merge {
    pub(crate) fn of(streams: Vec<LogScan>) -> Self {
        Self { streams: streams.into_iter().map(Iterator::peekable).collect() }
    }
}

impl Iterator for Merge {
    type Item = Result<Found, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut first: Option<(u64, usize)> = None;
        for (n, stream) in self.streams.iter_mut().enumerate() {
            let time = match stream.peek() {
                None => continue,
                // An error goes out at once.
                Some(Err(_)) => 0,
                Some(Ok(found)) => found.record.time_ns,
            };
            if first.is_none_or(|(best, _)| time < best) {
                first = Some((time, n));
            }
        }
        let (_, n) = first?;
        self.streams.get_mut(n)?.next()
    }
}

/// Brings the newest `limit` of a log into `found`, which keeps the newest `limit` of all: from
/// the end backwards, so that older segments are not read when newer ones have enough.
pub(crate) fn newest(
    found: &mut VecDeque<Found>,
    limit: usize,
    layout: LogLayout,
    log: LogId,
    query: &Arc<Query>,
    stats: &Arc<QueryStats>,
) -> Result<(), QueryError> {
    let parts = Parts::of(&layout)?;
    let rest = LogScan::of_rest(layout.clone(), log.clone(), query.clone(), parts.rest, stats.clone());
    let mut own = last_of(rest, limit)?;
    for first in parts.segments.into_iter().rev() {
        if own.len() >= limit {
            break;
        }
        let part = LogScan::of_segment(layout.clone(), log.clone(), query.clone(), first, stats.clone());
        let mut older = last_of(part, limit - own.len())?;
        older.append(&mut own);
        own = older;
    }
    let before = std::mem::take(found);
    let mut merged = VecDeque::with_capacity(before.len() + own.len());
    let (mut left, mut right) = (before.into_iter().peekable(), own.into_iter().peekable());
    loop {
        let from_left = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => a.record.time_ns <= b.record.time_ns,
            (a, _) => a.is_some(),
        };
        let Some(next) = (if from_left { left.next() } else { right.next() }) else { break };
        merged.push_back(next);
    }
    merged.drain(..merged.len().saturating_sub(limit));
    *found = merged;
    Ok(())
}

fn last_of(scan: LogScan, limit: usize) -> Result<VecDeque<Found>, QueryError> {
    let mut last = VecDeque::new();
    for found in scan {
        last.push_back(found?);
        if last.len() > limit {
            last.pop_front();
        }
    }
    Ok(last)
}
