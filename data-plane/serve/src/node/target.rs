//! From what the caller named to what it is: plugin, local name, full name, action.

use std::sync::Arc;

use provost_data_pipeline::{
    Authenticated, Call, Caller, Found, Operation, Plane, Rejection, RejectionKind, Route, Target,
};
use provost_data_tools::{Plugin, names};
use provost_types::{Action, Name};

use super::{
    compiled::{Compiled, PluginFacts},
    lists, nested,
    plane::Node,
    step_up,
};

/// Finds what an operation touches. What the caller may not see is not found.
pub(super) async fn resolve(
    node: &Node,
    compiled: &Arc<Compiled>,
    call: &Call<Authenticated>,
) -> Result<Target, Rejection> {
    let request = call.request();
    let finder = Finder { node, compiled, caller: call.caller(), route: &request.route };
    if let Some(within) = &request.within {
        nested::count(within)?;
        if let Operation::CallTool(name) = &request.operation {
            nested::check_grant(within, &finder.full_name(name), name)?;
        }
    }
    match &request.operation {
        Operation::CallTool(name) => finder.tool(name).await,
        Operation::GetPrompt(name) | Operation::Complete { is_prompt: true, target: name } => finder.prompt(name).await,
        Operation::ReadResource(uri)
        | Operation::Subscribe(uri)
        | Operation::Unsubscribe(uri)
        | Operation::Complete { is_prompt: false, target: uri } => finder.resource(uri).await,
        Operation::Task { task, .. } => finder.task(task),
        Operation::Chat(model) | Operation::Embed(model) | Operation::Transcribe(model) => finder.model(model),
        Operation::Discover
        | Operation::ListTools
        | Operation::ListPrompts
        | Operation::ListResources
        | Operation::ListResourceTemplates
        | Operation::ListModels
        | Operation::SetLogLevel
        | Operation::Listen => finder.whole_route(),
    }
}

struct Finder<'a> {
    node: &'a Node,
    compiled: &'a Arc<Compiled>,
    caller: &'a Caller,
    route: &'a Route,
}

impl Finder<'_> {
    fn tenant(&self) -> &Name {
        &self.caller.principal.tenant
    }

    /// Whether the plugin is stopped: nothing is asked of its upstream, and the call is refused next.
    fn is_stopped(&self, plugin: Option<&Name>) -> bool {
        plugin.is_some_and(|plugin| self.compiled.switches.stops_plugin(self.tenant(), plugin.as_str()))
    }

    fn plugin(&self, name: &Name) -> Option<Arc<Plugin>> {
        self.node.toolbox.plugin(self.tenant(), name.as_str())
    }

    /// Plugin and local name of a tool or prompt; `None` when no such plugin exists.
    fn split(&self, name: &str) -> Option<(Arc<Plugin>, Name, String)> {
        let (plugin, local) = match self.route {
            Route::Plugin(plugin) => (plugin.clone(), name),
            Route::Merged => {
                let exists = |text: &str| Name::new(text).is_ok_and(|plugin| self.plugin(&plugin).is_some());
                let (plugin, local) = names::split(name, exists)?;
                (Name::new(plugin).ok()?, local)
            }
        };
        let found = self.plugin(&plugin)?;
        Some((found, plugin, local.to_owned()))
    }

    /// The full name of the tool that is meant, whether there is one or not. What stands behind an alias is meant by it.
    fn full_name(&self, name: &str) -> String {
        if let Some((_, plugin, local)) = self.split(name) {
            return names::join(&plugin, &local);
        }
        let alias = match self.route {
            Route::Merged => self.compiled.aliases.find(self.tenant(), name),
            Route::Plugin(_) => None,
        };
        alias.map_or(name, |alias| alias.target(name, &self.caller.principal)).to_owned()
    }

    fn target(&self, running: &Arc<Plugin>, plugin: Name, (local, full): (String, String), action: Action) -> Target {
        let PluginFacts { secrets, .. } = self.compiled.plugin_facts(self.tenant(), &plugin);
        let (plugin_digest, found) = (None, Found::default());
        let target = Target { plugin: Some(plugin), local, full, action: Some(action), plugin_digest, secrets, found };
        served_by(target, running)
    }

    /// Invisible is the same as absent, in words and code. What a caller could see with a further scope of its
    /// provider goes on to be denied by policy, so that the caller learns which.
    fn check_visible(&self, target: Target, unknown: impl FnOnce() -> Rejection) -> Result<Target, Rejection> {
        let Some(action) = target.action else { return Ok(target) };
        let plugin = target.plugin.as_ref().map(Name::as_str);
        let object = (action, plugin, target.full.as_str());
        let seen = self.node.may_see(self.compiled, self.caller, object)
            || step_up::could_see(self.node, self.compiled, self.caller, object);
        if seen { Ok(target) } else { Err(unknown()) }
    }

    async fn tool(&self, name: &str) -> Result<Target, Rejection> {
        let unknown = || not_found("PV-TOOL-UNKNOWN", format!("Unknown tool: {name}"));
        let (plugin, plugin_name, local) = match self.split(name) {
            Some(found) => found,
            None => self.aliased(name)?.ok_or_else(unknown)?,
        };
        let full = names::join(&plugin_name, &local);
        let target = self.target(&plugin, plugin_name, (local, full), Action::CallTool);
        let target = self.check_visible(target, unknown)?;
        if self.is_stopped(target.plugin.as_ref()) {
            return Ok(target);
        }
        match plugin.tools().await {
            Ok(tools) if tools.named(&target.local).is_some() => {
                self.node.note_tools(self.compiled, &plugin, &tools);
                // The list of a component may have been waited for.
                Ok(if plugin.has_guest() { served_by(target, &plugin) } else { target })
            }
            Ok(_) => Err(unknown()),
            // The call itself will say what is wrong with the upstream.
            Err(_) => Ok(target),
        }
    }

    /// The version that stands behind an alias for this caller; `None`: there is no alias, or nothing behind it.
    fn aliased(&self, name: &str) -> Result<Option<(Arc<Plugin>, Name, String)>, Rejection> {
        let alias = match self.route {
            Route::Merged => self.compiled.aliases.find(self.tenant(), name),
            Route::Plugin(_) => None,
        };
        let Some(alias) = alias else { return Ok(None) };
        if alias.is_retired(self.node.now_ns()) {
            return Err(alias.retired(name));
        }
        Ok(self.split(alias.target(name, &self.caller.principal)))
    }

    async fn prompt(&self, name: &str) -> Result<Target, Rejection> {
        let unknown = || not_found("PV-PROMPT-UNKNOWN", format!("Unknown prompt: {name}"));
        let (plugin, plugin_name, local) = self.split(name).ok_or_else(unknown)?;
        let full = names::join(&plugin_name, &local);
        let target = self.target(&plugin, plugin_name, (local, full), Action::GetPrompt);
        let target = self.check_visible(target, unknown)?;
        if self.is_stopped(target.plugin.as_ref()) {
            return Ok(target);
        }
        match plugin.prompts().await {
            Ok(prompts) if prompts.named(&target.local).is_some() => {
                Ok(if plugin.has_guest() { served_by(target, &plugin) } else { target })
            }
            Ok(_) => Err(unknown()),
            Err(_) => Ok(target),
        }
    }

    /// A resource has one name on every route and in every form that it is asked for by: its upstream's URI. By any
    /// other, what policy says of it could be passed by.
    async fn resource(&self, uri: &str) -> Result<Target, Rejection> {
        let unknown = || not_found("PV-RESOURCE-UNKNOWN", format!("Resource not found: {uri}"));
        let (plugin, local) = match self.route {
            Route::Plugin(plugin) => (plugin.clone(), uri.to_owned()),
            Route::Merged => {
                let plugins = lists::plugins(self.node, self.compiled, self.tenant(), self.route);
                let index = Box::pin(lists::resource_index(self.compiled, self.tenant(), &plugins)).await;
                index.route(uri).ok_or_else(unknown)?
            }
        };
        let running = self.plugin(&plugin).ok_or_else(unknown)?;
        let target = self.target(&running, plugin, (local.clone(), local), Action::ReadResource);
        self.check_visible(target, unknown)
    }

    /// A task was made by a tool call that policy admitted. Its handle is bound to that call's principal: to all
    /// others there is no such task.
    fn task(&self, task: &str) -> Result<Target, Rejection> {
        let unknown = || not_found("PV-TASK-UNKNOWN", format!("Unknown task: {task}"));
        if task.is_empty() {
            return self.whole_route();
        }
        // A handle carries its plugin on every route: `plugin.ID`.
        let bare = match self.route {
            Route::Plugin(plugin) => task.strip_prefix(plugin.as_str()).and_then(|rest| rest.strip_prefix('.')),
            Route::Merged => Some(task),
        };
        let (_, plugin, handle) = bare.and_then(|bare| self.split(bare)).ok_or_else(unknown)?;
        let local = self.node.tasks.open(&self.caller.principal, &plugin, &handle).ok_or_else(unknown)?;
        let PluginFacts { digest, secrets } = self.compiled.plugin_facts(self.tenant(), &plugin);
        let (full, found) = (task.to_owned(), Found::default());
        Ok(Target { plugin: Some(plugin), local, full, action: None, plugin_digest: digest, secrets, found })
    }

    fn model(&self, model: &str) -> Result<Target, Rejection> {
        let unknown =
            || not_found("PV-MODEL-UNKNOWN", format!("Unknown model: {model}; /v1/models lists those you may use"));
        let target = Target {
            plugin: None,
            local: model.to_owned(),
            full: model.to_owned(),
            action: Some(Action::UseModel),
            plugin_digest: None,
            secrets: Arc::default(),
            found: Found::default(),
        };
        let target = self.check_visible(target, unknown)?;
        // What is declared; and what is over it, which the nodes know.
        let tenant = self.tenant();
        if !self.compiled.sees_model(tenant, model) || !self.node.inference.is_seen_by(model, tenant.as_str()) {
            return Err(unknown());
        }
        let exists = self.node.inference.models().iter().any(|m| m.name == model);
        if exists { Ok(target) } else { Err(unknown()) }
    }

    /// Operations on everything behind a route: the plugin must exist where one is named.
    fn whole_route(&self) -> Result<Target, Rejection> {
        let plugin = match self.route {
            Route::Merged => None,
            Route::Plugin(plugin) => {
                if self.plugin(plugin).is_none() {
                    return Err(not_found("PV-PLUGIN-UNKNOWN", format!("there is no plugin {plugin} here")));
                }
                Some(plugin.clone())
            }
        };
        let (local, full, found) = (String::new(), String::new(), Found::default());
        Ok(Target { plugin, local, full, action: None, plugin_digest: None, secrets: Arc::default(), found })
    }
}

/// While a version is made ready, the one before it serves. What serves when a call is resolved does so to its end, and is
/// what its records name.
fn served_by(mut target: Target, running: &Arc<Plugin>) -> Target {
    let serving = running.stand_in().unwrap_or_else(|| running.clone());
    target.plugin_digest = Some(serving.recorded_digest().clone());
    target.found = Found::new(serving);
    target
}

fn not_found(code: &'static str, message: String) -> Rejection {
    Rejection::new(RejectionKind::NotFound, code, message)
}
