//! Which part of the engine's places the calls of one tenant may have.
//!
//! Invariant: whatever the plugins of one tenant do, and however many it has, a call of another tenant's does not wait
//! for them alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use provost_types::Name;
use tokio::sync::Semaphore;

/// Of four places so many may be one tenant's.
const OF_FOUR: usize = 3;

/// What tenants may have.
pub(crate) struct TenantShares {
    /// Places of one tenant.
    places: usize,
    /// Those of tenants that have a plugin.
    held: Mutex<HashMap<Name, Weak<Semaphore>>>,
}

impl TenantShares {
    /// Of an engine with so many places.
    pub(crate) fn of(places: usize) -> Self {
        Self { places: (places.saturating_mul(OF_FOUR) / 4).max(1), held: Mutex::default() }
    }

    /// The places of a tenant: the same for all of its plugins, for as long as one of them is there.
    pub(crate) fn of_tenant(&self, tenant: &Name) -> Arc<Semaphore> {
        // Every change is one insertion or removal: it is whole even after a panic.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = held.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        held.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.places));
        held.insert(tenant.clone(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_three_of_four_places_for_all_of_its_plugins() {
        for (places, expect) in [(128, 96), (4, 3), (2, 1), (1, 1)] {
            let share = TenantShares::of(places).of_tenant(&Name::new("acme").unwrap());
            assert_eq!(share.available_permits(), expect, "of {places}");
        }
        let shares = TenantShares::of(128);
        let [acme, beta] = ["acme", "beta"].map(|tenant| Name::new(tenant).unwrap());
        let first = shares.of_tenant(&acme);
        assert!(Arc::ptr_eq(&first, &shares.of_tenant(&acme)) && !Arc::ptr_eq(&first, &shares.of_tenant(&beta)));
        drop(first);
        let _again = shares.of_tenant(&acme);
        assert_eq!(shares.held.lock().unwrap().len(), 1, "what no plugin holds is forgotten");
    }
}
