//! Plugins that are WebAssembly components.
//!
//! Purpose: run a plugin that nobody vouches for inside the node, at the price of a function call. An [`Engine`]
//! compiles a component once for this node and keeps the machine code in an [`AotCache`]; a [`WasmPlugin`] is one
//! installed plugin; each call of it gets an instance of its own, made from a pool in microseconds and thrown away.
//!
//! Invariants:
//! - A guest reaches what [`PluginHost`] offers and nothing else: no WASI, no file, no socket, no credential. A
//!   component that asks for more is refused when it is loaded ([`PluginError::Imports`]).
//! - Everything that a guest can use up is bounded ([`PluginLimits`]): time, computing, memory, what it says, asks and
//!   answers. What passes a bound ends that call with an error that has a code, and nothing else.
//! - A guest that computes gives its thread back every [`TICK`], and one that goes on computing is moved to threads of a
//!   lower priority: whoever runs beside it has the processors first. There tenants take turns.
//! - One tenant's calls and loads never have all places of the engine.
//! - Two calls share nothing but the component's code and what the host keeps for it.
//! - Machine code is run only if this node compiled it ([`AotCache`]).
//!
//! Left out: where components come from and who signed them, policy, audit, HTTP and its credentials, the store behind
//! `kv-get`: the node implements [`PluginHost`]. Budgets of instructions (fuel): they cost every guest a tenth or more
//! of its speed, and [`PluginLimits::compute`] bounds the same without.

mod answer;
mod bindings;
mod cache;
mod call;
mod compile;
mod config;
mod digest;
mod engine;
mod error;
mod host;
mod imports;
mod lane;
mod limits;
mod link;
mod memory;
mod offer;
mod plugin;
mod quiet;
mod schema;
mod shared;
mod shares;
mod source;
mod state;
mod ticker;
mod tool;
mod turns;

pub use answer::PluginAnswer;
pub use cache::{AotCache, CacheError, CacheKey};
pub use call::{CallContext, PluginCall};
pub use digest::ComponentDigest;
pub use engine::{Engine, EngineConfig};
pub use error::PluginError;
pub use host::{
    HttpError, HttpRequest, HttpResponse, KvError, LogLevel, NestedCall, NestedError, PluginHost, Progress,
};
pub use lane::step_aside_for;
pub use limits::{MAX_DEPTH, PluginLimits};
pub use link::Grants;
pub use offer::{PluginItem, PluginOffer};
pub use plugin::{PluginSettings, WasmPlugin};
pub use schema::Schema;
pub use source::ComponentSource;
pub use ticker::TICK;
pub use tool::PluginTool;
