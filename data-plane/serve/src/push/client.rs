//! The client: which control-plane node it is at, and what it hands out.

use std::sync::Arc;

use parking_lot::Mutex;
use provost_types::Revision;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    Activation, Dial, HealthCounts, PushConfig, Pushed, Staleness, StalenessReader, StoreError,
    answers::Answers,
    backoff::Backoff,
    contact::Contact,
    keeper::Keeper,
    last_good::LastGood,
    mirror::{Mirror, MirrorError},
    session::{End, Session},
};

/// What the tasks of a client share.
pub(crate) struct Shared {
    pub(crate) pushed: watch::Sender<Option<Arc<Pushed>>>,
    pub(crate) active: watch::Sender<Option<Arc<Pushed>>>,
    pub(crate) answers: watch::Sender<Answers>,
    pub(crate) saved: watch::Sender<Option<Revision>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) counts: Arc<dyn Fn() -> HealthCounts + Send + Sync>,
    /// What the counts were when the present state became active.
    pub(crate) counts_before: Mutex<HealthCounts>,
}

impl Shared {
    /// Waits until the client is stopped.
    pub(crate) async fn ended(&self) {
        // The sender is in `self`: the wait ends by the value only.
        drop(self.stop.subscribe().wait_for(|ended| *ended).await);
    }
}

/// A running client.
pub struct PushClient {
    shared: Arc<Shared>,
    run: JoinHandle<()>,
    keep: Option<JoinHandle<()>>,
}

impl PushClient {
    /// Reads the last good state, if one is kept, and begins to connect. Needs a runtime. The
    /// state is handed out like any other: the node makes it active, or refuses it.
    pub fn start(config: PushConfig, dial: Arc<dyn Dial>) -> Result<Self, StoreError> {
        let store = config.store.as_ref().map(|dir| LastGood::open(dir, &config.cluster)).transpose()?;
        let (store, loaded) = store.unzip();
        let loaded = loaded.flatten();
        let contact = Arc::new(Contact::default());
        contact.restored(loaded.as_ref().and_then(|l| l.confirmed));
        let booted = loaded.map(|l| Arc::new(l.pushed));
        let mirror = booted.as_deref().map(Mirror::of).unwrap_or_default();
        let shared = Arc::new(Shared {
            saved: watch::Sender::new(booted.as_ref().map(|p| p.snapshot.revision)),
            pushed: watch::Sender::new(booted),
            active: watch::Sender::new(None),
            answers: watch::Sender::default(),
            stop: watch::Sender::new(false),
            contact,
            counts: config.counts.clone(),
            counts_before: Mutex::default(),
        });
        let keep = store.map(|store| tokio::spawn(Keeper::new(store, shared.clone(), &config).run()));
        let run = tokio::spawn(run(shared.clone(), config, dial, mirror));
        Ok(Self { shared, run, keep })
    }

    /// The newest state: at first the stored one, if there is one, then each as it comes.
    pub fn pushed(&self) -> watch::Receiver<Option<Arc<Pushed>>> {
        self.shared.pushed.subscribe()
    }

    /// Where the node says what became of states.
    pub fn activation(&self) -> Activation {
        Activation { shared: self.shared.clone() }
    }

    /// The revision of the last good state on disk.
    pub fn saved(&self) -> watch::Receiver<Option<Revision>> {
        self.shared.saved.subscribe()
    }

    /// Where the node stands towards the control plane, for its status.
    pub fn staleness(&self) -> Staleness {
        let contact = &self.shared.contact;
        Staleness {
            connected: contact.endpoint(),
            received: self.shared.pushed.borrow().as_ref().map_or(Revision(0), |p| p.snapshot.revision),
            active: self.shared.answers.borrow().active.as_ref().map(|a| Revision(a.revision)),
            heard_ago: contact.heard_ago(),
            confirmed_ago: contact.confirmed_ago(),
        }
    }

    /// For the stage that decides calls.
    pub fn staleness_reader(&self) -> StalenessReader {
        StalenessReader { contact: self.shared.contact.clone() }
    }

    /// Leaves the control plane; when it returns, the state that the node runs is on disk.
    pub async fn stop(self) {
        self.shared.stop.send_replace(true);
        // A task that panicked was reported by the runtime.
        drop(self.run.await);
        if let Some(keep) = self.keep {
            drop(keep.await);
        }
    }
}

async fn run(shared: Arc<Shared>, config: PushConfig, dial: Arc<dyn Dial>, mirror: Mirror) {
    tokio::select! {
        () = connect(&shared, &config, &*dial, mirror) => {}
        () = shared.ended() => {}
    }
    shared.contact.disconnected();
}

/// Goes from one control-plane node to the next, and stays where it is served.
async fn connect(shared: &Shared, config: &PushConfig, dial: &dyn Dial, mut mirror: Mirror) {
    let mut backoff = Backoff::new(config.timings.backoff);
    // Nodes begin at different places, so that they spread over the control plane.
    let mut place = rand::random_range(0..usize::MAX / 2);
    loop {
        let endpoints = dial.endpoints();
        let began = Instant::now();
        let mut wait_longer = false;
        if endpoints.is_empty() {
            tracing::warn!(code = "PV-PUSH-UNREACHABLE", "no control-plane node is known");
        } else {
            let endpoint = &endpoints[place % endpoints.len()];
            let has_other = endpoints.len() > 1;
            let end = Session { shared, config, dial, endpoint, has_other }.run(&mut mirror).await;
            shared.contact.disconnected();
            tracing::warn!(code = end.code(), endpoint, "left by the control plane: {end}");
            match &end {
                End::Mirror(MirrorError::Older { .. }) => place += 1,
                End::Mirror(cause) => {
                    wait_longer = matches!(cause, MirrorError::Document { .. } | MirrorError::Size);
                    mirror.distrust();
                }
                _ => place += 1,
            }
        }
        if began.elapsed() >= config.timings.silence {
            backoff.reset();
        }
        let wait = backoff.next(rand::random());
        sleep(if wait_longer { config.timings.unreadable.max(wait) } else { wait }).await;
    }
}
