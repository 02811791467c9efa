//! The state that calls run under, and how the next one takes its place.

use std::sync::Arc;

use provost_data_pipeline::Plane;
use provost_types::{Revision, Snapshot};

use super::{compiled::Compiled, plane::Node};

impl Node {
    /// Replaces the state at once for every call that arrives from now on.
    pub fn activate(&self, next: Compiled) {
        let switches = next.switches.clone();
        let before = self.compiled();
        self.definitions.retain(&next.pins);
        self.toolbox.reconcile(&next.snapshot);
        next.tokens.warm();
        let next = Arc::new(next);
        self.current.store(next.clone());
        before.engine.give_way(&next.engine);
        if let Some(quotas) = &self.quotas {
            quotas.follow(&before.quotas, &next.quotas);
        }
        self.definitions.repinned(&before.pins, &next.pins);
        // After the state: a call that is admitted under the one before is stopped by this.
        self.switches.send_if_modified(|now| {
            let changed = **now != *switches;
            *now = switches;
            changed
        });
    }

    /// Whether this very state is active: its resources, not its revision alone.
    pub fn runs(&self, snapshot: &Snapshot) -> bool {
        let now = self.compiled();
        let now = &now.snapshot;
        now.revision == snapshot.revision && now.resources.diff(&snapshot.resources).next().is_none()
    }

    /// The revision that calls run under now.
    pub fn active_revision(&self) -> Revision {
        self.current.load().revision()
    }

    /// Whether the token authenticates somebody now.
    pub fn knows_token(&self, token: &str) -> bool {
        self.current.load().keys.authenticate(token, self.now_ns()).is_ok()
    }

    /// The state that calls run under now: the next one is compiled from it.
    pub fn compiled(&self) -> Arc<Compiled> {
        self.current.load_full()
    }
}
