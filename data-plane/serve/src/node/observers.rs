//! What is read of a node from outside: counts, load, and how its plugins stand.

use provost_data_tools::{CorpusView, EndpointView, Pressure, Walls};
use provost_types::Name;

use super::{load::Load, plane::Node};

impl Node {
    /// Calls since the start by how they ended.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counts.read()
    }

    /// Values that guards found since the start: kind, action, how many.
    pub fn guard_counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.guard_counts.read()
    }

    /// Of the calls that were denied since the start, those that a full node refused: they say nothing of its policy.
    /// Ask before [`Node::counts`].
    pub fn shed(&self) -> u64 {
        self.counts.shed()
    }

    /// The calls that run now, and the bound on them.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// How plugins stand towards their upstreams: tenant, plugin, state.
    pub fn pressures(&self) -> Vec<(Name, Name, Pressure)> {
        self.toolbox.pressures()
    }

    /// The endpoints of plugins that have several: tenant, plugin, state of each.
    pub fn endpoints(&self) -> Vec<(Name, Name, Vec<EndpointView>)> {
        self.toolbox.endpoints()
    }

    /// How plugins of documents stand: tenant, plugin, corpus.
    pub fn corpora(&self) -> Vec<(Name, Name, CorpusView)> {
        self.toolbox.corpora()
    }

    /// The walls around the processes of plugins: tenant, plugin, walls.
    pub fn walls(&self) -> Vec<(Name, Name, Walls)> {
        self.toolbox.walls()
    }
}
