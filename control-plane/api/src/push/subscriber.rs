//! What is known of one connected node.

use std::{sync::Mutex, time::Instant};

use provost_types::Revision;
use provost_wire::node::{Hello, NackProblem, PluginsStanding, PushUp, push_up::Up};
use tokio::sync::watch;

use super::{
    lock,
    messages::{Health, Refusal, bounded, bounded_plugins},
    staging::{Part, Place},
};

/// A connected node, as cluster status shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscriber {
    /// Its name, from its certificate.
    pub node: String,
    /// Its roles, from its certificate.
    pub role: String,
    /// Its node group; empty: none.
    pub group: String,
    /// Its build.
    pub version: String,
    /// Which start of the node.
    pub epoch: u64,
    /// The newest revision that it was sent, or said that it has.
    pub sent: Revision,
    /// What it runs; `None`: it has not said.
    pub active: Option<Revision>,
    /// How far `active` is behind the newest revision that it may run, in revisions.
    pub lag: u64,
    /// Since it last said anything.
    pub silent_ms: u64,
    /// The revision that it could not run, unless it has run a later one since.
    pub nacked: Option<Revision>,
    /// Why.
    pub problems: Vec<NackProblem>,
    /// What it did under its revision.
    pub health: Option<Health>,
    /// Its part in a staged release.
    pub part: Part,
    /// How far it is with its plugins; `None`: it has not said.
    pub plugins: Option<PluginsStanding>,
}

/// What changes while a stream lives.
struct Said {
    sent: u64,
    active: Option<u64>,
    nacked: Option<(u64, Vec<NackProblem>)>,
    health: Option<Health>,
    plugins: Option<PluginsStanding>,
    heard: Instant,
}

/// One stream.
pub(crate) struct Subscription {
    pub(crate) node: String,
    pub(crate) role: String,
    pub(crate) epoch: u64,
    pub(crate) group: String,
    version: String,
    said: Mutex<Said>,
    end: watch::Sender<Option<End>>,
}

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The node left.
    Left,
    /// It is told why.
    Refused(Refusal),
}

impl Subscription {
    pub(crate) fn new(node: String, role: String, hello: &Hello) -> Self {
        let said = Said {
            sent: hello.revision,
            active: None,
            nacked: None,
            health: None,
            plugins: None,
            heard: Instant::now(),
        };
        Self {
            node,
            role,
            epoch: hello.epoch,
            group: hello.group.clone(),
            version: hello.version.clone(),
            said: Mutex::new(said),
            end: watch::Sender::new(None),
        }
    }

    /// Ends the stream; the first reason stays.
    pub(crate) fn end(&self, end: End) {
        self.end.send_if_modified(|present| {
            let first = present.is_none();
            if first {
                *present = Some(end);
            }
            first
        });
    }

    pub(crate) fn ended(&self) -> watch::Receiver<Option<End>> {
        self.end.subscribe()
    }

    pub(crate) fn sent(&self, revision: u64) {
        lock(&self.said).sent = revision;
    }

    /// Takes a message from the node. One without meaning is counted as a sign of life.
    pub(crate) fn heard(&self, message: PushUp) {
        let mut said = lock(&self.said);
        said.heard = Instant::now();
        match message.up {
            Some(Up::Ack(ack)) => {
                said.active = Some(ack.revision);
                if said.nacked.as_ref().is_some_and(|(refused, _)| *refused <= ack.revision) {
                    said.nacked = None;
                }
            }
            Some(Up::Nack(nack)) => {
                let problems = bounded(nack.problems);
                let first = problems.first().map(|p| format!("{}: {}", p.code, p.message)).unwrap_or_default();
                let (node, revision) = (&self.node, nack.revision);
                tracing::warn!(code = "PV-PUSH-NACK", node, revision, first, "a node cannot run a revision");
                said.nacked = Some((nack.revision, problems));
            }
            Some(Up::Health(health)) => said.health = Some(health.into()),
            Some(Up::Plugins(plugins)) => said.plugins = Some(bounded_plugins(plugins)),
            Some(Up::Hello(_)) | None => {}
        }
    }

    pub(crate) fn report(&self, place: &Place) -> Subscriber {
        let head = place.track.head_revision();
        let said = lock(&self.said);
        let (nacked, problems) = said.nacked.clone().unzip();
        Subscriber {
            node: self.node.clone(),
            role: self.role.clone(),
            group: self.group.clone(),
            version: self.version.clone(),
            epoch: self.epoch,
            sent: Revision(said.sent),
            active: said.active.map(Revision),
            lag: head.saturating_sub(said.active.unwrap_or(0)),
            silent_ms: u64::try_from(said.heard.elapsed().as_millis()).unwrap_or(u64::MAX),
            nacked: nacked.map(Revision),
            problems: problems.unwrap_or_default(),
            health: said.health,
            part: place.part,
            plugins: said.plugins.clone(),
        }
    }
}
