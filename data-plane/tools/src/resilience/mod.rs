//! What is done about slow, failing and busy upstreams.
//!
//! - `breaker`, `lanes`, `budget`, `store`, `verdict`: what decides, pure; time and entropy are arguments.
//! - `gate`, `watch`, `cache`, `hedge`: the same with a clock and something to wait on.
//! - `policy`: a plugin's spec with its defaults.
//! - `shield`: one plugin's calls through all of them.
//!
//! Left out: bounds on the whole node (`provost-data-serve`), rates over nodes (quotas).

mod breaker;
mod budget;
mod cache;
mod gate;
mod hedge;
mod lanes;
mod policy;
mod shield;
mod store;
mod verdict;
mod watch;

pub use policy::{DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT};
pub use shield::{Shield, Upstream};
pub(crate) use watch::Watch;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
