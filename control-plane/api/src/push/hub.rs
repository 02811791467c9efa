//! The hub: follows the published state and wakes the streams.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use provost_control_state::{Cluster, State};
use provost_types::{Revision, Snapshot};
use provost_wire::node::push_server::PushServer;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    MAX_DOWN_BYTES, MAX_UP_BYTES, PushService, Subscriber,
    image::EncodeError,
    messages::Refusal,
    registry::Registry,
    staging::{Part, Place, Stage},
    subscriber::Subscription,
    track::Track,
};
use crate::machine::Published;

/// Who the caller is, by what the transport put into the request's extensions: (node, roles).
/// `None`: nobody who may subscribe.
pub type Authorise = Arc<dyn Fn(&tonic::Extensions) -> Option<(String, String)> + Send + Sync>;

/// What a hub is told when it starts.
#[derive(Clone)]
pub struct HubConfig {
    /// Who may subscribe.
    pub authorise: Authorise,
    /// The last moment, nanoseconds by this node's clock, at which its applied state was known to
    /// hold everything acknowledged: a read index that was answered by a quorum and is applied. It
    /// stands still while the node is cut off, and nodes see by that how old their state may be.
    pub confirmed_ns: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// What the streams share.
pub(crate) struct Inner {
    pub(crate) authorise: Authorise,
    pub(crate) confirmed_ns: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) registry: Registry,
    /// Grows with each change of any track.
    pub(crate) woken: watch::Sender<u64>,
    /// Everybody, or those who do not go first.
    rest: Arc<Track>,
    /// Who goes first; `None`: there is no node group.
    stage: ArcSwapOption<Stage>,
}

/// A running hub; clones share it, the last one ends it.
#[derive(Clone)]
pub struct PushHub {
    inner: Arc<Inner>,
    _task: Arc<Task>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PushHub {
    /// Encodes the present state and follows it. Needs a runtime.
    pub(crate) fn start(published: &Arc<Published>, config: HubConfig) -> Result<Self, EncodeError> {
        // Subscribed before reading: what is published between the two is seen again.
        let snapshots = published.snapshots.subscribe();
        let state = published.state.load_full();
        let rest = Track::new(state.released().map_or(state, Arc::new))?;
        let inner = Arc::new(Inner {
            authorise: config.authorise,
            confirmed_ns: config.confirmed_ns,
            registry: Registry::default(),
            woken: watch::Sender::new(0),
            rest: Arc::new(rest),
            stage: ArcSwapOption::empty(),
        });
        let task = tokio::spawn(follow(inner.clone(), published.clone(), snapshots));
        Ok(Self { inner, _task: Arc::new(Task(task)) })
    }

    /// The gRPC service, with its message bounds set.
    pub fn service(&self) -> PushServer<PushService> {
        PushServer::new(PushService { hub: self.inner.clone() })
            .max_decoding_message_size(MAX_UP_BYTES)
            .max_encoding_message_size(MAX_DOWN_BYTES)
    }

    /// The nodes that are connected here, by name.
    pub fn subscribers(&self) -> Vec<Subscriber> {
        let all = self.inner.registry.all();
        all.iter().map(|s| s.report(&self.inner.place(s))).collect()
    }

    /// The newest revision that any group gets from here.
    pub fn revision(&self) -> Revision {
        let stage = self.inner.stage.load();
        let first = stage.as_deref().and_then(|stage| stage.first.as_deref());
        Revision(first.unwrap_or(&self.inner.rest).head_revision())
    }

    /// Ends all streams and takes no more: without it a server waits for them for ever.
    pub fn stop(&self) {
        self.inner.registry.stop();
    }
}

impl Inner {
    /// Where a node's stream goes.
    pub(crate) fn place(&self, subscription: &Subscription) -> Place {
        let rest = |part, back| Place { track: self.rest.clone(), part, back };
        let Some(stage) = self.stage.load_full() else { return rest(Part::All, None) };
        if !stage.group.selects(&subscription.node, &subscription.role) {
            return rest(if stage.holds { Part::Held } else { Part::All }, None);
        }
        match &stage.first {
            Some(first) => Place { track: first.clone(), part: Part::Canary, back: None },
            None => rest(Part::Returned, stage.halted),
        }
    }

    /// Takes a published state. Blocks while it compares and encodes.
    fn take(&self, state: Arc<State>) -> Result<(), EncodeError> {
        let released = state.released().map(Arc::new);
        let holds = released.is_some();
        let stage = match (state.node_group(), state.release()) {
            (Some(group), Some(release)) => {
                let halted = release.halted.as_ref().map(|halt| halt.revision.0);
                // A halted change is on no track: the next one leads on from what is released.
                let first = match halted {
                    Some(_) => None,
                    None => Some(self.first_track(&state)?),
                };
                Some(Arc::new(Stage { group: group.clone(), holds, halted, first }))
            }
            _ => None,
        };
        self.rest.advance(released.unwrap_or(state))?;
        self.stage.store(stage);
        // Also when no track moved: a node may have another track now.
        self.woken.send_modify(|n| *n += 1);
        Ok(())
    }

    /// The track of those who go first, at the state.
    fn first_track(&self, state: &Arc<State>) -> Result<Arc<Track>, EncodeError> {
        let before = self.stage.load_full().and_then(|stage| stage.first.clone());
        let first = match before {
            Some(first) => first,
            None => Arc::new(Track::new(self.rest.state())?),
        };
        first.advance(state.clone())?;
        Ok(first)
    }
}

/// The shortest time between two deltas.
const DELTA_GAP: Duration = Duration::from_millis(5);
/// The same in a flood: every node compiles each delta, and what comes within a moment shares one.
const FLOOD_GAP: Duration = Duration::from_millis(20);
/// Gaps in a row in which something changed, from which on it is a flood.
const FLOOD_AFTER: u32 = 8;
/// The same while nobody listens: who comes meanwhile starts from a state that is so old at most.
const IDLE_GAP: Duration = Duration::from_millis(50);

/// The gap after a delta, when changes filled so many gaps before it.
fn gap(nobody_listens: bool, filled: u32) -> Duration {
    match (nobody_listens, filled) {
        (true, _) => IDLE_GAP,
        (false, FLOOD_AFTER..) => FLOOD_GAP,
        (false, _) => DELTA_GAP,
    }
}

/// Bursts of changes become one delta: what was published while one was encoded, and until the
/// gap after it is over, is taken at once.
async fn follow(inner: Arc<Inner>, published: Arc<Published>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let mut cluster = published.state.load().cluster().clone();
    let mut filled = 0_u32;
    loop {
        snapshots.mark_unchanged();
        let next = Instant::now() + gap(inner.registry.is_empty(), filled);
        let state = published.state.load_full();
        cut_off_removed(&inner.registry, &cluster, state.cluster());
        cluster = state.cluster().clone();
        let hub = inner.clone();
        match tokio::task::spawn_blocking(move || hub.take(state)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(code = "PV-PUSH-ENCODE", "nodes keep what they have: {e}"),
            // The runtime is ending, or the encoder panicked, which the runtime has reported.
            Err(_) => return,
        }
        tokio::time::sleep_until(next).await;
        filled = if snapshots.has_changed().unwrap_or(false) { filled.saturating_add(1) } else { 0 };
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// A certificate outlives the removal of its node, and so would a stream that is open. New ones
/// are refused by `authorise`.
fn cut_off_removed(registry: &Registry, before: &Arc<Cluster>, now: &Arc<Cluster>) {
    if Arc::ptr_eq(before, now) {
        return;
    }
    let removed = before.members().iter().filter(|(id, _)| !now.members().contains_key(id));
    removed.for_each(|(_, member)| registry.end(member.name.as_str(), Refusal::Removed));
}
