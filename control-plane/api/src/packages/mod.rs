//! Plugin packages: taken from administrators, kept in the replicated state, given to nodes, and named by plugins.
//!
//! Invariants: a package is stored only if one of the tenant's publishers signed it, and under the hash of its bytes;
//! it never changes. Bringing and removing one is recorded before it is tried and with its outcome; a plugin that is
//! changed to one is a change like any other.
//! Left out: what a package is (`provost-package`), how many there may be (`provost-control-state`), and running it.

mod bring;
mod fetch;
mod plugins;
mod progress;
mod service;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod view;

use provost_types::Name;

pub use plugins::InstallPlugin;
pub(crate) use service::{FetchService, PackagesService};

use crate::{Caller, ControlError, ErrorKind, Scope};

/// Refuses who does not administer the tenant.
fn check_scope(caller: &Caller, tenant: &Name) -> Result<(), ControlError> {
    match &caller.scope {
        Scope::Tenant(own) if own != tenant => {
            let text = format!("{} does not administer tenant {tenant}", caller.name);
            Err(ControlError::new(ErrorKind::Forbidden, "PV-ADMIN-SCOPE", text, "ask a cluster administrator"))
        }
        _ => Ok(()),
    }
}
