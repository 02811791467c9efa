//! Calls by how they ended, counted after their record is durable.

use std::sync::atomic::{AtomicU64, Ordering};

use provost_types::CallStatus;

const NAMES: [&str; 8] =
    ["ok", "tool_error", "rpc_error", "timeout", "cancelled", "denied", "input_required", "unknown"];

#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; NAMES.len()]);

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
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(self.0.iter().map(|n| n.load(Ordering::Relaxed))).collect()
    }
}
