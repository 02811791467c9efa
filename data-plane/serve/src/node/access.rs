//! What policy says of a call: the same for calls that are served and for calls that are looked at later.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use provost_data_policy::{AccessRequest, Explanation, Facts, PolicyEngine, PolicyProblem, SqlFacts, Unknown};
use provost_data_tools::sql::{self, Dialect};
use provost_mcp::{RawJson, RawObject};
use provost_types::{Action, Decision, Kind, Name, PluginSource, PrincipalRef, Snapshot, Spec};

use super::aliases::AliasIndex;

/// Decides. A model behind a tool is the same model: both the tool and the model must be permitted.
pub(super) fn decide(engine: &PolicyEngine, request: &AccessRequest<'_>, is_inference: bool, now_ns: u64) -> Decision {
    let decision = engine.decide(request, now_ns);
    match model(request, is_inference) {
        Some(model) if decision.is_allow() => {
            let of_model = engine.decide(&of_model(request, &model), now_ns);
            if of_model.is_allow() { join(decision, of_model) } else { of_model }
        }
        _ => decision,
    }
}

fn model(request: &AccessRequest<'_>, is_inference: bool) -> Option<String> {
    let arguments = request.facts.arguments.filter(|_| is_inference)?;
    // Cut out of parameters that were checked when they arrived.
    let arguments = RawJson::from_checked(Bytes::copy_from_slice(arguments.as_bytes()));
    RawObject::parse(&arguments).ok()?.get_text("model")
}

fn of_model<'a>(request: &AccessRequest<'a>, model: &'a str) -> AccessRequest<'a> {
    AccessRequest { action: Action::UseModel, plugin: None, target: model, ..*request }
}

/// Both decisions allow: what made each so.
fn join(mut tool: Decision, model: Decision) -> Decision {
    for id in model.policies {
        if !tool.policies.contains(&id) {
            tool.policies.push(id);
        }
    }
    tool.observed.extend(model.observed);
    tool
}

/// Policy as nodes run it at one revision, for calls that are looked at and not served.
#[derive(Debug)]
pub struct Judge {
    engine: PolicyEngine,
    plugins: HashMap<(Name, Name), Served>,
    by_tenant: BTreeMap<Name, Vec<Name>>,
    aliases: AliasIndex,
}

/// What a plugin is, as far as decisions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Inference,
    Sql(Option<Dialect>),
    Other,
}

/// A call that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Caller, object and facts; the SQL facts are filled in here.
    pub access: AccessRequest<'a>,
    /// What of the facts is not known.
    pub unknown: Unknown,
    /// When, nanoseconds since the Unix epoch.
    pub at_ns: u64,
}

impl Judge {
    /// Compiles a state with the compiler that nodes run.
    pub fn new(snapshot: &Snapshot) -> Result<Self, Vec<PolicyProblem>> {
        let engine = PolicyEngine::compile(snapshot)?;
        let (mut plugins, mut by_tenant) = (HashMap::new(), BTreeMap::<Name, Vec<Name>>::new());
        for resource in snapshot.of_kind(Kind::Plugin) {
            let (Some(tenant), Spec::Plugin(spec)) = (&resource.metadata.tenant, &resource.spec) else { continue };
            let served = match &spec.source {
                PluginSource::Builtin(builtin) => match builtin.name.as_str() {
                    "inference" => Served::Inference,
                    "sql" => Served::Sql(builtin.config.get("url").and_then(|url| Dialect::of_url(url))),
                    _ => Served::Other,
                },
                _ => Served::Other,
            };
            plugins.insert((tenant.clone(), resource.metadata.name.clone()), served);
            by_tenant.entry(tenant.clone()).or_default().push(resource.metadata.name.clone());
        }
        Ok(Self { engine, plugins, by_tenant, aliases: AliasIndex::compile(snapshot) })
    }

    /// The compiled policies.
    pub fn engine(&self) -> &PolicyEngine {
        &self.engine
    }

    /// Whether the tenant has this plugin.
    pub fn has_plugin(&self, tenant: &Name, plugin: &str) -> bool {
        self.by_tenant.get(tenant).is_some_and(|plugins| plugins.iter().any(|p| p.as_str() == plugin))
    }

    /// The tool that this caller gets by an alias, or why the name cannot be used any more; `None`: there is no alias of
    /// that name.
    pub fn behind_alias(&self, caller: &PrincipalRef, name: &str, at_ns: u64) -> Option<Result<String, String>> {
        let alias = self.aliases.find(&caller.tenant, name)?;
        Some(match alias.is_retired(at_ns) {
            true => Err(alias.retired(name).error.message),
            false => Ok(alias.target(name, caller).to_owned()),
        })
    }

    /// The decision; `None`: it depends on what is not known.
    pub fn decide(&self, question: &Question<'_>) -> Option<Decision> {
        let Question { access, unknown, at_ns } = question;
        let served = self.served(access);
        if unknown.arguments {
            let decision = self.engine.decide_without(access, *unknown, *at_ns)?;
            // Which model it is, is an argument.
            return (served != Served::Inference || !decision.is_allow()).then_some(decision);
        }
        let sql = self.sql_facts(access, served);
        let facts = Facts { sql: sql.as_ref(), ..*access.facts };
        let access = AccessRequest { facts: &facts, ..*access };
        let is_inference = served == Served::Inference;
        if !unknown.address {
            return Some(decide(&self.engine, &access, is_inference, *at_ns));
        }
        let decision = self.engine.decide_without(&access, *unknown, *at_ns)?;
        match model(&access, is_inference) {
            Some(model) if decision.is_allow() => {
                let of_model = self.engine.decide_without(&of_model(&access, &model), *unknown, *at_ns)?;
                Some(if of_model.is_allow() { join(decision, of_model) } else { of_model })
            }
            _ => Some(decision),
        }
    }

    /// Why it is decided so: of what was named, and of the model behind it where there is one.
    pub fn explain(&self, question: &Question<'_>) -> (Explanation, Option<Explanation>) {
        let access = &question.access;
        let served = self.served(access);
        let sql = self.sql_facts(access, served);
        let facts = Facts { sql: sql.as_ref(), ..*access.facts };
        let access = AccessRequest { facts: &facts, ..*access };
        let model = model(&access, served == Served::Inference);
        let of_model = model.map(|model| self.engine.explain(&of_model(&access, &model), question.at_ns));
        (self.engine.explain(&access, question.at_ns), of_model)
    }

    fn served(&self, access: &AccessRequest<'_>) -> Served {
        let key = access.plugin.and_then(|p| Name::new(p).ok()).map(|p| (access.tenant.clone(), p));
        key.and_then(|key| self.plugins.get(&key)).copied().unwrap_or(Served::Other)
    }

    /// As the plugin makes them for a call that it serves.
    fn sql_facts(&self, access: &AccessRequest<'_>, served: Served) -> Option<SqlFacts> {
        let (Served::Sql(Some(dialect)), Action::CallTool) = (served, access.action) else { return None };
        let arguments = serde_json::from_str(access.facts.arguments?).ok()?;
        let local = access.target.strip_prefix(access.plugin?)?.strip_prefix('.')?;
        // A text that cannot be parsed has no facts; the plugin refuses it.
        sql::facts(dialect, local, &arguments).ok()?
    }
}
