//! Calls by how they ended, counted after their record is durable.

use std::sync::atomic::{AtomicU64, Ordering};

use provost_types::CallStatus;

const NAMES: [&str; 8] =
    ["ok", "tool_error", "rpc_error", "timeout", "cancelled", "denied", "input_required", "unknown"];

#[derive(Debug, Default)]
pub(super) struct Counts {
    ended: [AtomicU64; NAMES.len()],
    /// Of the denied ones, those that were refused because the node ran as many as it may.
    shed: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, status: CallStatus) {
        let index = match status {
            CallStatus::Ok => 0,
            CallStatus::ToolError => 1,
            CallStatus::RpcError => 2,
            CallStatus::Timeout => 3,
            CallStatus::Cancelled => 4,
            CallStatus::Denied => 5,
            CallStatus::InputRequired => 6,
            CallStatus::Unknown => 7,
        };
        self.ended[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Counted as denied before, and here too.
    pub(super) fn add_shed(&self) {
        self.shed.fetch_add(1, Ordering::Release);
    }

    /// Never more than are counted as denied by whoever reads those afterwards.
    pub(super) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Acquire)
    }

    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(self.ended.iter().map(|n| n.load(Ordering::Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shed_is_counted_apart_from_denials_too() {
        let counts = Counts::default();
        for _ in 0..3 {
            counts.add(CallStatus::Denied);
        }
        counts.add(CallStatus::Ok);
        counts.add_shed();
        let read = counts.read();
        assert!(read.contains(&("denied", 3)) && read.contains(&("ok", 1)), "{read:?}");
        assert_eq!(counts.shed(), 1);
    }
}
