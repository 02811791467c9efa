//! Subscriptions: what the plugins of a route announce, and what this node itself changes of their lists.
//!
//! Invariants: a listener hears of what it may see; a plugin that is replaced is taken up again, and one that is new
//! is heard too; quarantine and approval, and a plugin that comes, goes or has another version, are told like a change
//! that a server tells of, in both eras.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, future::join3, stream::FuturesUnordered};
use provost_data_pipeline::{Call, ClientLink, Execution, Intended, Operation, Route};
use provost_data_tools::{ListenEnd, ListenFilter, names::ResourceIndex};
use provost_mcp::RawJson;
use provost_types::{Action, Name};

use super::{
    compiled::Compiled,
    lists::View,
    plane::Node,
    run::execute_request,
    tasks::{CallHandles, TaskLink},
};

/// What is said of a list that is not what it was.
const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";

/// Streams what the plugins of the route announce, until the caller is gone. A plugin that is
/// replaced is taken up again under its new form.
pub(super) async fn listen(
    node: &Node,
    compiled: &Arc<Compiled>,
    call: &Call<Intended>,
    link: &dyn ClientLink,
) -> Execution {
    let view = View::new(node, compiled, call);
    let wanted = match &call.request().client.session {
        Some(_) => ListenFilter::legacy(),
        None => ListenFilter::from_params(call.params()),
    };
    let plugins = view.plugins();
    let index = match call.request().route {
        Route::Merged => Some(view.resource_index(&plugins).await),
        Route::Plugin(_) => None,
    };
    let to_plugins = listen_to_all(node, &view, &wanted, index.as_ref(), call, link);
    let (tenant, route) = (&call.caller().principal.tenant, &call.request().route);
    let of_tools = tell_of_tools(node, tenant, route, wanted.tools, link);
    // Who waits for the end has begun, as the link understands it: first what changes here is listened for, then plugins
    // are listened to, who wait for the end too.
    let all = join3(of_tools, tell_of_plugins(node, tenant, route, &wanted, link), to_plugins);
    let cancelled = async { link.cancelled().await };
    futures::pin_mut!(all, cancelled);
    match futures::future::select(all, cancelled).await {
        // No upstream has anything to say: the stream stays open until the caller ends it.
        futures::future::Either::Left((_, cancelled)) => cancelled.await,
        futures::future::Either::Right(_) => {}
    }
    Execution::result(RawJson::EMPTY_OBJECT, false)
}

impl View<'_> {
    /// The part of a filter that concerns one plugin: its own URIs, and of those what the caller
    /// may read.
    fn filter_for(&self, plugin: &Name, wanted: &ListenFilter, index: Option<&ResourceIndex>) -> ListenFilter {
        let uris = wanted
            .uris
            .iter()
            .filter_map(|uri| match index {
                None => Some(uri.clone()),
                Some(index) => index.route(uri).filter(|(owner, _)| owner == plugin).map(|(_, own)| own),
            })
            .filter(|own| {
                let target = (Action::ReadResource, Some(plugin.as_str()), own.as_str());
                self.node.may_see(self.compiled, self.caller, target)
            })
            .collect();
        ListenFilter { uris, ..wanted.clone() }
    }
}

/// Listens to each plugin of the route, also to those that come later.
async fn listen_to_all(
    node: &Node,
    view: &View<'_>,
    wanted: &ListenFilter,
    index: Option<&ResourceIndex>,
    call: &Call<Intended>,
    link: &dyn ClientLink,
) {
    let (tenant, route) = (&call.caller().principal.tenant, &call.request().route);
    let mut changes = node.toolbox.changes();
    let (mut streams, mut heard) = (FuturesUnordered::new(), BTreeSet::new());
    loop {
        changes.mark_unchanged();
        for name in names(node, tenant, route) {
            if heard.insert(name.clone()) {
                let filter = view.filter_for(&name, wanted, index);
                streams.push(async move {
                    listen_to(node, name.clone(), filter, call, link).await;
                    name
                });
            }
        }
        tokio::select! {
            Some(ended) = streams.next(), if !streams.is_empty() => {
                // One that is gone is heard again when it comes back; one that cannot be heard stays unheard.
                if node.toolbox.plugin(tenant, ended.as_str()).is_none() {
                    heard.remove(&ended);
                }
            }
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// The plugins of a route that run now.
fn names(node: &Node, tenant: &Name, route: &Route) -> Vec<Name> {
    match route {
        Route::Merged => node.toolbox.plugins(tenant).iter().map(|plugin| plugin.name().clone()).collect(),
        Route::Plugin(name) => node.toolbox.plugin(tenant, name.as_str()).map(|_| name.clone()).into_iter().collect(),
    }
}

/// Tells of plugins of the route that came or went, of versions that began to serve, and of lists that came after
/// they were given without, for as long as it is polled.
async fn tell_of_plugins(node: &Node, tenant: &Name, route: &Route, wanted: &ListenFilter, link: &dyn ClientLink) {
    let serving = || -> Vec<(Name, Arc<str>, bool, u64)> {
        let plugins =
            names(node, tenant, route).into_iter().filter_map(|name| node.toolbox.plugin(tenant, name.as_str()));
        let served = plugins.map(|plugin| {
            let stand_in = plugin.stand_in();
            let serving = stand_in.as_ref().unwrap_or(&plugin);
            (plugin.name().clone(), serving.digest().clone(), serving.serves(), plugin.lists_come_late())
        });
        served.collect()
    };
    let kinds =
        [(wanted.tools, TOOLS_CHANGED), (wanted.prompts, PROMPTS_CHANGED), (wanted.resources, RESOURCES_CHANGED)];
    let mut changes = node.toolbox.changes();
    let mut known = serving();
    while changes.changed().await.is_ok() {
        let now = serving();
        if now != known {
            known = now;
            for (_, notification) in kinds.iter().filter(|(is_wanted, _)| *is_wanted) {
                link.notify(notification, RawJson::EMPTY_OBJECT);
            }
        }
    }
}

async fn listen_to(node: &Node, name: Name, filter: ListenFilter, call: &Call<Intended>, link: &dyn ClientLink) {
    let tenant = &call.caller().principal.tenant;
    let request = execute_request(call, Operation::Listen, call.params().clone());
    let handles = CallHandles::of(&node.tasks, call, &name);
    let link = &TaskLink { link, handles: &handles };
    while let Some(plugin) = node.toolbox.plugin(tenant, name.as_str()) {
        let heard = tokio::select! {
            heard = plugin.listen(&filter, &request, link) => heard,
            // Announcements of a plugin that was stopped wait until it runs again.
            () = node.plugin_stopped(&call.caller().principal, name.as_str()) => {
                tokio::select! {
                    () = node.plugin_runs(&call.caller().principal, name.as_str()) => continue,
                    () = link.cancelled() => return,
                }
            }
        };
        match heard {
            Ok(ListenEnd::Retired) => {}
            Ok(ListenEnd::Cancelled) => return,
            Err(cause) => {
                tracing::warn!(plugin = %name, %cause, "its announcements cannot be heard");
                return;
            }
        }
    }
}

/// Tells of tools of the route that were quarantined or approved, for as long as it is polled.
async fn tell_of_tools(node: &Node, tenant: &Name, route: &Route, is_wanted: bool, link: &dyn ClientLink) {
    if !is_wanted {
        return;
    }
    let mut changes = node.definitions.changes();
    let is_ours = |of: &Name, plugin: &Name| {
        of == tenant
            && match route {
                Route::Merged => true,
                Route::Plugin(own) => own == plugin,
            }
    };
    let mut heard = changes.borrow_and_update().of(is_ours);
    while changes.changed().await.is_ok() {
        let now = changes.borrow_and_update().of(is_ours);
        if now != heard {
            heard = now;
            link.notify(TOOLS_CHANGED, RawJson::EMPTY_OBJECT);
        }
    }
}
