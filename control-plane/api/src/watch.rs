//! Changes of resources in order, from a revision on.
//!
//! A watch reads the history of the published state: one item a revision, in order, none left
//! out. There is no queue to overflow: whoever reads slowly finds the changes in the history, and
//! whoever falls behind its whole length is told so instead of being given a gap.
//!
//! Left out: reconnecting (a client resumes from its last bookmark).

use std::{cmp::Ordering, sync::Arc, time::Duration};

use futures::{Stream, stream};
use provost_control_state::{HistoryEntry, State};
use provost_types::{ApiKeySpec, Kind, Name, Resource, ResourceKey, Revision, Snapshot, Spec};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use crate::{Caller, ControlError, ControlNode, ErrorKind, ResourceFilter, Scope, machine::Published};

/// Between two bookmarks of a quiet watch.
const BOOKMARK_EVERY: Duration = Duration::from_secs(1);

/// What one revision changed among what is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchedChange {
    /// The revision.
    pub revision: Revision,
    /// Resources made or changed, as they were at that revision.
    pub puts: Vec<Arc<Resource>>,
    /// Resources removed.
    pub deletes: Vec<ResourceKey>,
    /// The state at the start, not a change.
    pub initial: bool,
}

/// An item of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// A revision that changed something watched.
    Change(WatchedChange),
    /// Everything up to this revision was given: resume from it.
    Bookmark(Revision),
}

impl ControlNode {
    /// The changes after `from` of what the filter takes and the caller may see; from 0: the
    /// present state first. Linearizable: what was acknowledged before this call is in it.
    ///
    /// The stream ends with an error when the reader falls behind the whole history
    /// (`PV-WATCH-SLOW`), or the caller's rights end.
    pub async fn watch(
        &self,
        caller: &Caller,
        filter: ResourceFilter,
        from: Revision,
    ) -> Result<impl Stream<Item = Result<WatchEvent, ControlError>> + Send + use<>, ControlError> {
        self.inner.group.read_barrier().await?;
        let watcher = Watcher::new(self.inner.published.clone(), caller.clone(), filter, from)?;
        Ok(stream::unfold(watcher, |mut watcher| async move { watcher.next().await.map(|event| (event, watcher)) }))
    }
}

struct Watcher {
    published: Arc<Published>,
    changed: watch::Receiver<Arc<Snapshot>>,
    caller: Caller,
    filter: ResourceFilter,
    /// Everything up to here was given.
    given: Revision,
    /// The present state, until it was given.
    initial: Option<Arc<State>>,
    /// Whether something was given since the last bookmark.
    owes_bookmark: bool,
    tick: Interval,
    ended: bool,
}

impl Watcher {
    fn new(
        published: Arc<Published>,
        caller: Caller,
        filter: ResourceFilter,
        from: Revision,
    ) -> Result<Self, ControlError> {
        let changed = published.snapshots.subscribe();
        let state = published.state.load_full();
        if from > state.revision() {
            let text = format!("revision {from} has not happened: the state is at {}", state.revision());
            return Err(ControlError::new(ErrorKind::Refused, "PV-CTL-FUTURE", text, "watch from 0 to begin anew"));
        }
        let anew = from == Revision(0);
        if !anew && from < state.compacted() {
            let text = format!("the changes after revision {from} are no longer kept");
            let hint = format!("revisions from {} on can be resumed; watch from 0 to begin anew", state.compacted());
            return Err(ControlError::new(ErrorKind::Refused, COMPACTED, text, hint));
        }
        let mut tick = interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            published,
            changed,
            caller,
            filter,
            given: if anew { state.revision() } else { from },
            initial: anew.then_some(state),
            owes_bookmark: true,
            tick,
            ended: false,
        })
    }

    async fn next(&mut self) -> Option<Result<WatchEvent, ControlError>> {
        loop {
            if self.ended {
                return None;
            }
            let state = self.published.state.load_full();
            if let Err(error) = still_allowed(&self.caller, &state).and_then(|()| self.check_place(&state)) {
                self.ended = true;
                return Some(Err(error));
            }
            if let Some(event) = self.ready(&state) {
                return Some(Ok(event));
            }
            let tick = self.tick.tick();
            tokio::select! {
                changed = self.changed.changed() => self.ended = changed.is_err(),
                _ = tick => self.owes_bookmark = true,
            }
        }
    }

    /// The place is lost when the history no longer reaches back to it.
    fn check_place(&self, state: &State) -> Result<(), ControlError> {
        if self.given >= state.compacted() {
            return Ok(());
        }
        let text = format!(
            "the watch was read too slowly: it was given everything up to revision {}, and the history now begins \
             after {}",
            self.given,
            state.compacted()
        );
        Err(ControlError::new(ErrorKind::Refused, SLOW, text, "watch from 0 to begin anew, and read faster"))
    }

    /// What can be given without waiting.
    fn ready(&mut self, state: &State) -> Option<WatchEvent> {
        if let Some(initial) = self.initial.take() {
            let puts = initial.resources().iter().filter(|(key, _)| self.takes(key)).map(|(_, r)| r.clone()).collect();
            let (revision, deletes) = (initial.revision(), Vec::new());
            return Some(WatchEvent::Change(WatchedChange { revision, puts, deletes, initial: true }));
        }
        let given = |entry: &Arc<HistoryEntry>| {
            if entry.revision <= self.given { Ordering::Less } else { Ordering::Greater }
        };
        let first = state.history().binary_search_by(given).unwrap_or_else(|at| at);
        for entry in &state.history().skip(first) {
            self.given = entry.revision;
            self.owes_bookmark = true;
            if let Some(change) = self.seen(entry) {
                return Some(WatchEvent::Change(change));
            }
        }
        std::mem::take(&mut self.owes_bookmark).then_some(WatchEvent::Bookmark(self.given))
    }

    /// The part of a revision that is watched.
    fn seen(&self, entry: &HistoryEntry) -> Option<WatchedChange> {
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for change in entry.changes.iter().filter(|c| self.takes(&c.key)) {
            match &change.new {
                Some(new) => puts.push(new.clone()),
                None => deletes.push(change.key.clone()),
            }
        }
        let some = !puts.is_empty() || !deletes.is_empty();
        some.then_some(WatchedChange { revision: entry.revision, puts, deletes, initial: false })
    }

    fn takes(&self, key: &ResourceKey) -> bool {
        self.caller.may_see(key) && self.filter.takes(key)
    }
}

/// A watch lives longer than a request: a tenant's administrator that is no more, or whose token
/// is, must not see on. What the cluster's own tokens may does not change while a node runs.
fn still_allowed(caller: &Caller, state: &State) -> Result<(), ControlError> {
    let (Scope::Tenant(tenant), Some(key)) = (&caller.scope, caller.authenticated_by.strip_prefix("api_key:")) else {
        return Ok(());
    };
    let of = |kind: Kind, name: &str| {
        let name = Name::new(name).ok()?;
        state.resources().get(&ResourceKey { kind, tenant: Some(tenant.clone()), name })
    };
    let allowed = match of(Kind::ApiKey, key).map(|r| &r.spec) {
        Some(Spec::ApiKey(key)) if !expired(key) => {
            match of(Kind::Principal, key.principal.as_str()).map(|r| &r.spec) {
                Some(Spec::Principal(principal)) => principal.admin && !principal.disabled,
                _ => false,
            }
        }
        _ => false,
    };
    if allowed {
        return Ok(());
    }
    let text = format!("the rights of {} ended while it watched", caller.name);
    Err(ControlError::new(ErrorKind::Unauthenticated, "PV-ADMIN-BAD-TOKEN", text, ""))
}

/// A time that cannot be read counts as past: stored ones were checked.
fn expired(key: &ApiKeySpec) -> bool {
    let past =
        |text: &String| OffsetDateTime::parse(text, &Rfc3339).map_or(true, |end| end <= OffsetDateTime::now_utc());
    key.expires.as_ref().is_some_and(past)
}

impl ResourceFilter {
    /// Whether it takes a resource, by its key alone: one that was deleted is taken as it was before.
    pub(crate) fn takes(&self, key: &ResourceKey) -> bool {
        let tenant = key.tenant.as_ref().unwrap_or(&key.name);
        self.kind.is_none_or(|k| k == key.kind)
            && self.tenant.as_ref().is_none_or(|t| t == tenant)
            && self.name.as_ref().is_none_or(|n| *n == key.name)
    }
}

/// The code of a revision whose changes are gone.
pub(crate) const COMPACTED: &str = "PV-WATCH-COMPACTED";
/// The code of a watch that lost its place.
pub(crate) const SLOW: &str = "PV-WATCH-SLOW";

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
