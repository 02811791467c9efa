//! How far the node is with the plugins of the state that it runs, for whoever waits for a change.
//!
//! Left out: plugins that are ready. Most are, and nobody needs to be told.

use provost_wire::node::{PluginWaiting, PluginsStanding};

use super::plane::Node;

/// Plugins that are named; with the bound below all of it fits into one message to the control plane.
const MAX_WAITING: usize = 128;
/// Bytes told of why one is not ready.
const MAX_WHY_BYTES: usize = 512;

impl Node {
    /// The plugins whose version of the active state does not serve yet.
    pub fn plugins_standing(&self) -> PluginsStanding {
        // Read first: the plugins are those of this revision, or of a later one.
        let revision = self.active_revision().0;
        let unready = self.toolbox.unready();
        let cut = unready.len() > MAX_WAITING;
        let waiting = unready.into_iter().take(MAX_WAITING).map(|(tenant, plugin, unready)| PluginWaiting {
            tenant: tenant.to_string(),
            plugin: plugin.to_string(),
            why: shortened(unready.why),
            failed: unready.is_final,
        });
        PluginsStanding { revision, waiting: waiting.collect(), cut }
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_WHY_BYTES));
    text
}
