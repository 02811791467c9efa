//! Decisions on calls that are not being served: of which not everything is known, or that are decided
//! again to compare.

use cedar_policy::Effect;
use provost_types::Decision;

use crate::{
    AccessRequest, PolicyEngine,
    engine::dissent,
    policy_slice::verdict,
    question::{INTERNAL, Scene, Unaskable},
    visibility::ContextNeeds,
};

/// What is not known of a call that is looked at later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Its arguments, and so what its SQL does.
    pub arguments: bool,
    /// The peer's address.
    pub address: bool,
}

impl PolicyEngine {
    /// The same without what is remembered of earlier calls.
    pub fn decide_anew(&self, request: &AccessRequest<'_>, now_ns: u64) -> Decision {
        let (tenant, principal) = match self.caller(request) {
            Ok(caller) => caller,
            Err(denied) => return denied,
        };
        let principal = &*principal;
        match self.narrow(tenant, principal, request, now_ns) {
            Some(narrowed) => self.settle((tenant, principal), request, &narrowed, now_ns),
            None => self.deny(INTERNAL.0.to_owned()),
        }
    }

    /// The same by evaluating every policy of the tenant and action at once: slow, and what the quick way
    /// is compared with in tests. Where the arguments cannot be read it may deny more.
    #[doc(hidden)]
    pub fn decide_by_all(&self, request: &AccessRequest<'_>, now_ns: u64) -> Decision {
        let (tenant, principal) = match self.caller(request) {
            Ok(caller) => caller,
            Err(denied) => return denied,
        };
        let principal = &*principal;
        let slice = tenant.slice(request.action);
        let scene = Scene::new(self.vocabulary, tenant, principal, request, now_ns);
        let scene = scene.as_ref().ok_or(INTERNAL);
        let asked = match scene.and_then(|scene| scene.ask(self.vocabulary, request, slice.needs(), now_ns)) {
            Ok(asked) => asked,
            Err(Unaskable(why)) => return self.deny(why.to_owned()),
        };
        let (enforced, observed) = slice.whole(&self.authorizer, &asked.request, &asked.entities);
        let mut decision = self.conclude(request, tenant.granting(principal, request, now_ns), &enforced);
        decision.observed = dissent(&decision, &enforced, observed);
        decision
    }

    /// What is decided of a call of which not everything is known; `None`: it depends on what is not.
    /// Of `policies` those may be missing that read what is not known.
    pub fn decide_without(&self, request: &AccessRequest<'_>, unknown: Unknown, now_ns: u64) -> Option<Decision> {
        let (tenant, principal) = match self.caller(request) {
            Ok(caller) => caller,
            Err(denied) => return Some(denied),
        };
        let principal = &*principal;
        let Some(narrowed) = self.narrowed(tenant, principal, request, now_ns) else {
            return Some(self.deny(INTERNAL.0.to_owned()));
        };
        let hidden = ContextNeeds::hidden(unknown);
        let open = match &narrowed.open {
            Some(open) if open.needs.reads_any_of(hidden) => open,
            _ => return Some(self.settle((tenant, principal), request, &narrowed, now_ns)),
        };
        let (known, effects) = tenant.slice(request.action).split(open, hidden);
        let scene = Scene::new(self.vocabulary, tenant, principal, request, now_ns)?;
        let asked = scene.ask(self.vocabulary, request, open.needs.without(hidden), now_ns).ok()?;
        let said = verdict(&self.authorizer, &asked.request, &known, &asked.entities);
        let said = said.join(narrowed.enforced.clone());
        let roles = tenant.granting(principal, request, now_ns);
        let allowed = !roles.is_empty() || !said.permits.is_empty();
        let may_permit = effects.contains(&Effect::Permit);
        let certain = !said.forbids.is_empty() || effects.is_empty() || (!allowed && !may_permit);
        certain.then(|| self.conclude(request, roles, &said))
    }
}
