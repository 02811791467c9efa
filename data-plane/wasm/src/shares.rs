//! Which part of the engine's places one tenant may have, for calls and for loads.
//!
//! Invariant: whatever the plugins of one tenant do, and however many it has, a call or a load of another tenant's does
//! not wait for them alone. An engine with fewer than five places is too small for that: there a tenant's calls and loads
//! together may have all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use provost_types::Name;
use tokio::sync::Semaphore;

/// Of four places the calls of one tenant may have so many.
const OF_FOUR: usize = 3;
/// One in so many places is for its loads, beside those of its calls.
const LOADS_ONE_IN: usize = 8;

/// What tenants may have.
pub(crate) struct TenantShares {
    /// Places of one tenant's calls.
    calls: usize,
    /// Those of its loads.
    loads: usize,
    /// Those of tenants that have a plugin.
    held: Mutex<HashMap<Name, Weak<TenantShare>>>,
}

/// What one tenant may have.
pub(crate) struct TenantShare {
    /// For its calls.
    pub(crate) calls: Semaphore,
    /// For its plugins that say what they have. Apart from those of calls, which may be waiting for just that; a load
    /// waits for no call.
    pub(crate) loads: Semaphore,
}

impl TenantShares {
    /// Of an engine with so many places.
    pub(crate) fn of(places: usize) -> Self {
        Self {
            calls: (places.saturating_mul(OF_FOUR) / 4).max(1),
            loads: (places / LOADS_ONE_IN).max(1),
            held: Mutex::default(),
        }
    }

    /// The places of a tenant: the same for all of its plugins, for as long as one of them is there.
    pub(crate) fn of_tenant(&self, tenant: &Name) -> Arc<TenantShare> {
        // Every change is one insertion or removal: it is whole even after a panic.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = held.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        held.retain(|_, share| share.strong_count() > 0);
        let (calls, loads) = (Semaphore::new(self.calls), Semaphore::new(self.loads));
        let share = Arc::new(TenantShare { calls, loads });
        held.insert(tenant.clone(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_a_part_of_the_places_for_all_of_its_plugins() {
        let [acme, beta] = ["acme", "beta"].map(|tenant| Name::new(tenant).unwrap());
        let of = |places| {
            let share = TenantShares::of(places).of_tenant(&acme);
            (share.calls.available_permits(), share.loads.available_permits())
        };
        for (places, expect) in [(128, (96, 16)), (8, (6, 1)), (4, (3, 1)), (2, (1, 1)), (1, (1, 1))] {
            assert_eq!(of(places), expect, "of {places}");
        }
        for places in 5..=256 {
            let (calls, loads) = of(places);
            assert!(calls + loads < places, "all of {places}");
        }
        let shares = TenantShares::of(128);
        let first = shares.of_tenant(&acme);
        assert!(Arc::ptr_eq(&first, &shares.of_tenant(&acme)) && !Arc::ptr_eq(&first, &shares.of_tenant(&beta)));
        drop(first);
        let _again = shares.of_tenant(&acme);
        assert_eq!(shares.held.lock().unwrap().len(), 1, "what no plugin holds is forgotten");
    }
}
