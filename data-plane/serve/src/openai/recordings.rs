//! Places for recordings: each is held in memory from its first byte until its call is over.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use provost_types::Name;

/// Recordings that a node holds.
const MOST: usize = 16;
/// Those of one tenant.
const MOST_OF_ONE: usize = 12;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recordings {
    held: Mutex<HashMap<Name, usize>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    recordings: Arc<Recordings>,
    tenant: Name,
}

impl Recordings {
    /// A place for a tenant's recording; `None`: all are taken, or the tenant has as many as it may.
    pub(super) fn take(self: &Arc<Self>, tenant: &Name) -> Option<Place> {
        let mut held = self.held.lock();
        let of_tenant = held.get(tenant).copied().unwrap_or(0);
        if of_tenant >= MOST_OF_ONE || held.values().sum::<usize>() >= MOST {
            return None;
        }
        held.insert(tenant.clone(), of_tenant + 1);
        Some(Place { recordings: self.clone(), tenant: tenant.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.recordings.held.lock();
        let left = held.get(&self.tenant).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            held.remove(&self.tenant);
        } else {
            held.insert(self.tenant.clone(), left);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_never_has_all_places_and_places_come_back() {
        let recordings = Arc::new(Recordings::default());
        let [acme, rival] = ["acme", "rival"].map(|name| Name::new(name).unwrap());
        let theirs: Vec<Place> = std::iter::from_fn(|| recordings.take(&acme)).collect();
        assert_eq!(theirs.len(), MOST_OF_ONE);
        let others: Vec<Place> = std::iter::from_fn(|| recordings.take(&rival)).collect();
        assert_eq!(others.len(), MOST - MOST_OF_ONE);
        drop(theirs);
        assert!(recordings.take(&acme).is_some());
        drop(others);
        assert!(recordings.held.lock().is_empty());
    }
}
