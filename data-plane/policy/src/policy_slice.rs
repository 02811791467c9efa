//! The policies of one tenant that can apply to one action, and what they come to for one caller
//! and object.
//!
//! Policies that do not read `context` say the same of every call of one caller on one object: they
//! are evaluated once and their word is kept. Of the others those are kept that could apply at all;
//! only they are evaluated for each call.
//!
//! Invariant: what [`Narrowed`] says together with its open policies is what all policies of the
//! slice say, name for name.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer, Decision, Effect, Entities, EntityUid, Policy, PolicyId,
    PolicySet, Request,
};
use provost_types::PolicyMode;

use crate::{
    cedar_text::Rule,
    question::{Kept, Room, Scene},
    scope::{Place, ScopeIndex},
    visibility::{ContextNeeds, listing_form, prefix_form},
};

/// Sets of open policies that are kept; more are made anew each time.
const MAX_OPEN_SETS: usize = 4_096;

/// Policies by the part that they play.
#[derive(Debug, Default)]
pub(crate) struct PolicySlice {
    rules: Vec<SliceRule>,
    index: ScopeIndex,
    /// The same few policies are open for many objects: their sets are shared.
    open_sets: Mutex<HashMap<Box<[u32]>, Arc<OpenSet>>>,
    /// All enforced and all observing policies, once somebody asks them all.
    all: OnceLock<(PolicySet, PolicySet)>,
}

/// A policy and what is known of it before any call.
#[derive(Debug)]
pub(crate) struct SliceRule {
    pub(crate) policy: Policy,
    pub(crate) mode: PolicyMode,
    pub(crate) needs: ContextNeeds,
    /// Holds, as a permit, wherever the policy could apply; made when it is first asked for.
    prefix: OnceLock<Policy>,
    /// The weakened permit for listings; likewise.
    listing: OnceLock<Policy>,
}

/// What a set of policies says of a request; names are sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Forbids that hold, or could not be evaluated.
    pub(crate) forbids: Vec<String>,
    /// The part of `forbids` that could not be evaluated.
    pub(crate) broken: Vec<String>,
    /// Permits that hold. Not filled where a forbid holds.
    pub(crate) permits: Vec<String>,
}

impl Verdict {
    /// What two sets of policies say together.
    pub(crate) fn join(mut self, other: Self) -> Self {
        for (mine, theirs) in
            [(&mut self.forbids, other.forbids), (&mut self.broken, other.broken), (&mut self.permits, other.permits)]
        {
            mine.extend(theirs);
            mine.sort();
        }
        if !self.forbids.is_empty() {
            self.permits.clear();
        }
        self
    }
}

/// What the policies of a slice come to for one caller and object.
#[derive(Debug, Default)]
pub(crate) struct Narrowed {
    /// What the enforced policies say that do not read `context`.
    pub(crate) enforced: Verdict,
    /// The same of the observing ones.
    pub(crate) observed: Verdict,
    /// The policies that could apply and read `context`; `None`: there is none.
    pub(crate) open: Option<Arc<OpenSet>>,
    /// Whether some call could be permitted by a policy, whatever its arguments.
    pub(crate) may_be_permitted: bool,
    /// Caller and object as open policies are asked about them, once a call was decided.
    scene: OnceLock<(Scene, Kept)>,
    /// What open policies that read arguments alone say, enforced and observing, of a call without any: always the same.
    pub(crate) bare: OnceLock<(Verdict, Verdict)>,
}

impl Narrowed {
    /// Caller and object as entities: those that are kept, else what `make` gives, which is kept while there is room.
    pub(crate) fn scene(&self, room: &Room, make: impl FnOnce() -> Option<Scene>) -> Option<Cow<'_, Scene>> {
        if let Some((scene, _)) = self.scene.get() {
            return Some(Cow::Borrowed(scene));
        }
        let scene = make()?;
        Some(match room.take() {
            Some(kept) => Cow::Borrowed(&self.scene.get_or_init(|| (scene, kept)).0),
            None => Cow::Owned(scene),
        })
    }
}

/// Policies that have to be asked for each call.
#[derive(Debug, Default)]
pub(crate) struct OpenSet {
    enforce: PolicySet,
    observe: PolicySet,
    rules: Box<[u32]>,
    pub(crate) needs: ContextNeeds,
    /// What the enforced ones need: an observer must not make a call fail.
    pub(crate) needs_of_enforced: ContextNeeds,
}

impl OpenSet {
    pub(crate) fn has_observers(&self) -> bool {
        !self.observe.is_empty()
    }

    /// What the enforced ones say.
    pub(crate) fn enforced(&self, a: &Authorizer, r: &Request, e: &Entities) -> Verdict {
        verdict(a, r, &self.enforce, e)
    }

    /// What the observing ones would say.
    pub(crate) fn observed(&self, a: &Authorizer, r: &Request, e: &Entities) -> Verdict {
        verdict(a, r, &self.observe, e)
    }
}

impl PolicySlice {
    /// The slice of `rules` whose scope takes `action`. Rules must have distinct ids.
    pub(crate) fn new(rules: &[Rule], action: &EntityUid) -> Self {
        let mut slice = Self::default();
        for rule in rules.iter().filter(|r| takes_action(&r.policy, action)) {
            slice.index.add(&rule.policy);
            slice.rules.push(SliceRule {
                policy: rule.policy.clone(),
                mode: rule.mode,
                needs: ContextNeeds::of_policy(&rule.policy),
                prefix: OnceLock::new(),
                listing: OnceLock::new(),
            });
        }
        slice
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The policies whose scope takes this.
    pub(crate) fn in_scope(&self, place: &Place) -> Vec<&SliceRule> {
        self.index.candidates(place).into_iter().filter_map(|n| self.rule(n)).collect()
    }

    /// What the slice comes to for the caller and object of `request`, whose context is empty.
    pub(crate) fn narrow(&self, place: &Place, a: &Authorizer, request: &Request, entities: &Entities) -> Narrowed {
        let candidates = self.index.candidates(place);
        let (open, fixed): (Vec<u32>, Vec<u32>) =
            candidates.into_iter().partition(|n| self.rule(*n).is_some_and(|rule| rule.needs.any()));
        let enforced = verdict(a, request, &self.set(&fixed, Some(PolicyMode::Enforce)), entities);
        let observed = verdict(a, request, &self.set(&fixed, Some(PolicyMode::Observe)), entities);
        let open = self.that_could_apply(&open, a, request, entities);
        let permitted = !enforced.permits.is_empty() || self.may_permit(&open, a, request, entities);
        Narrowed {
            may_be_permitted: permitted && enforced.forbids.is_empty(),
            enforced,
            observed,
            open: self.open_set(open),
            scene: OnceLock::new(),
            bare: OnceLock::new(),
        }
    }

    /// What all policies say at once: the reference that narrowing is compared with, for tests.
    pub(crate) fn whole(&self, a: &Authorizer, r: &Request, e: &Entities) -> (Verdict, Verdict) {
        let (enforce, observe) = self.all.get_or_init(|| {
            let all: Vec<u32> = (0..self.rules.len() as u32).collect();
            (self.set(&all, Some(PolicyMode::Enforce)), self.set(&all, Some(PolicyMode::Observe)))
        });
        (verdict(a, r, enforce, e), verdict(a, r, observe, e))
    }

    /// Everything that some policy of the slice reads.
    pub(crate) fn needs(&self) -> ContextNeeds {
        self.rules.iter().map(|rule| rule.needs).fold(ContextNeeds::default(), ContextNeeds::union)
    }

    /// Splits the enforced open policies by what they read: those that read nothing of `unknown`,
    /// and the effects of the others.
    pub(crate) fn split(&self, open: &OpenSet, unknown: ContextNeeds) -> (PolicySet, Vec<Effect>) {
        let enforced = |n: &&u32| self.rule(**n).is_some_and(|rule| rule.mode == PolicyMode::Enforce);
        let reads = |n: &u32| self.rule(*n).is_some_and(|rule| rule.needs.reads_any_of(unknown));
        let (hidden, known): (Vec<u32>, Vec<u32>) = open.rules.iter().filter(enforced).partition(|n| reads(n));
        let effects = hidden.iter().filter_map(|n| Some(self.rule(*n)?.policy.effect())).collect();
        (self.set(&known, None), effects)
    }

    fn rule(&self, number: u32) -> Option<&SliceRule> {
        self.rules.get(number as usize)
    }

    fn set(&self, numbers: &[u32], mode: Option<PolicyMode>) -> PolicySet {
        let rules = numbers.iter().filter_map(|n| self.rule(*n));
        set_of(rules.filter(|rule| mode.is_none_or(|mode| mode == rule.mode)).map(|rule| rule.policy.clone()))
    }

    fn that_could_apply(&self, open: &[u32], a: &Authorizer, request: &Request, entities: &Entities) -> Vec<u32> {
        if open.is_empty() {
            return Vec::new();
        }
        let forms = open.iter().filter_map(|n| self.rule(*n)).map(|r| r.prefix.get_or_init(|| prefix_form(&r.policy)));
        let held = holding(a, request, &set_of(forms.cloned()), entities);
        open.iter().copied().filter(|n| self.rule(*n).is_some_and(|rule| held.contains(rule.policy.id()))).collect()
    }

    /// Whether one of the open permits could permit a call.
    fn may_permit(&self, open: &[u32], a: &Authorizer, request: &Request, entities: &Entities) -> bool {
        let permits = open.iter().filter_map(|n| self.rule(*n));
        let permits = permits.filter(|r| r.mode == PolicyMode::Enforce && r.policy.effect() == Effect::Permit);
        let forms = set_of(permits.map(|r| r.listing.get_or_init(|| listing_form(&r.policy)).clone()));
        !forms.is_empty() && !holding(a, request, &forms, entities).is_empty()
    }

    fn open_set(&self, rules: Vec<u32>) -> Option<Arc<OpenSet>> {
        if rules.is_empty() {
            return None;
        }
        let mut sets = self.open_sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sets.get(rules.as_slice()) {
            return Some(known.clone());
        }
        let needs = |mode: Option<PolicyMode>| {
            let read = rules.iter().filter_map(|n| self.rule(*n)).filter(|r| mode.is_none_or(|mode| mode == r.mode));
            read.map(|rule| rule.needs).fold(ContextNeeds::default(), ContextNeeds::union)
        };
        let made = Arc::new(OpenSet {
            enforce: self.set(&rules, Some(PolicyMode::Enforce)),
            observe: self.set(&rules, Some(PolicyMode::Observe)),
            needs: needs(None),
            needs_of_enforced: needs(Some(PolicyMode::Enforce)),
            rules: rules.into(),
        });
        if sets.len() < MAX_OPEN_SETS {
            sets.insert(made.rules.clone(), made.clone());
        }
        Some(made)
    }
}

/// Ids are distinct: `read` refuses repeats in a resource, and resources have distinct names. A policy
/// that were lost here would be a lost forbid, hence the assertion.
fn set_of(policies: impl Iterator<Item = Policy>) -> PolicySet {
    let mut set = PolicySet::new();
    for policy in policies {
        let added = set.add(policy);
        debug_assert!(added.is_ok(), "policy ids are distinct");
    }
    set
}

/// The permits of a set that hold or cannot be evaluated.
fn holding(a: &Authorizer, request: &Request, permits: &PolicySet, entities: &Entities) -> HashSet<PolicyId> {
    let response = a.is_authorized(request, permits, entities);
    let held = response.diagnostics().reason().cloned();
    held.chain(response.diagnostics().errors().map(|error| failed_policy(error).clone())).collect()
}

/// What one set of policies says.
pub(crate) fn verdict(authorizer: &Authorizer, request: &Request, set: &PolicySet, entities: &Entities) -> Verdict {
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

pub(crate) fn failed_policy(error: &AuthorizationError) -> &PolicyId {
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
