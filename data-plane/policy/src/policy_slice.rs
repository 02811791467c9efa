//! The policies of one tenant that can apply to one action, ready to be evaluated.

use std::collections::HashSet;

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer, Decision, Effect, Entities, EntityUid, Policy, PolicyId,
    PolicySet, Request,
};
use provost_types::PolicyMode;

use crate::{
    cedar_text::Rule,
    visibility::{ContextNeeds, ListingForm, listing_form},
};

/// Policies by the part that they play.
#[derive(Debug, Default)]
pub(crate) struct PolicySlice {
    enforce: PolicySet,
    observe: PolicySet,
    listing: PolicySet,
    /// Those of `listing` whose errors count as a yes.
    weakened: HashSet<PolicyId>,
    pub(crate) needs: ContextNeeds,
}

/// What a set of policies says of a request; names are sorted.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Forbids that hold, or could not be evaluated.
    pub(crate) forbids: Vec<String>,
    /// The part of `forbids` that could not be evaluated.
    pub(crate) broken: Vec<String>,
    /// Permits that hold. Not filled where a forbid holds.
    pub(crate) permits: Vec<String>,
}

impl PolicySlice {
    /// The slice of `rules` whose scope takes `action`. Rules must have distinct ids.
    pub(crate) fn new(rules: &[Rule], action: &EntityUid) -> Self {
        let mut slice = Self::default();
        for rule in rules.iter().filter(|r| takes_action(&r.policy, action)) {
            let target = match rule.mode {
                PolicyMode::Enforce => &mut slice.enforce,
                PolicyMode::Observe => &mut slice.observe,
            };
            // Ids are distinct: `read` refuses repeats in a resource, and resources have distinct
            // names. A policy that were lost here would be a lost forbid, hence the assertion.
            let added = target.add(rule.policy.clone());
            debug_assert!(added.is_ok(), "policy ids are distinct");
            slice.needs = slice.needs.union(ContextNeeds::of_policy(&rule.policy));
            if rule.mode == PolicyMode::Enforce {
                slice.add_to_listing(&rule.policy);
            }
        }
        slice
    }

    fn add_to_listing(&mut self, policy: &Policy) {
        let form = match listing_form(policy) {
            ListingForm::Silent => return,
            ListingForm::Exact(policy) => policy,
            ListingForm::Weakened(policy) => {
                self.weakened.insert(policy.id().clone());
                policy
            }
        };
        let added = self.listing.add(form);
        debug_assert!(added.is_ok(), "policy ids are distinct");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.enforce.is_empty() && self.observe.is_empty()
    }

    pub(crate) fn has_listing(&self) -> bool {
        !self.listing.is_empty()
    }

    pub(crate) fn has_observers(&self) -> bool {
        !self.observe.is_empty()
    }

    /// What the enforced policies say.
    pub(crate) fn enforced(&self, a: &Authorizer, r: &Request, e: &Entities) -> Verdict {
        verdict(a, r, &self.enforce, e)
    }

    /// What the observing policies would say.
    pub(crate) fn observed(&self, a: &Authorizer, r: &Request, e: &Entities) -> Verdict {
        verdict(a, r, &self.observe, e)
    }

    /// Whether a call could be permitted (`granted`: a role grants it), whatever its arguments.
    pub(crate) fn may_be_permitted(
        &self,
        granted: bool,
        authorizer: &Authorizer,
        request: &Request,
        entities: &Entities,
    ) -> bool {
        let response = authorizer.is_authorized(request, &self.listing, entities);
        let mut permitted = granted || response.decision() == Decision::Allow;
        for error in response.diagnostics().errors() {
            let id = failed_policy(error);
            if is_forbid(&self.listing, id) {
                return false;
            }
            permitted |= self.weakened.contains(id);
        }
        let forbidden = response.decision() == Decision::Deny && response.diagnostics().reason().next().is_some();
        permitted && !forbidden
    }
}

fn verdict(authorizer: &Authorizer, request: &Request, set: &PolicySet, entities: &Entities) -> Verdict {
    let mut verdict = Verdict::default();
    if set.is_empty() {
        return verdict;
    }
    let response = authorizer.is_authorized(request, set, entities);
    let names = response.diagnostics().reason().map(ToString::to_string);
    match response.decision() {
        Decision::Allow => verdict.permits = names.collect(),
        Decision::Deny => verdict.forbids = names.collect(),
    }
    for error in response.diagnostics().errors() {
        let id = failed_policy(error);
        if is_forbid(set, id) {
            verdict.broken.push(id.to_string());
        }
    }
    verdict.forbids.extend(verdict.broken.iter().cloned());
    if !verdict.forbids.is_empty() {
        verdict.permits.clear();
    }
    verdict.forbids.sort();
    verdict.broken.sort();
    verdict.permits.sort();
    verdict
}

fn failed_policy(error: &AuthorizationError) -> &PolicyId {
    match error {
        AuthorizationError::PolicyEvaluationError(e) => e.policy_id(),
    }
}

/// A policy that is not found counts as a forbid: the careful reading.
fn is_forbid(set: &PolicySet, id: &PolicyId) -> bool {
    set.policy(id).is_none_or(|p| p.effect() == Effect::Forbid)
}

fn takes_action(policy: &Policy, action: &EntityUid) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(one) => &one == action,
        ActionConstraint::In(some) => some.contains(action),
    }
}
