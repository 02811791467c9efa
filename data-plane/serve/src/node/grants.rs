//! Whether what the state grants may still be used: a node that is cut off does not know what was
//! taken away since.

use std::time::Duration;

use provost_data_pipeline::{Rejection, RejectionKind};

use super::plane::Node;
use crate::push::Freshness;

impl Node {
    /// The age of the state that calls run under: outer `None`, the control plane is in this process;
    /// inner `None`, nobody knows.
    pub fn state_age(&self) -> Option<Option<Duration>> {
        self.staleness.as_ref().map(|(reader, _)| reader.age())
    }

    /// Whether what the state grants may still be used.
    pub(super) fn check_grants(&self) -> Result<(), Rejection> {
        match &self.staleness {
            Some((reader, limits)) if reader.freshness(limits) == Freshness::GrantsExpired => {
                Err(grants_expired(reader.age(), limits.grants_max_age.unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }
}

/// The denial of a call that needs a grant, under a state that is too old to be believed.
fn grants_expired(age: Option<Duration>, max: Duration) -> Rejection {
    let age = match age {
        Some(age) => format!("for {} s", age.as_secs()),
        None => "since a time that this node does not know".to_owned(),
    };
    let message = format!(
        "no control-plane node has confirmed this node's state {age}, and grants hold for {} s without: they may have \
         been taken away; connect the node to its control plane and call again",
        max.as_secs()
    );
    Rejection::new(RejectionKind::Denied, "PV-NODE-STALE", message)
}
