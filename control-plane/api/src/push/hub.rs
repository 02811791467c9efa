//! The hub: follows the published state and wakes the streams.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use provost_control_state::{Cluster, State};
use provost_types::{Revision, Snapshot};
use provost_wire::node::push_server::PushServer;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    MAX_DOWN_BYTES, MAX_UP_BYTES, PushService, Staging, Subscriber, image::EncodeError, lock, messages::Refusal,
    registry::Registry, staging::Kept, track::Track,
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
    /// Which groups go first, and how far the others may go.
    pub staging: watch::Receiver<Staging>,
}

/// What the streams share.
pub(crate) struct Inner {
    pub(crate) authorise: Authorise,
    pub(crate) confirmed_ns: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) registry: Registry,
    /// Grows with each change of any track.
    pub(crate) woken: watch::Sender<u64>,
    staging: watch::Receiver<Staging>,
    /// Everybody, or those who do not go first.
    rest: Arc<Track>,
    /// Those who go first; `None`: nobody does.
    first: ArcSwapOption<Track>,
    /// Used by the hub's task only.
    kept: Mutex<Kept>,
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
        let rest = Track::new(published.state.load_full())?;
        let inner = Arc::new(Inner {
            authorise: config.authorise,
            confirmed_ns: config.confirmed_ns,
            registry: Registry::default(),
            woken: watch::Sender::new(0),
            staging: config.staging.clone(),
            rest: Arc::new(rest),
            first: ArcSwapOption::empty(),
            kept: Mutex::default(),
        });
        let task = tokio::spawn(follow(inner.clone(), published.clone(), snapshots, config.staging));
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
        all.iter().map(|s| s.report(self.inner.track(&s.group).head_revision())).collect()
    }

    /// The newest revision that any group gets from here.
    pub fn revision(&self) -> Revision {
        let first = self.inner.first.load();
        Revision(first.as_deref().unwrap_or(&self.inner.rest).head_revision())
    }

    /// Ends all streams and takes no more: without it a server waits for them for ever.
    pub fn stop(&self) {
        self.inner.registry.stop();
    }
}

impl Inner {
    /// The track of a group.
    pub(crate) fn track(&self, group: &str) -> Arc<Track> {
        if self.staging.borrow().first.contains(group)
            && let Some(first) = self.first.load_full()
        {
            return first;
        }
        self.rest.clone()
    }

    /// Takes a published state, under what staging says. Blocks while it compares and encodes.
    fn take(&self, state: Arc<State>, staging: &Staging) -> Result<(), EncodeError> {
        let mut kept = lock(&self.kept);
        if staging.first.is_empty() {
            kept.clear();
            self.first.store(None);
            self.rest.advance(state)?;
        } else {
            let first = match self.first.load_full() {
                Some(first) => first,
                None => {
                    let first = Arc::new(Track::new(self.rest.state())?);
                    self.first.store(Some(first.clone()));
                    first
                }
            };
            kept.push(state.clone());
            first.advance(state)?;
            if let Some(released) = kept.release(staging.released) {
                self.rest.advance(released)?;
            }
        }
        // Also when no track moved: a group may have another track now.
        self.woken.send_modify(|n| *n += 1);
        Ok(())
    }
}

/// The shortest time between two deltas: under a flood of changes nodes compile less often.
const DELTA_GAP: Duration = Duration::from_millis(5);

/// Bursts of changes become one delta: what was published while one was encoded, and until the
/// gap after it is over, is taken at once.
async fn follow(
    inner: Arc<Inner>,
    published: Arc<Published>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut staging: watch::Receiver<Staging>,
) {
    let mut cluster = published.state.load().cluster().clone();
    loop {
        snapshots.mark_unchanged();
        let next = Instant::now() + DELTA_GAP;
        let (state, stage) = (published.state.load_full(), staging.borrow_and_update().clone());
        cut_off_removed(&inner.registry, &cluster, state.cluster());
        cluster = state.cluster().clone();
        let hub = inner.clone();
        match tokio::task::spawn_blocking(move || hub.take(state, &stage)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(code = "PV-PUSH-ENCODE", "nodes keep what they have: {e}"),
            // The runtime is ending, or the encoder panicked, which the runtime has reported.
            Err(_) => return,
        }
        tokio::time::sleep_until(next).await;
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = next_stage(&mut staging) => {}
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

/// Never, once nobody can change it.
async fn next_stage(staging: &mut watch::Receiver<Staging>) {
    if staging.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
