//! Consents of users that an administrator ended, or that went with a plugin or a principal.
//!
//! They are gone from the state, and nobody uses them any more, before anybody is told: an authorization server that does
//! not answer holds nothing up. One node tells it, by what it still has in memory.
//! Left out: telling again. A node that ends in between, or that did not know the connection, tells nothing; the tokens
//! then end by themselves.

use std::sync::Arc;

use futures::StreamExt;
use provost_types::Name;

use super::Toolbox;
use crate::{Plugin, connections::Ended};

/// Authorization servers that are told at a time.
const MAX_TOLD_AT_ONCE: usize = 8;

impl Toolbox {
    /// Tells the authorization servers of these, beside everything else. `plugin_of` finds the plugin of a tenant that
    /// used them, which may be gone too.
    pub(super) fn tell_of_ends(&self, ended: Vec<Ended>, plugin_of: impl Fn(&Name, &Name) -> Option<Arc<Plugin>>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let own = ended.into_iter().filter(|ended| self.tells_of(ended));
        let own: Vec<(Arc<Plugin>, Ended)> =
            own.filter_map(|ended| Some((plugin_of(&ended.principal.tenant, &ended.plugin)?, ended))).collect();
        if own.is_empty() {
            return;
        }
        runtime.spawn(async move {
            let all = futures::stream::iter(own);
            all.for_each_concurrent(MAX_TOLD_AT_ONCE, |(plugin, ended)| async move { tell(&plugin, &ended).await })
                .await;
        });
    }

    /// Whether it is this node that tells of it. All nodes learn of it, and agree on one as far as they know each other.
    fn tells_of(&self, ended: &Ended) -> bool {
        let Some(siblings) = &self.deps.siblings else { return true };
        siblings.owner(&format!("connection {} {}", ended.principal, ended.plugin)).is_none()
    }
}

async fn tell(plugin: &Plugin, ended: &Ended) {
    let Some(consent) = plugin.consent() else { return };
    if let Some(told) = consent.tell_of_end(&ended.found).await {
        let (plugin, principal) = (&ended.plugin, &ended.principal);
        tracing::info!(%plugin, %principal, %told, "a consent was ended for its user");
    }
}
