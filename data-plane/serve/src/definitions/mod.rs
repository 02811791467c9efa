//! Tool definitions as this node sees them: hashed once a list, judged by the pins of the state, and reported
//! to the control plane where they are not known there.
//!
//! Invariants: what is served of a pinned plugin is approved, or the first that this node saw while the control
//! plane has not said otherwise; a report never holds up a call; one change of a tool is reported once.
//! Left out: what a report makes of the state (`provost-control-state`).

mod changes;
mod keeper;
mod pins;
mod port;
mod seen;

pub(crate) use changes::ToolChanges;
pub use keeper::DefinitionKeeper;
pub(crate) use pins::{PinIndex, Verdict};
pub use port::{DefinitionPort, GrpcDefinitions, ReportFailed};
pub(crate) use seen::SeenTools;
