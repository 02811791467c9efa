//! Subscriptions: what the plugins of a route announce, and what this node itself changes of their lists.
//!
//! Invariants: a listener hears of what it may see; a plugin that is replaced is taken up again; quarantine and
//! approval are told like a change that a server tells of, in both eras.

use std::sync::Arc;

use futures::future::{join, join_all};
use provost_data_pipeline::{Call, ClientLink, Execution, Intended, Operation, Route};
use provost_data_tools::{ListenEnd, ListenFilter, names::ResourceIndex};
use provost_mcp::RawJson;
use provost_types::{Action, Name};

use super::{
    compiled::Compiled,
    lists::View,
    plane::{Node, execute_request},
    tasks::{CallHandles, TaskLink},
};

/// What is said of a list of tools that is not what it was.
const TOOLS_CHANGED: &str = "notifications/tools/list_changed";

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
    let streams = plugins.iter().map(|(name, _)| {
        let filter = view.filter_for(name, &wanted, index.as_ref());
        listen_to(node, name.clone(), filter, call, link)
    });
    let tenant = &call.caller().principal.tenant;
    let all = join(join_all(streams), tell_of_tools(node, tenant, &call.request().route, wanted.tools, link));
    let cancelled = link.cancelled();
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
            .filter(|uri| {
                let target = (Action::ReadResource, Some(plugin.as_str()), uri.as_str());
                self.node.may_see(self.compiled, self.caller, target)
            })
            .filter_map(|uri| match index {
                None => Some(uri.clone()),
                Some(index) => index.route(uri).filter(|(owner, _)| owner == plugin).map(|(_, own)| own),
            })
            .collect();
        ListenFilter { uris, ..wanted.clone() }
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
