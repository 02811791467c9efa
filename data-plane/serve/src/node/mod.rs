//! The node: the [`Plane`](provost_data_pipeline::Plane) that every front end drives.
//!
//! Purpose: hold the compiled state of one revision and answer each stage of a call from it: keys,
//! names, policy, schema, execution, record.
//! Invariants: a call keeps the state that it began with; a revision that cannot be compiled never
//! replaces one that can; what a caller may not use looks to them as if it were not there.
//! Left out: transports, upstreams (`provost-data-tools`), the log behind the sink.

mod access;
mod active;
mod aliases;
mod api_keys;
mod arguments;
mod authorise;
mod caller;
mod certificates;
mod coming;
mod compiled;
mod consent;
mod construction;
mod counts;
mod grants;
mod guarding;
mod input;
mod limit;
mod listening;
mod lists;
mod load;
mod models;
mod nested;
mod observers;
mod plane;
mod ports;
mod quarantine;
mod run;
mod schemas;
mod sound;
mod standing;
mod step_up;
mod switches;
mod target;
mod tasks;

pub use access::{Judge, Question};
pub use compiled::{CompileError, Compiled};
pub use load::{DEFAULT_MAX_CALLS, Load};
pub(crate) use models::CHUNK;
pub use plane::Node;
pub use ports::NodePorts;
