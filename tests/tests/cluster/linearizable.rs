//! Is a history of one register linearizable?
//!
//! Purpose: the search of Wing & Gong (1993) with the memory of Lowe (2017): try every operation
//! that may come first, undo where that leads nowhere, and visit no pair of (operations done, value
//! held) twice.
//! Invariants: the answer is exact, or `Undecided` when the bound on visited pairs is reached. An
//! operation must follow another only if it was invoked strictly after the other returned.
//! Left out: other types than a register with reads and writes, keys together (linearizability is
//! local: a history is linearizable if each key's is).
//!
//! Values are unique, which allows three steps before the search: a read of a value that nobody
//! wrote is a violation; a write of unknown outcome whose value nobody read may be left out (if it
//! has a place, no read stands between it and the next write); and a write took effect before the
//! first read of its value returned, so that it need not stay open any longer.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use crate::history::{Action, Operation, Value};

/// Pairs visited before the checker gives up on one key.
const MAX_VISITED: usize = 4_000_000;

/// Why a history was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// No order of the operations explains what clients saw.
    Violation(String),
    /// The bound was reached: neither accepted nor refused.
    Undecided { visited: usize },
    /// Two writes have the same value: the history cannot be judged.
    NotUnique(Value),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(text) => write!(f, "not linearizable: {text}"),
            Self::Undecided { visited } => write!(f, "undecided after {visited} states"),
            Self::NotUnique(value) => write!(f, "the value {value} was written twice"),
        }
    }
}

/// Judges the operations of each key on its own. `initial` is what every key held before.
pub fn check_keys(operations: &[Operation], initial: &HashMap<String, Value>) -> Result<(), (String, Fault)> {
    let mut keys: HashMap<&str, Vec<&Operation>> = HashMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    for (key, own) in keys {
        check(&own, initial.get(key).copied(), MAX_VISITED).map_err(|fault| (key.to_owned(), fault))?;
    }
    Ok(())
}

/// Judges the operations of one key.
pub fn check(operations: &[&Operation], initial: Option<Value>, max_visited: usize) -> Result<(), Fault> {
    let intervals = intervals(operations, initial)?;
    Search::new(&intervals).run(initial, max_visited)
}

/// An operation with a known end.
struct Interval<'a> {
    operation: &'a Operation,
    end: u64,
}

fn intervals<'a>(operations: &[&'a Operation], initial: Option<Value>) -> Result<Vec<Interval<'a>>, Fault> {
    // Where each value was first known to be there.
    let mut first_seen: HashMap<Value, u64> = HashMap::new();
    let mut written: HashSet<Value> = initial.into_iter().collect();
    for operation in operations {
        match (operation.action, operation.returned) {
            (Action::Write(value), _) if !written.insert(value) => return Err(Fault::NotUnique(value)),
            (Action::Read(Some(value)), Some(returned)) => {
                let seen = first_seen.entry(value).or_insert(returned);
                *seen = returned.min(*seen);
            }
            _ => {}
        }
    }
    let mut kept = Vec::new();
    for operation in operations {
        let end = match (operation.action, operation.returned) {
            (Action::Read(Some(value)), Some(_)) if !written.contains(&value) => {
                return Err(Fault::Violation(format!("{operation:?} read what nobody wrote")));
            }
            (Action::Read(_), Some(returned)) => returned,
            // A read without an answer says nothing.
            (Action::Read(_), None) => continue,
            (Action::Write(value), returned) => match (first_seen.get(&value).copied(), returned) {
                (Some(seen), Some(returned)) => returned.min(seen),
                (Some(end), None) | (None, Some(end)) => end,
                (None, None) => continue,
            },
        };
        if end < operation.invoked {
            return Err(Fault::Violation(format!("{operation:?} was read before it was asked for")));
        }
        kept.push(Interval { operation, end });
    }
    kept.sort_by_key(|i| i.operation.invoked);
    Ok(kept)
}

/// A begin or an end of an interval, in a doubly linked list by time.
#[derive(Clone, Copy)]
struct Point {
    interval: usize,
    is_end: bool,
}

/// The list's points are 1.. in order of time; 0 is both its head and its end.
struct Search<'a> {
    intervals: &'a [Interval<'a>],
    points: Vec<Point>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each interval: its begin and its end in `points`.
    places: Vec<(usize, usize)>,
    done: Done,
}

impl<'a> Search<'a> {
    fn new(intervals: &'a [Interval<'a>]) -> Self {
        let mut points: Vec<(u64, Point)> = Vec::with_capacity(2 * intervals.len());
        for (interval, i) in intervals.iter().enumerate() {
            points.push((i.operation.invoked, Point { interval, is_end: false }));
            points.push((i.end, Point { interval, is_end: true }));
        }
        // Begins before ends of the same moment: they overlap.
        points.sort_by_key(|(time, point)| (*time, point.is_end));
        let mut places = vec![(0, 0); intervals.len()];
        for (at, (_, point)) in points.iter().enumerate() {
            let place = &mut places[point.interval];
            *(if point.is_end { &mut place.1 } else { &mut place.0 }) = at + 1;
        }
        let len = points.len() + 1;
        let head = Point { interval: usize::MAX, is_end: true };
        Self {
            intervals,
            points: std::iter::once(head).chain(points.into_iter().map(|(_, point)| point)).collect(),
            next: (1..=len).map(|i| i % len).collect(),
            previous: (0..len).map(|i| (i + len - 1) % len).collect(),
            places,
            done: Done::new(intervals.len()),
        }
    }

    fn run(mut self, initial: Option<Value>, max_visited: usize) -> Result<(), Fault> {
        let mut held = initial;
        // Each with the value that it replaced.
        let mut order: Vec<(usize, Option<Value>)> = Vec::new();
        let mut visited: HashSet<(Window, Option<Value>)> = HashSet::new();
        let mut furthest = (0, 0);
        let mut at = self.next[0];
        while self.next[0] != 0 {
            let point = self.points[at];
            if !point.is_end {
                let after = step(held, self.intervals[point.interval].operation.action);
                if let Some(after) = after
                    && visited.insert((self.done.window_with(point.interval), after))
                {
                    order.push((point.interval, held));
                    held = after;
                    self.done.set(point.interval);
                    self.take_out(point.interval);
                    at = self.next[0];
                } else {
                    at = self.next[at];
                }
                if visited.len() > max_visited {
                    return Err(Fault::Undecided { visited: visited.len() });
                }
                continue;
            }
            // What ended here has no place in this order: undo the last step and go on behind it.
            if order.len() >= furthest.0 {
                furthest = (order.len(), point.interval);
            }
            let Some((last, before)) = order.pop() else {
                return Err(Fault::Violation(self.explain(furthest.0, furthest.1)));
            };
            held = before;
            self.done.clear(last);
            self.put_back(last);
            at = self.next[self.places[last].0];
        }
        Ok(())
    }

    fn take_out(&mut self, interval: usize) {
        let (begin, end) = self.places[interval];
        for point in [begin, end] {
            let (previous, next) = (self.previous[point], self.next[point]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes [`Search::take_out`], in the opposite order: the removed points kept their links.
    fn put_back(&mut self, interval: usize) {
        let (begin, end) = self.places[interval];
        for point in [end, begin] {
            let (previous, next) = (self.previous[point], self.next[point]);
            self.next[previous] = point;
            self.previous[next] = point;
        }
    }

    fn explain(&self, placed: usize, stuck: usize) -> String {
        let Interval { operation, end } = &self.intervals[stuck];
        let mut text = format!("{placed} operations have an order, then {operation:?} has no place; beside it:");
        for other in self.intervals {
            let overlaps = other.end >= operation.invoked && other.operation.invoked <= *end;
            if overlaps && !std::ptr::eq(other.operation, *operation) {
                text.push_str(&format!("\n  {:?}", other.operation));
            }
        }
        text
    }
}

/// The value after an action, or `None` where the action cannot happen.
fn step(held: Option<Value>, action: Action) -> Option<Option<Value>> {
    match action {
        Action::Write(value) => Some(Some(value)),
        Action::Read(seen) => (seen == held).then_some(held),
    }
}

/// Which operations are done, as bits.
struct Done(Vec<u64>);

/// The bits between the first word that is not full and the last that is not empty: operations are
/// done roughly in order, so this is short.
type Window = (usize, Box<[u64]>);

impl Done {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn clear(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }

    fn window_with(&mut self, at: usize) -> Window {
        self.set(at);
        let from = self.0.iter().position(|w| *w != u64::MAX).unwrap_or(self.0.len());
        let to = self.0.iter().rposition(|w| *w != 0).map_or(from, |last| (last + 1).max(from));
        let window = (from, self.0[from..to].into());
        self.clear(at);
        window
    }
}
