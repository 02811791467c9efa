//! What is done about slow, failing and busy upstreams.
//!
//! - `breaker`, `outliers`, `lanes`, `budget`, `store`, `verdict`: what decides, pure; time and entropy are arguments.
//! - `gate`, `watch`, `cache`, `hedge`: the same with a clock and something to wait on.
//! - `policy`: a plugin's spec with its defaults.
//! - `tries`: where the attempts of one call were.
//! - `shield`: one plugin's calls through all of them.
//!
//! Left out: bounds on the whole node (`provost-data-serve`), rates over nodes (quotas).

mod breaker;
mod budget;
mod cache;
mod gate;
mod hedge;
mod lanes;
pub(crate) mod outliers;
mod policy;
mod shield;
mod store;
mod tries;
mod verdict;
mod watch;

pub(crate) use breaker::Verdict;
pub use policy::{DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT, callers_time};
pub use shield::{Shield, Upstream};
pub use tries::Tries;
pub(crate) use verdict::{of_failure, verdict};
pub(crate) use watch::Watch;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
