//! A snapshot made ready to decide with.

use std::{collections::HashMap, sync::Arc};

use provost_data_guards::GuardIndex;
use provost_data_policy::{KillSwitches, PolicyEngine, PolicyProblem, PriceIndex, quota::QuotaIndex};
use provost_data_tools::{acts_for_users, recorded_digest, secrets_of};
use provost_types::{
    Kind, Name, PluginSource, PrincipalRef, Priority, Resource, ResourceKey, Revision, Snapshot, Spec,
};

use super::{aliases::AliasIndex, api_keys::ApiKeys, certificates::Certificates};
use crate::{
    definitions::PinIndex,
    identity::{Tokens, is_jwt},
};

/// Why a revision cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("PV-NODE-REVISION: revision {revision} cannot be compiled: {}", list(.problems))]
pub struct CompileError {
    /// The revision.
    pub revision: Revision,
    /// Everything that is wrong.
    pub problems: Vec<PolicyProblem>,
}

fn list(problems: &[PolicyProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The state that calls run under.
#[derive(Debug)]
pub struct Compiled {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) engine: PolicyEngine,
    pub(super) keys: ApiKeys,
    pub(super) tokens: Tokens,
    pub(super) certificates: Certificates,
    pub(super) quotas: QuotaIndex,
    pub(super) prices: PriceIndex,
    pub(super) guards: GuardIndex,
    pub(super) switches: Arc<KillSwitches>,
    pub(super) pins: PinIndex,
    pub(super) aliases: AliasIndex,
    /// The plugins behind whose tools stand models, by tenant: seldom more than one.
    inference: HashMap<Name, Vec<Name>>,
    /// What records say of each plugin, by tenant and name.
    plugin_facts: HashMap<(Name, Name), PluginFacts>,
    /// Principals of another priority than normal: seldom many.
    priorities: HashMap<PrincipalRef, Priority>,
}

/// What records say of a plugin.
#[derive(Clone, Debug, Default)]
pub(super) struct PluginFacts {
    /// SHA-256 of its spec, hexadecimal.
    pub digest: Option<Arc<str>>,
    /// Names of the secrets that it is given.
    pub secrets: Arc<[String]>,
}

impl Compiled {
    /// Compiles a snapshot; all problems at once.
    pub fn new(snapshot: Arc<Snapshot>) -> Result<Self, CompileError> {
        let engine = PolicyEngine::compile(&snapshot);
        Self::with(engine, snapshot, None)
    }

    /// Compiles a later snapshot; tenants that did not change are taken over.
    pub fn next(&self, snapshot: Arc<Snapshot>) -> Result<Self, CompileError> {
        let engine = self.engine.recompile(&snapshot);
        Self::with(engine, snapshot, Some(self))
    }

    fn with(
        engine: Result<PolicyEngine, Vec<PolicyProblem>>,
        snapshot: Arc<Snapshot>,
        before: Option<&Self>,
    ) -> Result<Self, CompileError> {
        let revision = snapshot.revision;
        let engine = engine.map_err(|problems| CompileError { revision, problems })?;
        let keys = ApiKeys::compile(&snapshot);
        let certificates = Certificates::compile(&snapshot);
        let tokens = Tokens::compile(&snapshot, before.map(|before| &before.tokens));
        let quotas = QuotaIndex::compile(&snapshot);
        let prices = PriceIndex::compile(&snapshot);
        let guards = GuardIndex::compile(&snapshot, before.map(|before| &before.guards)).map_err(|(key, cause)| {
            let message = format!("its dictionaries cannot be compiled: {cause}");
            let problem = PolicyProblem { key, message, line: None, column: None, hint: None };
            CompileError { revision, problems: vec![problem] }
        })?;
        let plugin_facts = plugin_facts(&snapshot, before);
        let inference = inference_plugins(&snapshot);
        let switches = Arc::new(KillSwitches::compile(&snapshot));
        let priorities = priorities(&snapshot);
        let pins = PinIndex::compile(&snapshot, before.map(|before| &before.pins));
        let aliases = AliasIndex::compile(&snapshot);
        Ok(Self {
            snapshot,
            engine,
            keys,
            tokens,
            certificates,
            quotas,
            prices,
            guards,
            switches,
            pins,
            aliases,
            inference,
            plugin_facts,
            priorities,
        })
    }

    /// What this was compiled from.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// Whether a bearer token is for the identity providers to judge, and no key of ours.
    pub(super) fn is_of_provider(&self, token: &str) -> bool {
        is_jwt(token) && self.tokens.has_any() && !self.keys.knows(token)
    }

    /// The revision.
    pub fn revision(&self) -> Revision {
        self.snapshot.revision
    }

    pub(super) fn plugin_facts(&self, tenant: &Name, plugin: &Name) -> PluginFacts {
        self.plugin_facts.get(&(tenant.clone(), plugin.clone())).cloned().unwrap_or_default()
    }

    /// Whose calls are refused first when there are too many.
    pub(super) fn priority(&self, principal: &PrincipalRef) -> Priority {
        self.priorities.get(principal).copied().unwrap_or_default()
    }

    /// Whether the plugin is the `inference` built-in, behind whose tools stand models.
    pub(super) fn is_inference(&self, tenant: &Name, plugin: &Name) -> bool {
        self.inference.get(tenant).is_some_and(|plugins| plugins.contains(plugin))
    }

    /// Whether a tenant sees a model: one that is declared for others is not there for it.
    pub(super) fn sees_model(&self, tenant: &Name, model: &str) -> bool {
        let Ok(name) = Name::new(model) else { return true };
        let key = ResourceKey { kind: Kind::Model, tenant: None, name };
        match self.snapshot.get(&key).map(|resource| &resource.spec) {
            Some(Spec::Model(spec)) => spec.is_seen_by(tenant.as_str()),
            _ => true,
        }
    }

    /// The tenant's plugins in order of name.
    pub(super) fn plugins(&self, tenant: &Name) -> Vec<Name> {
        self.snapshot.of_tenant(Kind::Plugin, tenant).map(|p| p.metadata.name.clone()).collect()
    }
}

/// What records say of each plugin. Those of documents that `before` holds too are taken over.
fn plugin_facts(snapshot: &Snapshot, before: Option<&Compiled>) -> HashMap<(Name, Name), PluginFacts> {
    let of = |plugin: &Arc<Resource>| {
        let key = (plugin.metadata.tenant.clone()?, plugin.metadata.name.clone());
        let kept = before.filter(|before| {
            let old = before.snapshot.get(&plugin.key());
            old.is_some_and(|old| Arc::ptr_eq(old, plugin))
        });
        if let Some(facts) = kept.and_then(|before| before.plugin_facts.get(&key)) {
            return Some((key, facts.clone()));
        }
        let digest = Some(recorded_digest(plugin));
        let secrets = match &plugin.spec {
            Spec::Plugin(spec) => {
                let names = secrets_of(spec).into_iter().map(|name| name.to_string());
                // No secret has such a name: what the caller consented to.
                names.chain(acts_for_users(spec).then(|| "connection/own".to_owned())).collect()
            }
            _ => Arc::default(),
        };
        Some((key, PluginFacts { digest, secrets }))
    };
    snapshot.of_kind(Kind::Plugin).filter_map(of).collect()
}

fn priorities(snapshot: &Snapshot) -> HashMap<PrincipalRef, Priority> {
    let of = |resource: &Arc<Resource>| match (&resource.metadata.tenant, &resource.spec) {
        (Some(tenant), Spec::Principal(spec)) if !spec.priority.is_normal() => {
            let principal = PrincipalRef { tenant: tenant.clone(), name: resource.metadata.name.clone() };
            Some((principal, spec.priority))
        }
        _ => None,
    };
    snapshot.of_kind(Kind::Principal).filter_map(of).collect()
}

fn inference_plugins(snapshot: &Snapshot) -> HashMap<Name, Vec<Name>> {
    let mut by_tenant: HashMap<Name, Vec<Name>> = HashMap::new();
    for resource in snapshot.of_kind(Kind::Plugin) {
        if let (Some(tenant), Spec::Plugin(spec)) = (&resource.metadata.tenant, &resource.spec)
            && matches!(&spec.source, PluginSource::Builtin(builtin) if builtin.name == "inference")
        {
            by_tenant.entry(tenant.clone()).or_default().push(resource.metadata.name.clone());
        }
    }
    by_tenant
}
