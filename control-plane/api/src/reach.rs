//! How far a change reaches, and so which others may be made at the same time.
//!
//! Most changes are sound whatever others do meanwhile: their own fields are checked by themselves,
//! and references are checked again when they are applied. They only insist that the resources they
//! name are as they were read. What an [`crate::Admission`] judges together (policies, roles and
//! plugins) insists that nothing at all has changed, and is made alone on this node.

use std::sync::Arc;

use provost_control_state::{Event, Expectation, State, Transaction};
use provost_types::{Kind, ResourceKey};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// What a change insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The resources it names are as they were.
    Keys,
    /// Everything is as it was.
    State,
}

impl Reach {
    pub(crate) fn of(transaction: &Transaction) -> Self {
        let together =
            |key: &ResourceKey| matches!(key.kind, Kind::Policy | Kind::Plugin | Kind::Role | Kind::RoleBinding);
        let mut keys = transaction.puts.iter().map(|d| d.key()).chain(transaction.deletes.iter().cloned());
        let whole = transaction.event == Event::Rollback || transaction.sealing_key.is_some();
        if whole || keys.any(|key| together(&key)) { Reach::State } else { Reach::Keys }
    }

    /// Puts what is insisted on into the transaction.
    pub(crate) fn expect(self, transaction: &mut Transaction, state: &State) {
        if self == Reach::State {
            transaction.expect_revision = Some(state.revision());
            return;
        }
        let keys = transaction.puts.iter().map(|d| d.key()).chain(transaction.deletes.iter().cloned());
        let modified = |key: &ResourceKey| state.resources().get(key).map(|r| r.modified);
        transaction.expect = keys.map(|key| Expectation { modified: modified(&key), key }).collect();
    }
}

/// The right to make a change, held while it is made.
pub(crate) enum Turn {
    /// Beside others.
    Shared(#[allow(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>),
    /// Alone on this node.
    Alone(#[allow(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>),
}

impl Turn {
    pub(crate) async fn take(writing: &Arc<RwLock<()>>, reach: Reach) -> Self {
        match reach {
            Reach::Keys => Turn::Shared(writing.clone().read_owned().await),
            Reach::State => Turn::Alone(writing.clone().write_owned().await),
        }
    }

    pub(crate) fn covers(&self, reach: Reach) -> bool {
        reach == Reach::Keys || matches!(self, Turn::Alone(_))
    }
}
