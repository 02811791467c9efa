//! Where a policy can apply, by its scope alone: looked up before anything is evaluated.
//!
//! Invariant: a policy that is left out here cannot apply. The reverse need not hold.

use std::collections::HashMap;

use cedar_policy::{EntityUid, Policy, PrincipalConstraint, ResourceConstraint};

/// Who asks for what, as scopes name them.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) principal: EntityUid,
    /// The roles that hold now, as far as policies name them.
    pub(crate) roles: Vec<EntityUid>,
    pub(crate) resource: EntityUid,
    pub(crate) plugin: Option<EntityUid>,
}

/// Policies by the object that their scope names; places in the slice's table.
#[derive(Debug, Default)]
pub(crate) struct ScopeIndex {
    by_resource: HashMap<EntityUid, Vec<u32>>,
    anywhere: Vec<u32>,
    principals: Vec<PrincipalConstraint>,
}

impl ScopeIndex {
    /// Adds the next policy of the table.
    pub(crate) fn add(&mut self, policy: &Policy) {
        let number = self.principals.len() as u32;
        match policy.resource_constraint() {
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                self.by_resource.entry(uid).or_default().push(number);
            }
            ResourceConstraint::Any | ResourceConstraint::Is(_) => self.anywhere.push(number),
        }
        self.principals.push(policy.principal_constraint());
    }

    /// The policies whose scope may take this, in the order of the table.
    pub(crate) fn candidates(&self, place: &Place) -> Vec<u32> {
        let named = [Some(&place.resource), place.plugin.as_ref()];
        let named = named.into_iter().flatten().filter_map(|uid| self.by_resource.get(uid)).flatten();
        let mut found: Vec<u32> =
            self.anywhere.iter().chain(named).copied().filter(|n| self.takes_principal(*n, place)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn takes_principal(&self, number: u32, place: &Place) -> bool {
        match self.principals.get(number as usize) {
            Some(PrincipalConstraint::Eq(uid)) => *uid == place.principal,
            Some(PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid)) => {
                *uid == place.principal || place.roles.contains(uid)
            }
            Some(PrincipalConstraint::Any | PrincipalConstraint::Is(_)) | None => true,
        }
    }
}
