//! Which guards cover a call, compiled for one revision.
//!
//! Invariants: of all guards that cover a call the strictest action for a kind holds, whatever their
//! names; a guard in report mode only counts. Where what a call touches is not known (it was refused
//! before), every guard of its tenant and caller covers it.
//! A call that no guard covers costs one look-up and no allocation.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use aho_corasick::BuildError;
use provost_types::{
    GuardAction, GuardDirection, GuardMode, GuardSpec, Kind as ResourceKind, Name, Resource, ResourceKey, Snapshot,
    Spec,
};

use crate::{
    guard::{Action, Guard, Rules},
    kind::Kind,
    paths::Paths,
    words::Words,
};

/// Combinations of guards that are remembered for one tenant; at one more all are made again.
const MAX_COMBINATIONS: usize = 256;

/// A call as guards see it.
#[derive(Clone, Copy, Debug)]
pub struct GuardCall<'a> {
    /// Who calls.
    pub tenant: &'a Name,
    /// Who calls.
    pub principal: &'a Name,
    /// What is called.
    pub target: GuardTarget<'a>,
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub enum GuardTarget<'a> {
    /// A tool, by its full name.
    Tool(&'a str),
    /// A model.
    Model(&'a str),
    /// A tool that runs a model.
    ToolAndModel(&'a str, &'a str),
    /// Something that a tool of this plugin began.
    ToolOf(&'a str),
    /// A prompt, a resource, or anything else that is neither tool nor model.
    Other,
    /// Not known.
    Unknown,
}

/// Exact names and prefixes; none at all covers everything.
#[derive(Debug)]
struct Patterns(BTreeSet<String>);

impl Patterns {
    fn covers(&self, target: &GuardTarget<'_>) -> bool {
        let named = |name: &str| {
            self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern,
            })
        };
        match target {
            _ if self.0.is_empty() => true,
            GuardTarget::Tool(name) | GuardTarget::Model(name) => named(name),
            GuardTarget::ToolAndModel(tool, model) => named(tool) || named(model),
            GuardTarget::ToolOf(plugin) => self.0.iter().any(|pattern| {
                let of_plugin = pattern.strip_prefix(plugin).is_some_and(|rest| rest.starts_with('.'));
                of_plugin || pattern.strip_suffix('*').is_some_and(|prefix| plugin.starts_with(prefix))
            }),
            GuardTarget::Other => false,
            GuardTarget::Unknown => true,
        }
    }
}

/// One guard.
#[derive(Debug)]
struct OneGuard {
    /// The resource that it was compiled from.
    source: Arc<Resource>,
    principals: HashSet<Name>,
    tools: Patterns,
    directions: BTreeSet<GuardDirection>,
    rules: Rules,
    words: Option<Arc<Words>>,
    places: Vec<(provost_types::ContentPath, Action)>,
    /// Where it covers a call alone.
    alone: Arc<Guard>,
}

impl OneGuard {
    fn compile(source: &Arc<Resource>, spec: &GuardSpec) -> Result<Self, BuildError> {
        let action = |action: GuardAction| match (spec.mode, action) {
            (GuardMode::Report, _) | (_, GuardAction::Report) => Action::Report,
            (GuardMode::Enforce, GuardAction::Mask) => Action::Mask,
            (GuardMode::Enforce, GuardAction::Block) => Action::Block,
        };
        let mut rules = Rules::default();
        for rule in &spec.rules {
            let kinds = rule.kinds.iter().flat_map(|k| k.members());
            for kind in kinds.filter_map(|k| Kind::from_name(k.as_str())) {
                rules = rules.at_least(kind, action(rule.action));
            }
        }
        let words = spec.dictionaries.iter().flat_map(|d| d.words.iter().map(move |w| (w.as_str(), action(d.action))));
        let words = Words::new(words)?.map(Arc::new);
        let places: Vec<_> = spec.paths.iter().map(|p| (p.path.clone(), action(p.action))).collect();
        let alone = Guard::new(rules).with(words.iter().cloned().collect(), Paths::new(places.iter().cloned()));
        Ok(Self {
            source: source.clone(),
            principals: spec.principals.iter().cloned().collect(),
            tools: Patterns(spec.tools.clone()),
            directions: spec.directions.clone(),
            rules,
            words,
            places,
            alone: Arc::new(alone),
        })
    }

    fn covers(&self, call: &GuardCall<'_>, direction: GuardDirection) -> bool {
        let principal = self.principals.is_empty() || self.principals.contains(call.principal);
        principal && self.directions.contains(&direction) && self.tools.covers(&call.target)
    }
}

#[derive(Debug, Default)]
struct TenantGuards {
    guards: Vec<Arc<OneGuard>>,
    /// Guards that cover calls together, by their places in `guards`.
    together: Mutex<HashMap<Vec<usize>, Arc<Guard>>>,
}

impl TenantGuards {
    fn of(&self, call: &GuardCall<'_>, direction: GuardDirection) -> Option<Arc<Guard>> {
        let mut covering = self.guards.iter().enumerate().filter(|(_, guard)| guard.covers(call, direction));
        let first = covering.next()?;
        let Some(second) = covering.next() else { return Some(first.1.alone.clone()) };
        let chosen: Vec<usize> = [first.0, second.0].into_iter().chain(covering.map(|(i, _)| i)).collect();
        // Whoever panicked while holding it left whole entries.
        let mut together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guard) = together.get(&chosen) {
            return Some(guard.clone());
        }
        let guard = Arc::new(self.join(&chosen));
        if together.len() >= MAX_COMBINATIONS {
            together.clear();
        }
        together.insert(chosen, guard.clone());
        Some(guard)
    }

    fn join(&self, chosen: &[usize]) -> Guard {
        let chosen = || chosen.iter().filter_map(|i| self.guards.get(*i));
        let rules = chosen().fold(Rules::default(), |all, guard| all.stricter(&guard.rules));
        let words = chosen().filter_map(|guard| guard.words.clone()).collect();
        let places = chosen().flat_map(|guard| guard.places.iter().cloned());
        Guard::new(rules).with(words, Paths::new(places))
    }
}

/// All guards of one revision by tenant: one that has none is not in it.
#[derive(Debug, Default)]
pub struct GuardIndex {
    tenants: HashMap<Name, TenantGuards>,
}

impl GuardIndex {
    /// Compiles the guards of a snapshot. Those that did not change since `before` are taken over.
    ///
    /// # Errors
    /// A guard's dictionaries cannot be compiled.
    pub fn compile(snapshot: &Snapshot, before: Option<&GuardIndex>) -> Result<Self, (ResourceKey, BuildError)> {
        let mut index = Self::default();
        for resource in snapshot.of_kind(ResourceKind::Guard) {
            let (Some(tenant), Spec::Guard(spec)) = (&resource.metadata.tenant, &resource.spec) else { continue };
            let old = before.and_then(|b| b.tenants.get(tenant));
            let same = old.and_then(|old| old.guards.iter().find(|g| g.source == *resource));
            let guard = match same {
                Some(same) => same.clone(),
                None => Arc::new(OneGuard::compile(resource, spec).map_err(|cause| (resource.key(), cause))?),
            };
            index.tenants.entry(tenant.clone()).or_default().guards.push(guard);
        }
        Ok(index)
    }

    /// Whether the tenant has any guard: one look-up, and none at all where nobody has one.
    pub fn has_any(&self, tenant: &Name) -> bool {
        !self.tenants.is_empty() && self.tenants.contains_key(tenant)
    }

    /// What covers a call in one direction.
    pub fn of(&self, call: &GuardCall<'_>, direction: GuardDirection) -> Option<Arc<Guard>> {
        if self.tenants.is_empty() {
            return None;
        }
        self.tenants.get(call.tenant)?.of(call, direction)
    }
}
