//! What others find out about the plugins that run, and ask of them.

use std::{collections::BTreeMap, sync::Arc};

use provost_types::{Name, PrincipalRef};
use tokio::sync::watch;

use super::{Running, Toolbox};
use crate::{
    CorpusView, Plugin, Pressure, Unready, UpstreamError, Walls, connections::OwnConnection, oauth::AuthorityTold,
    upstream::EndpointView,
};

impl Toolbox {
    /// Changes when a plugin comes, goes or is replaced, when its next version begins to serve, and by
    /// [`Toolbox::tell_change`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Wakes those who wait for changes: a plugin offers what it was listed without.
    pub fn tell_change(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// A plugin.
    pub fn plugin(&self, tenant: &Name, name: &str) -> Option<Arc<Plugin>> {
        self.plugins.load().get(tenant)?.get(name).map(|r| r.plugin.clone())
    }

    /// A tenant's plugins, in order of name.
    pub fn plugins(&self, tenant: &Name) -> Vec<Arc<Plugin>> {
        let all = self.plugins.load();
        all.get(tenant).into_iter().flat_map(BTreeMap::values).map(|r| r.plugin.clone()).collect()
    }

    /// What a principal lets plugins do in their name, in order of plugin.
    pub fn connections_of(&self, principal: &PrincipalRef) -> Vec<OwnConnection> {
        self.deps.connections.as_ref().map(|connections| connections.of(principal)).unwrap_or_default()
    }

    /// Ends what a principal consented to in the flow that began then, here in any case; what the authorization
    /// server made of it. `None`: there is no such connection any more.
    pub async fn disconnect(
        &self,
        principal: &PrincipalRef,
        plugin: &Name,
        began_ns: u64,
    ) -> Result<Option<AuthorityTold>, UpstreamError> {
        if let Some(running) = self.plugin(&principal.tenant, plugin.as_str())
            && let Some(consent) = running.consent()
        {
            return consent.end(principal, began_ns).await;
        }
        // A plugin that acts in nobody's name any more: nobody knows the server that gave the tokens.
        let Some(connections) = &self.deps.connections else { return Ok(None) };
        let told = AuthorityTold::OtherServer;
        let ended = connections.forget(principal, plugin, began_ns, told.to_string()).await;
        let ended =
            ended.map_err(|cause| UpstreamError::Token(format!("the control plane does not end it: {cause}")))?;
        Ok(ended.then_some(told))
    }

    /// How every plugin stands towards its upstream, in order of tenant and name.
    pub fn pressures(&self) -> Vec<(Name, Name, Pressure)> {
        self.of_all(Plugin::pressure)
    }

    /// The endpoints of plugins that have several, in order of tenant and name.
    pub fn endpoints(&self) -> Vec<(Name, Name, Vec<EndpointView>)> {
        let mut views = self.of_all(Plugin::endpoints);
        views.retain(|(_, _, endpoints)| !endpoints.is_empty());
        views
    }

    /// The walls around the processes of plugins, in order of tenant and name.
    pub fn walls(&self) -> Vec<(Name, Name, Walls)> {
        let all = self.of_all(Plugin::walls).into_iter();
        all.filter_map(|(tenant, plugin, walls)| Some((tenant, plugin, walls?))).collect()
    }

    /// How plugins of documents stand, in order of tenant and name.
    pub fn corpora(&self) -> Vec<(Name, Name, CorpusView)> {
        let all = self.of_all(Plugin::corpus).into_iter();
        all.filter_map(|(tenant, plugin, corpus)| Some((tenant, plugin, corpus?))).collect()
    }

    /// The plugins whose present version does not take calls, in order of tenant and name.
    pub fn unready(&self) -> Vec<(Name, Name, Unready)> {
        let all = self.plugins.load();
        let of = |tenant: &Name, (name, running): (&Name, &Running)| {
            Some((tenant.clone(), name.clone(), running.plugin.unready()?))
        };
        let mut found: Vec<_> = all
            .iter()
            .flat_map(|(tenant, plugins)| plugins.iter().filter_map(move |plugin| of(tenant, plugin)))
            .collect();
        found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        found
    }

    /// Something of every plugin, in order of tenant and name.
    fn of_all<T>(&self, of: impl Fn(&Plugin) -> T) -> Vec<(Name, Name, T)> {
        let all = self.plugins.load();
        let of = &of;
        let mut found: Vec<_> = all
            .iter()
            .flat_map(|(tenant, plugins)| {
                plugins.iter().map(move |(name, r)| (tenant.clone(), name.clone(), of(&r.plugin)))
            })
            .collect();
        found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        found
    }

    /// A client has ended its legacy session of this key: connections and processes that plugins have for it end.
    /// `tells`: upstreams are told of it, also for sessions that another node opened; one node of several does that.
    /// Nothing is waited for. Must be called within a tokio runtime.
    pub fn end_session(&self, session: &str, tells: bool) {
        for running in self.plugins.load().values().flat_map(BTreeMap::values) {
            running.plugin.end_session(session, tells);
        }
    }
}
