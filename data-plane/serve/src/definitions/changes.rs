//! Which plugins' tools were hidden or shown again, for those who listen.

use std::collections::BTreeMap;

use provost_types::Name;

/// How often, by tenant and plugin. Only plugins of which it happened are in it.
#[derive(Debug, Default)]
pub(crate) struct ToolChanges(BTreeMap<(Name, Name), u64>);

impl ToolChanges {
    pub(super) fn count(&mut self, plugin: (Name, Name)) {
        *self.0.entry(plugin).or_default() += 1;
    }

    pub(super) fn retain(&mut self, stays: impl Fn(&(Name, Name)) -> bool) {
        self.0.retain(|plugin, _| stays(plugin));
    }

    /// Of these plugins: other than earlier, when it happened to one of them since.
    pub(crate) fn of(&self, is: impl Fn(&Name, &Name) -> bool) -> Vec<(Name, u64)> {
        let ours = self.0.iter().filter(|((tenant, plugin), _)| is(tenant, plugin));
        ours.map(|((_, plugin), count)| (plugin.clone(), *count)).collect()
    }
}
