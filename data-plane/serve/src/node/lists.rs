//! Lists and discovery: what the plugins of a route offer, filtered by what the caller may use.
//!
//! On the merged route an upstream that cannot be reached leaves its part out (and a line in the
//! log); on a plugin's own route its error is the answer. One that does not answer in [`MERGED_PATIENCE`] has the
//! part that was fetched last, or none: nobody waits for the slowest of all, and who listens hears when it came.

use std::{sync::Arc, time::Duration};

use futures::future::{join, join_all};
use provost_data_pipeline::{Call, Caller, Execution, Intended, Operation, Plane, Route};
use provost_data_tools::{
    Definition, Definitions, ListKind, Plugin, ServerFacts, Toolbox, UpstreamError,
    names::{self, ResourceIndex},
};
use provost_mcp::{RawJson, RawObject, RpcError, array_of};
use provost_types::{Action, Name};
use serde_json::{Map, Value, json};

use super::{compiled::Compiled, plane::Node};

/// How long a list of several plugins, or what is said of all of them, waits for one of them. A process that is
/// just being started, or a server far away, answers in it; a client's own patience is longer.
const MERGED_PATIENCE: Duration = Duration::from_secs(5);

/// Which list: its member in the result, the action that makes an item visible.
#[derive(Clone, Copy)]
enum List {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl List {
    fn of(operation: &Operation) -> Option<Self> {
        Some(match operation {
            Operation::ListTools => Self::Tools,
            Operation::ListPrompts => Self::Prompts,
            Operation::ListResources => Self::Resources,
            Operation::ListResourceTemplates => Self::Templates,
            _ => return None,
        })
    }

    fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The member of an item that names it.
    fn name_member(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    fn action(self) -> Action {
        match self {
            Self::Tools => Action::CallTool,
            Self::Prompts => Action::GetPrompt,
            Self::Resources | Self::Templates => Action::ReadResource,
        }
    }

    fn kind(self) -> ListKind {
        match self {
            Self::Tools => ListKind::Tools,
            Self::Prompts => ListKind::Prompts,
            Self::Resources => ListKind::Resources,
            Self::Templates => ListKind::Templates,
        }
    }

    /// The list; of a plugin that was stopped what is at hand. `hurried`: waited for no longer than
    /// [`MERGED_PATIENCE`], and told there if it comes later.
    async fn fetch(
        self,
        plugin: &Arc<Plugin>,
        is_stopped: bool,
        hurried: Option<&Arc<Toolbox>>,
    ) -> Result<Definitions, UpstreamError> {
        if is_stopped {
            return Ok(plugin.at_hand(self.kind()));
        }
        if let Some(toolbox) = hurried {
            let toolbox = toolbox.clone();
            return plugin.list_within(self.kind(), MERGED_PATIENCE, move || toolbox.tell_change()).await;
        }
        match self {
            Self::Tools => plugin.tools().await,
            Self::Prompts => plugin.prompts().await,
            Self::Resources => plugin.resources().await,
            Self::Templates => plugin.resource_templates().await,
        }
    }
}

/// Whether the operation is answered from lists rather than by one plugin.
pub(super) fn is_list(operation: &Operation) -> bool {
    List::of(operation).is_some() || matches!(operation, Operation::Discover | Operation::ListModels)
}

/// Answers a list.
pub(super) async fn answer(node: &Node, compiled: &Arc<Compiled>, call: &Call<Intended>) -> Execution {
    let view = View::new(node, compiled, call);
    let outcome = match &call.request().operation {
        Operation::Discover => view.discover().await,
        Operation::ListModels => Ok(view.models()),
        other => match List::of(other) {
            Some(list) => view.list(list).await,
            None => Err(RpcError::new(RpcError::METHOD_NOT_FOUND, "not a list")),
        },
    };
    match outcome {
        Ok(body) => Execution::result(body, false),
        Err(error) => Execution::error(error),
    }
}

pub(super) struct View<'a> {
    pub(super) node: &'a Node,
    pub(super) compiled: &'a Arc<Compiled>,
    pub(super) caller: &'a Caller,
    route: &'a Route,
}

/// The plugins behind a route, in order of name.
pub(super) fn plugins(node: &Node, compiled: &Compiled, tenant: &Name, route: &Route) -> Vec<(Name, Arc<Plugin>)> {
    let names = match route {
        Route::Merged => compiled.plugins(tenant),
        Route::Plugin(plugin) => vec![plugin.clone()],
    };
    names.into_iter().filter_map(|name| Some((name.clone(), node.toolbox.plugin(tenant, name.as_str())?))).collect()
}

/// Which plugin each URI belongs to. A plugin that cannot be reached has none.
pub(super) async fn resource_index(
    compiled: &Compiled,
    tenant: &Name,
    plugins: &[(Name, Arc<Plugin>)],
) -> ResourceIndex {
    // Whose a URI is must not depend on who answers fast.
    index_within(compiled, tenant, plugins, None).await
}

async fn index_within(
    compiled: &Compiled,
    tenant: &Name,
    plugins: &[(Name, Arc<Plugin>)],
    hurried: Option<&Arc<Toolbox>>,
) -> ResourceIndex {
    let fetched = join_all(plugins.iter().map(|(name, plugin)| async move {
        let is_stopped = compiled.switches.stops_plugin(tenant, name.as_str());
        let resources = List::Resources.fetch(plugin, is_stopped, hurried);
        let (resources, templates) = join(resources, List::Templates.fetch(plugin, is_stopped, hurried)).await;
        (name.clone(), (resources.unwrap_or_default(), templates.unwrap_or_default()))
    }));
    ResourceIndex::new(&fetched.await.into_iter().collect())
}

impl<'a> View<'a> {
    /// The call's.
    pub(super) fn new(node: &'a Node, compiled: &'a Arc<Compiled>, call: &'a Call<Intended>) -> Self {
        Self { node, compiled, caller: call.caller(), route: &call.request().route }
    }

    pub(super) fn plugins(&self) -> Vec<(Name, Arc<Plugin>)> {
        plugins(self.node, self.compiled, &self.caller.principal.tenant, self.route)
    }

    /// Whether the plugin is stopped for everybody here.
    fn is_stopped(&self, plugin: &Name) -> bool {
        self.compiled.switches.stops_plugin(&self.caller.principal.tenant, plugin.as_str())
    }

    pub(super) async fn resource_index(&self, plugins: &[(Name, Arc<Plugin>)]) -> ResourceIndex {
        resource_index(self.compiled, &self.caller.principal.tenant, plugins).await
    }

    fn is_merged(&self) -> bool {
        matches!(self.route, Route::Merged)
    }

    /// Whether one plugin may not keep what is said of all of them waiting; on its own route there are no others.
    fn hurried(&self) -> Option<&'a Arc<Toolbox>> {
        self.is_merged().then_some(&self.node.toolbox)
    }

    async fn list(&self, list: List) -> Result<RawJson, RpcError> {
        let plugins = self.plugins();
        let hurried = self.hurried();
        let lists = join_all(plugins.iter().map(|(name, plugin)| list.fetch(plugin, self.is_stopped(name), hurried)));
        let index = async {
            match list {
                List::Resources | List::Templates if self.is_merged() => {
                    let tenant = &self.caller.principal.tenant;
                    Some(index_within(self.compiled, tenant, &plugins, hurried).await)
                }
                _ => None,
            }
        };
        let (fetched, index) = join(lists, index).await;
        let mut items = Vec::new();
        for ((name, plugin), definitions) in plugins.iter().zip(&fetched) {
            let definitions = match definitions.clone() {
                Ok(definitions) if matches!(list, List::Tools) => self.node.served(self.compiled, plugin, definitions),
                Ok(definitions) => definitions,
                Err(cause) if self.is_merged() => {
                    tracing::warn!(plugin = %name, %cause, "left out of {}", list.member());
                    continue;
                }
                Err(cause) => return Err(cause.to_rpc(name.as_str())),
            };
            items.extend(definitions.iter().filter_map(|d| self.item(list, name, d, index.as_ref())));
        }
        if matches!((list, self.route), (List::Tools, Route::Merged)) {
            items.extend(self.aliases(&plugins, &fetched));
        }
        let mut body = RawObject::new();
        body.set(list.member(), array_of(&items));
        Ok(body.finish())
    }

    /// The tenant's aliases, each with the definition of the version that the caller gets.
    fn aliases(&self, plugins: &[(Name, Arc<Plugin>)], fetched: &[Result<Definitions, UpstreamError>]) -> Vec<RawJson> {
        let (principal, now_ns) = (&self.caller.principal, self.node.now_ns());
        let shown = self.compiled.aliases.of(&principal.tenant).filter_map(|(name, alias)| {
            let full = alias.target(name, principal);
            let at = |plugin: &str| plugins.iter().position(|(own, _)| own.as_str() == plugin);
            let (plugin, local) = names::split(full, |plugin| at(plugin).is_some())?;
            let place = at(plugin)?;
            let definition = fetched[place].as_ref().ok()?.named(local)?;
            let plugin = &plugins[place].0;
            let target = (Action::CallTool, Some(plugin.as_str()), full);
            let is_shown = !alias.is_retired(now_ns)
                && self.node.may_see(self.compiled, self.caller, target)
                && self.node.is_served(self.compiled, &principal.tenant, plugin, local).is_ok();
            is_shown.then(|| alias.definition(name, &definition.raw, now_ns)).flatten()
        });
        shown.collect()
    }

    /// The definition under the name that this route gives it, if the caller may see it.
    fn item(
        &self,
        list: List,
        plugin: &Name,
        definition: &Definition,
        index: Option<&ResourceIndex>,
    ) -> Option<RawJson> {
        let own = &definition.name;
        let full = match (list, index) {
            (List::Tools | List::Prompts, _) => names::join(plugin, own),
            (List::Resources, Some(index)) => index.shown_resource(plugin, own),
            (List::Templates, Some(index)) => index.shown_template(plugin, own),
            (_, None) => own.clone(),
        };
        // Policy knows a resource by its upstream's URI, however it is shown.
        let known_by = match list {
            List::Tools | List::Prompts => full.as_str(),
            List::Resources | List::Templates => own.as_str(),
        };
        let target = (list.action(), Some(plugin.as_str()), known_by);
        if !self.node.may_see(self.compiled, self.caller, target) {
            return None;
        }
        if self.is_merged() && full != *own {
            Some(names::rename(&definition.raw, list.name_member(), &full))
        } else {
            Some(definition.raw.clone())
        }
    }

    fn models(&self) -> RawJson {
        let models = self.node.inference.models();
        let data: Vec<Value> = models
            .iter()
            .filter(|m| {
                let target = (Action::UseModel, None, m.name.as_str());
                let tenant = &self.caller.principal.tenant;
                self.compiled.sees_model(tenant, &m.name)
                    && self.node.inference.is_seen_by(&m.name, tenant.as_str())
                    && self.node.may_see(self.compiled, self.caller, target)
            })
            .map(|m| {
                json!({
                    "id": m.name, "object": "model", "created": m.created, "owned_by": "provost",
                    "kind": m.kind, "architecture": m.architecture,
                    "context_tokens": m.context_tokens, "dimensions": m.dimensions,
                })
            })
            .collect();
        RawJson::from(json!({ "object": "list", "data": data }))
    }

    /// One plugin speaks for itself; many are introduced by us with what any of them can do.
    async fn discover(&self) -> Result<RawJson, RpcError> {
        let mut plugins = self.plugins();
        plugins.retain(|(name, _)| !self.is_stopped(name));
        let is_merged = self.is_merged();
        let found = join_all(plugins.iter().map(|(_, plugin)| async move {
            if is_merged { plugin.capabilities_within(MERGED_PATIENCE).await } else { plugin.capabilities().await }
        }));
        let found = found.await;
        if let Route::Plugin(name) = self.route {
            return match found.into_iter().next() {
                Some(Ok(facts)) => Ok(introduction(&facts)),
                Some(Err(cause)) => Err(cause.to_rpc(name.as_str())),
                None => Err(RpcError::new(RpcError::INVALID_PARAMS, format!("there is no plugin {name} here"))),
            };
        }
        let mut capabilities = Map::new();
        for facts in found.into_iter().flatten() {
            if let Ok(Value::Object(theirs)) = with_changes(&facts.capabilities).parse() {
                merge(&mut capabilities, &theirs);
            }
        }
        Ok(RawJson::from(json!({
            "capabilities": capabilities,
            "serverInfo": {
                "name": "provost",
                "title": "Provost",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "instructions":
                "Tools and prompts are named plugin.name. Lists show what you may use.",
        })))
    }
}

/// What one plugin says of itself.
fn introduction(facts: &ServerFacts) -> RawJson {
    let mut body = RawObject::new();
    body.set("capabilities", with_changes(&facts.capabilities));
    if let Some(info) = &facts.server_info {
        body.set("serverInfo", info.clone());
    }
    if let Some(instructions) = &facts.instructions {
        body.set_text("instructions", instructions);
    }
    body.finish()
}

/// Tools come and go by quarantine and approval, whether their server tells of changes or not.
fn with_changes(capabilities: &RawJson) -> RawJson {
    let Ok(mut object) = RawObject::parse(capabilities) else { return capabilities.clone() };
    let Some(mut tools) = object.get_object("tools") else { return capabilities.clone() };
    tools.set("listChanged", RawJson::from(Value::Bool(true)));
    object.set("tools", tools.finish());
    object.finish()
}

/// The union: a capability that any plugin has; flags are true where any says so.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(mine)), Value::Object(theirs)) => merge(mine, theirs),
            (Some(Value::Bool(mine)), Value::Bool(theirs)) => *mine |= theirs,
            (Some(_), _) => {}
            (None, _) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_united() {
        let parse = |v: Value| v.as_object().cloned().unwrap_or_default();
        let mut all = parse(json!({ "tools": { "listChanged": false } }));
        merge(&mut all, &parse(json!({ "tools": { "listChanged": true }, "logging": {} })));
        merge(&mut all, &parse(json!({ "tools": {} })));
        let expect = json!({ "tools": { "listChanged": true }, "logging": {} });
        assert_eq!(Value::Object(all), expect);
        let told = |v: Value| with_changes(&RawJson::from(v)).parse::<Value>().unwrap_or_default();
        assert_eq!(told(json!({ "tools": {}, "x": 1 })), json!({ "tools": { "listChanged": true }, "x": 1 }));
        assert_eq!(told(json!({ "prompts": {} })), json!({ "prompts": {} }));
    }
}
