//! Which guards cover a call, compiled for one revision.
//!
//! Invariants: of all guards that cover a call the strictest action for a kind holds, whatever their
//! names; a guard in report mode only counts. A guard that opens its tokens for a caller is weaker for that
//! caller only, and every other guard holds beside it. Where what a call touches is not known (it was refused
//! before), every guard of its tenant and caller covers it.
//! A call that no guard covers costs one look-up and no allocation.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use aho_corasick::BuildError;
use provost_types::{
    GuardAction, GuardDirection, GuardExternal, GuardMode, GuardReveal, GuardSpec, Kind as ResourceKind, Name,
    Resource, ResourceKey, Snapshot, Spec,
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

/// Whether who calls holds a role. Asked only where a guard names roles.
pub type HoldsRole<'a> = &'a dyn Fn(&Name) -> bool;

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
    reveal: Option<Reveal>,
    external: Option<Arc<ExternalGuard>>,
}

/// A program that is asked what may pass.
#[derive(Debug)]
pub struct ExternalGuard {
    /// The guard's name.
    pub name: Name,
    /// Where it is, and how it is asked.
    pub spec: GuardExternal,
    /// It is only tried: what it says is counted and nothing is done.
    pub reports: bool,
}

/// For whom a guard's tokens are opened.
#[derive(Debug)]
struct Reveal {
    spec: GuardReveal,
    /// The guard for these callers, where it covers a call alone.
    alone: Arc<Guard>,
}

impl OneGuard {
    fn compile(source: &Arc<Resource>, spec: &GuardSpec) -> Result<Self, BuildError> {
        let action = |action: GuardAction| match (spec.mode, action) {
            (GuardMode::Report, _) | (_, GuardAction::Report) => Action::Report,
            (GuardMode::Enforce, GuardAction::Tokenise) => Action::Tokenise,
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
        let mut guard = Self {
            source: source.clone(),
            principals: spec.principals.iter().cloned().collect(),
            tools: Patterns(spec.tools.clone()),
            directions: spec.directions.clone(),
            rules,
            words,
            places,
            alone: Arc::new(Guard::new(Rules::default())),
            reveal: None,
            external: spec.external.clone().map(|external| {
                let (name, reports) = (source.metadata.name.clone(), spec.mode == GuardMode::Report);
                Arc::new(ExternalGuard { name, spec: external, reports })
            }),
        };
        guard.alone = Arc::new(join(&[(&guard, false)]));
        let revealing = spec.reveal.clone().filter(|_| spec.mode == GuardMode::Enforce);
        guard.reveal = revealing.map(|spec| Reveal { spec, alone: Arc::new(join(&[(&guard, true)])) });
        Ok(guard)
    }

    /// Whether tokens are opened for who calls, this way.
    fn reveals(&self, call: &GuardCall<'_>, direction: GuardDirection, holds: HoldsRole<'_>) -> bool {
        let Some(Reveal { spec, .. }) = &self.reveal else { return false };
        spec.directions.contains(&direction)
            && (spec.principals.contains(call.principal) || spec.roles.iter().any(holds))
    }

    fn tokenises(&self) -> bool {
        self.alone.tokenises()
    }

    fn covers(&self, call: &GuardCall<'_>, direction: GuardDirection) -> bool {
        let principal = self.principals.is_empty() || self.principals.contains(call.principal);
        principal && self.directions.contains(&direction) && self.tools.covers(&call.target)
    }
}

/// One guard that judges as all of these together; `true`: for whom its tokens are opened.
fn join(chosen: &[(&OneGuard, bool)]) -> Guard {
    let (mut rules, mut words, mut places) = (Rules::default(), Vec::new(), Vec::new());
    for (guard, reveals) in chosen {
        rules = rules.stricter(&if *reveals { guard.rules.revealing() } else { guard.rules });
        words.extend(guard.words.as_ref().map(|w| if *reveals { Arc::new(w.revealing()) } else { w.clone() }));
        let action = |action: Action| if *reveals { action.revealing() } else { action };
        places.extend(guard.places.iter().map(|(place, of)| (place.clone(), action(*of))));
    }
    Guard::new(rules).with(words, Paths::new(places))
}

/// Guards by their places among a tenant's, each with whether its tokens are opened.
type Chosen = Vec<(usize, bool)>;

#[derive(Debug, Default)]
struct TenantGuards {
    guards: Vec<Arc<OneGuard>>,
    /// Guards that cover calls together.
    together: Mutex<HashMap<Chosen, Arc<Guard>>>,
}

impl TenantGuards {
    fn of(&self, call: &GuardCall<'_>, direction: GuardDirection, holds: HoldsRole<'_>) -> Option<Arc<Guard>> {
        let covering = self.guards.iter().enumerate().filter(|(_, guard)| guard.covers(call, direction));
        let mut covering = covering.map(|(i, guard)| (i, guard, guard.reveals(call, direction, holds)));
        let first = covering.next()?;
        let Some(second) = covering.next() else {
            let (_, guard, reveals) = first;
            let revealing = guard.reveal.as_ref().filter(|_| reveals);
            return Some(revealing.map_or(&guard.alone, |reveal| &reveal.alone).clone());
        };
        let chosen: Chosen = [first, second].into_iter().chain(covering).map(|(i, _, reveals)| (i, reveals)).collect();
        // Whoever panicked while holding it left whole entries.
        let mut together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guard) = together.get(&chosen) {
            return Some(guard.clone());
        }
        let guards: Vec<_> = chosen.iter().filter_map(|(i, r)| Some((self.guards.get(*i)?.as_ref(), *r))).collect();
        let guard = Arc::new(join(&guards));
        if together.len() >= MAX_COMBINATIONS {
            together.clear();
        }
        together.insert(chosen, guard.clone());
        Some(guard)
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

    /// Whether any guard of the tenant's puts tokens in place of values.
    pub fn tokenises(&self, tenant: &Name) -> bool {
        self.tenants.get(tenant).is_some_and(|of| of.guards.iter().any(|guard| guard.tokenises()))
    }

    /// The external guards that cover a call in one direction, in order of name.
    pub fn external(&self, call: &GuardCall<'_>, direction: GuardDirection) -> Vec<Arc<ExternalGuard>> {
        let of_tenant = self.tenants.get(call.tenant).into_iter().flat_map(|of| &of.guards);
        let external = of_tenant.filter_map(|guard| Some((guard, guard.external.as_ref()?)));
        external.filter(|(guard, _)| guard.covers(call, direction)).map(|(_, external)| external.clone()).collect()
    }

    /// What covers a call in one direction, for who `holds` these roles.
    pub fn of(&self, call: &GuardCall<'_>, direction: GuardDirection, holds: HoldsRole<'_>) -> Option<Arc<Guard>> {
        if self.tenants.is_empty() {
            return None;
        }
        self.tenants.get(call.tenant)?.of(call, direction, holds)
    }
}
