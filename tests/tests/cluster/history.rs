//! What clients did and saw, on one clock.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What a register holds. Each write of a run has its own value.
pub type Value = u64;

/// What an operation did, with what it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Write(Value),
    /// `None`: the key did not exist.
    Read(Option<Value>),
}

/// One operation on one key. Operations that surely had no effect are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub key: String,
    pub action: Action,
    /// Nanoseconds since the recorder began.
    pub invoked: u64,
    /// `None`: the outcome is unknown; it may take effect at any later time, or never.
    pub returned: Option<u64>,
    /// The revision that the server named, if it named one.
    pub revision: Option<u64>,
    /// The node that was asked.
    pub via: u64,
}

impl Operation {
    /// Whether a client was told that this write is done.
    pub fn acknowledged_write(&self) -> Option<Value> {
        match (self.action, self.returned) {
            (Action::Write(value), Some(_)) => Some(value),
            _ => None,
        }
    }
}

/// Takes operations from many clients.
pub struct Recorder {
    began: Instant,
    next: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

impl Recorder {
    pub fn new() -> Self {
        Self { began: Instant::now(), next: AtomicU64::new(1), operations: Mutex::default() }
    }

    /// The time now, as operations carry it.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    /// A value that nobody else gets.
    pub fn fresh(&self) -> Value {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn record(&self, operation: Operation) {
        self.operations.lock().unwrap().push(operation);
    }

    /// All that was recorded so far, by invocation.
    pub fn operations(&self) -> Vec<Operation> {
        let mut all = self.operations.lock().unwrap().clone();
        all.sort_by_key(|o| o.invoked);
        all
    }
}

/// The longest time within `from..to` in which no write was acknowledged, and where it began.
pub fn longest_outage(operations: &[Operation], from: u64, to: u64) -> (Duration, Duration) {
    let acknowledged = operations.iter().filter(|o| o.acknowledged_write().is_some());
    let mut times: Vec<u64> = acknowledged.filter_map(|o| o.returned).filter(|t| (from..to).contains(t)).collect();
    times.extend([from, to]);
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
    let (gap, at) = gaps.max().unwrap_or((0, from));
    (Duration::from_nanos(gap), Duration::from_nanos(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_reaches_from_answer_to_answer_and_to_both_ends() {
        let write = |returned| Operation {
            key: "k".into(),
            action: Action::Write(1),
            invoked: 0,
            returned,
            revision: None,
            via: 1,
        };
        let read = Operation { action: Action::Read(None), ..write(Some(50)) };
        let table: [(&[Option<u64>], u64, u64); 5] = [
            (&[], 100, 0),
            (&[Some(10), Some(20), Some(95)], 75, 20),
            (&[Some(60), Some(90)], 60, 0),
            (&[Some(10)], 90, 10),
            // An unknown outcome and an answer after the end count for nothing.
            (&[Some(40), None, Some(120)], 60, 40),
        ];
        for (returned, gap, at) in table {
            let mut operations: Vec<Operation> = returned.iter().map(|r| write(*r)).collect();
            operations.push(read.clone());
            let found = longest_outage(&operations, 0, 100);
            assert_eq!(found, (Duration::from_nanos(gap), Duration::from_nanos(at)), "{returned:?}");
        }
    }
}
