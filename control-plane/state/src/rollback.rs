//! Going back: the transaction that restores an earlier state.
//!
//! Credentials do not go back. A key that was revoked since must not work again and a key made
//! since must not stop, so API keys stay as they are unless what they belong to goes, and so do publishers: a key that is
//! trusted no more must not be trusted again. Identity providers stay as they are, less the roles that go, and so do the
//! certificate names of principals; one that comes back has none. A secret
//! that exists then and now keeps its present value, and a principal that is disabled now stays so. The node group stays too: how a change is
//! released does not depend on what is changed. What governs calls (kill switches) stays as well: calls that were
//! stopped since stay stopped.

use std::collections::{BTreeMap, BTreeSet};

use provost_types::{Kind, Name, Resource, ResourceKey, Revision, Spec};

use crate::{Draft, State, references};

/// Why a revision cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// Its history is gone.
    #[error("revision {to} is no longer in the history; the oldest that can be restored is {oldest}")]
    Compacted {
        /// The revision asked for.
        to: Revision,
        /// The oldest that can be restored.
        oldest: Revision,
    },
    /// It has not happened.
    #[error("revision {to} has not happened: the state is at {now}")]
    Future {
        /// The revision asked for.
        to: Revision,
        /// The present one.
        now: Revision,
    },
}

impl RollbackError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            RollbackError::Compacted { .. } => "PV-CTL-COMPACTED",
            RollbackError::Future { .. } => "PV-CTL-FUTURE",
        }
    }
}

impl State {
    /// The resources as they were at `to`.
    pub fn at(&self, to: Revision) -> Result<BTreeMap<ResourceKey, Resource>, RollbackError> {
        if to < self.compacted() {
            return Err(RollbackError::Compacted { to, oldest: self.compacted() });
        }
        if to > self.revision() {
            return Err(RollbackError::Future { to, now: self.revision() });
        }
        let mut resources: BTreeMap<_, _> = self.resources().iter().map(|(k, r)| (k.clone(), (**r).clone())).collect();
        for entry in self.history().iter().rev().take_while(|e| e.revision > to) {
            for change in &entry.changes {
                match &change.old {
                    Some(old) => resources.insert(change.key.clone(), (**old).clone()),
                    None => resources.remove(&change.key),
                };
            }
        }
        Ok(resources)
    }

    /// The puts and deletes that restore the state at `to`.
    pub fn rollback(&self, to: Revision) -> Result<(Vec<Draft>, Vec<ResourceKey>), RollbackError> {
        let mut target = self.at(to)?;
        let stays = |key: &ResourceKey| key.kind == Kind::NodeGroup || key.kind.is_governance();
        let vouches = |key: &ResourceKey| matches!(key.kind, Kind::ApiKey | Kind::Publisher | Kind::IdentityProvider);
        target.retain(|key, _| !vouches(key) && !stays(key));
        for (key, then) in &mut target {
            if let Spec::Principal(then) = &mut then.spec {
                then.certificates = match self.resources().get(key).map(|now| &now.spec) {
                    Some(Spec::Principal(now)) => now.certificates.clone(),
                    _ => BTreeSet::new(),
                };
            }
        }
        for (key, now) in self.resources() {
            match (&now.spec, target.get_mut(key)) {
                (Spec::Secret(now), Some(Resource { spec: Spec::Secret(then), .. })) => {
                    then.sealed = now.sealed.clone();
                }
                (Spec::Principal(now), Some(Resource { spec: Spec::Principal(then), .. })) => {
                    then.disabled |= now.disabled;
                }
                (Spec::ApiKey(_) | Spec::Publisher(_), None) => {
                    let keep = references::of(&now.metadata, &now.spec).iter().all(|(_, k)| target.contains_key(k));
                    if keep {
                        target.insert(key.clone(), (**now).clone());
                    }
                }
                (Spec::IdentityProvider(_), None) => {
                    if let Some(kept) = kept_provider(now, &target) {
                        target.insert(key.clone(), kept);
                    }
                }
                _ if stays(key) => drop(target.insert(key.clone(), (**now).clone())),
                _ => {}
            }
        }
        let wanted: BTreeSet<&ResourceKey> = target.keys().collect();
        let deletes = self.resources().keys().filter(|key| !wanted.contains(key)).cloned().collect();
        let puts = target
            .into_iter()
            .filter(|(key, then)| {
                self.resources().get(key).is_none_or(|now| now.metadata != then.metadata || now.spec != then.spec)
            })
            .map(|(_, then)| Draft { metadata: then.metadata, spec: then.spec })
            .collect();
        Ok((puts, deletes))
    }
}

/// A provider as it is now, less the roles that there will not be; `None`: its tenant goes.
fn kept_provider(now: &Resource, target: &BTreeMap<ResourceKey, Resource>) -> Option<Resource> {
    let has = |kind: Kind, tenant: Option<&Name>, name: &Name| {
        target.contains_key(&ResourceKey { kind, tenant: tenant.cloned(), name: name.clone() })
    };
    let tenant = now.metadata.tenant.as_ref()?;
    if !has(Kind::Tenant, None, tenant) {
        return None;
    }
    let mut kept = now.clone();
    if let Spec::IdentityProvider(spec) = &mut kept.spec {
        let by_claim = spec.claims.roles.iter_mut().flat_map(|roles| roles.map.values_mut());
        for roles in by_claim.chain(spec.scopes.values_mut()) {
            roles.retain(|role| has(Kind::Role, Some(tenant), role));
        }
    }
    Some(kept)
}
