//! The state as nodes see it while a change is held.

use std::sync::Arc;

use imbl::Vector;
use provost_types::{Kind, Name, NodeGroupSpec, ResourceKey, Revision, Spec};

use super::State;
use crate::{HistoryEntry, Release, ReleaseCommand, ReleaseReply};

impl State {
    /// The same with how far changes are released.
    pub fn with_release(self, release: Option<Release>) -> Self {
        Self { release: release.map(Arc::new), ..self }
    }

    /// How far changes are released; `None`: there is no node group, and all are.
    pub fn release(&self) -> Option<&Arc<Release>> {
        self.release.as_ref()
    }

    /// Applies a decision on a staged change.
    pub fn apply_release(&mut self, command: ReleaseCommand) -> ReleaseReply {
        let now = self.revision;
        self.release.as_mut().map_or(ReleaseReply::Stale, |release| Arc::make_mut(release).apply(now, command))
    }

    /// What a change does to how far changes are released. `before`: the revision before it.
    pub(super) fn follow_release(&mut self, before: Revision, change: &HistoryEntry) {
        let release = self.release.take().map(Arc::unwrap_or_clone);
        let is_staged = self.node_group().is_some();
        self.release = is_staged.then(|| Arc::new(Release::after(release, before, change, self.compacted)));
    }

    /// The state that nodes outside the group run; `None`: the present one.
    pub fn released(&self) -> Option<Self> {
        let released = self.release.as_ref()?.released;
        if released >= self.revision {
            return None;
        }
        let mut resources = self.resources.clone();
        let held = self.history.iter().rev().take_while(|e| e.revision > released).flat_map(|e| &e.changes);
        // What governs calls is never held back.
        for change in held.filter(|change| !change.key.kind.is_governance()) {
            match &change.old {
                Some(old) => resources.insert(change.key.clone(), old.clone()),
                None => resources.remove(&change.key),
            };
        }
        let (history, release) = (Vector::new(), None);
        Some(Self { revision: released, resources, history, compacted: released, release, ..self.clone() })
    }

    /// The group of nodes that take changes first.
    pub fn node_group(&self) -> Option<&NodeGroupSpec> {
        let from = ResourceKey { kind: Kind::NodeGroup, tenant: None, name: Name::smallest() };
        match &self.resources.range(from..).next()?.1.spec {
            Spec::NodeGroup(spec) => Some(spec),
            _ => None,
        }
    }
}
