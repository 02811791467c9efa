//! Checks of a candidate state that this crate cannot make by itself.

use provost_control_state::Problem;
use provost_types::{Kind, Snapshot};

/// Looks at the whole state as it would be after a transaction, before that is proposed.
/// The server composes it from the planes' own validators (such as that of Cedar text).
pub trait Admission: Send + Sync {
    /// Every problem found; empty: admitted. Called on a blocking thread.
    fn check(&self, candidate: &Snapshot) -> Vec<Problem>;

    /// Whether a change of a resource of this kind may make a candidate one that is not admitted. Changes of other
    /// kinds alone are not checked.
    fn judges(&self, _kind: Kind) -> bool {
        true
    }
}

/// Admits everything: for tests and tools that bring no validators.
pub struct NoAdmission;

impl Admission for NoAdmission {
    fn check(&self, _: &Snapshot) -> Vec<Problem> {
        Vec::new()
    }

    fn judges(&self, _: Kind) -> bool {
        false
    }
}
