//! How old a node's state may be, and what follows.
//!
//! Routes, plugins and models may be served from a state of any age: they stop nothing that was
//! allowed. Grants may have been taken away since, so from some age on privileged calls fail
//! closed. Quota leases end by themselves.

use std::time::Duration;

use provost_types::Revision;

/// Where a node stands towards the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// The control-plane node that serves it now; `None`: none does.
    pub connected: Option<String>,
    /// The newest state that it was sent.
    pub received: Revision,
    /// The state that it runs; `None`: it has not said.
    pub active: Option<Revision>,
    /// Since anything was heard; `None`: nothing was, since the start.
    pub heard_ago: Option<Duration>,
    /// Since a quorum confirmed that the state that the node runs is the newest; `None`: unknown.
    pub confirmed_ago: Option<Duration>,
}

/// When a node's state is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StalenessLimits {
    /// From this age on the node says that it is stale. Change it when alerts come too early or
    /// too late; nothing else depends on it.
    pub stale_after: Duration,
    /// From this age on privileged calls fail closed; `None`: never. Shorter: a grant that was taken
    /// away lives shorter on a node that is cut off. Longer: such a node works longer.
    pub grants_max_age: Option<Duration>,
}

impl Default for StalenessLimits {
    fn default() -> Self {
        Self { stale_after: Duration::from_secs(30), grants_max_age: Some(Duration::from_secs(24 * 3_600)) }
    }
}

/// What a node may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Everything.
    Fresh,
    /// Everything, and it says that it is cut off.
    Stale,
    /// Only what needs no grant that may have been taken away.
    GrantsExpired,
}

/// What a state of this age allows; `None`: nobody knows how old it is.
pub fn verdict(age: Option<Duration>, limits: &StalenessLimits) -> Freshness {
    match (age, limits.grants_max_age) {
        (None, None) => Freshness::Stale,
        (None, Some(_)) => Freshness::GrantsExpired,
        (Some(age), Some(max)) if age >= max => Freshness::GrantsExpired,
        (Some(age), _) if age < limits.stale_after => Freshness::Fresh,
        (Some(_), _) => Freshness::Stale,
    }
}
