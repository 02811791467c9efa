//! Calls of other tools by a plugin's guest: the port to whoever drives calls.
//!
//! Purpose: an executor knows no policy, no limits and no log, and a call that a guest makes needs all of them. Whoever
//! runs a plugin hands in how its guest's calls are made.
//! Invariant: nothing here runs another tool by itself.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Instant};

use provost_mcp::RawJson;
use provost_types::{BoxFuture, Name};
use tokio_util::sync::CancellationToken;

pub use provost_data_wasm::NestedError;

/// A call that a guest makes.
#[derive(Clone, Debug)]
pub struct GuestCall {
    /// The plugin that makes it.
    pub plugin: Name,
    /// The tool, as the caller would name it.
    pub tool: String,
    /// An object.
    pub arguments: RawJson,
    /// How many plugins stand above it: at least 1.
    pub depth: u8,
    /// What the plugin's document lets it call; `*` ends a prefix.
    pub granted: Arc<BTreeSet<String>>,
    /// When the guest's own call ends.
    pub deadline: Instant,
    /// Cancelled when the guest's own call is, and when it is over.
    pub stop: CancellationToken,
}

/// Other tools, as the guest of one call gets to them: in the name of who made that call, with all that stands between
/// a caller and a tool.
pub trait OtherTools: Debug + Send + Sync {
    /// How many plugins stand above the call whose guest this is for: 0 for a caller's own.
    fn depth(&self) -> u8;

    /// Makes a call: the result object. What was begun comes to its end, and is recorded, whether the future is waited
    /// for or not.
    fn call(&self, call: GuestCall) -> BoxFuture<'static, Result<RawJson, NestedError>>;
}
