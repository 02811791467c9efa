//! The GPU nodes of the cluster, as one [`Inference`].
//!
//! Purpose: each request goes to the node that answers it soonest by what nodes report of themselves (`choose`); one whose
//! node is lost before anything was told of its answer goes to another, once; and when no node has a place, the caller is
//! told when to come again.
//! Invariants: nothing here admits a call, charges for it or records it: it is one call of the pipeline, however many nodes
//! are asked. What was told of an answer is never told again: a node that is lost after that ends the answer. Nodes are
//! members with the role gpu-node, over mutual TLS; a node of this process is one of them.
//! Left out: who the members are and how they are reached (whoever composes the node says so), what a model computes.

pub(crate) mod again;
mod answer;
mod aside;
mod asked;
mod attempt;
mod choose;
mod counts;
mod peer;
mod seat;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use arc_swap::ArcSwap;
use provost_types::{
    BoxFuture, BoxStream, ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, GpuReport, Inference, InferenceError,
    ModelInfo, ModelReport, TranscribeRequest, Transcript,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use answer::{Answer, Shown};
use asked::Asked;
use attempt::{Attempt, Nobody, unknown};
use choose::{Candidate, Wanted, choose};
use counts::Counts;
pub use counts::{GpuCounts, GpuNodeCounts};
use peer::{Has, Peer};
use seat::Seat;

/// Between two looks whether nodes were heard.
const SETTLE_LOOK: Duration = Duration::from_millis(20);
/// When to come again if no node is reached and none is set aside, in milliseconds.
const UNREACHED_RETRY_MS: u64 = 1_000;

/// A member that runs models, and the way to it.
pub struct GpuAddress {
    /// Its name in the cluster.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
    /// Connects by itself, and insists on that node.
    pub channel: Channel,
}

/// A node for those who watch.
#[derive(Clone, Debug)]
pub struct GpuNodeView {
    /// Its name in the cluster.
    pub name: String,
    /// What it said last.
    pub report: Arc<GpuReport>,
    /// It says something, lately.
    pub is_heard: bool,
    /// Requests were lost there: it gets none for a while.
    pub is_aside: bool,
    /// What came of the requests that were sent there.
    pub counts: GpuNodeCounts,
}

/// See the module.
#[derive(Clone)]
pub struct GpuNodes(Arc<Nodes>);

struct Nodes {
    /// This process's name.
    own: String,
    local: Option<Arc<dyn Inference>>,
    peers: ArcSwap<Vec<Arc<Watched>>>,
    /// The members were told once.
    are_known: AtomicBool,
    counts: Counts,
}

/// A node that is listened to as long as it is kept.
struct Watched {
    peer: Arc<Peer>,
    _watching: AbortOnDropHandle<()>,
}

impl GpuNodes {
    /// The node of this process, if there is one, and no other yet.
    pub fn new(own: impl Into<String>, local: Option<Arc<dyn Inference>>) -> Self {
        Self(Arc::new(Nodes {
            own: own.into(),
            local,
            peers: ArcSwap::default(),
            are_known: AtomicBool::new(false),
            counts: Counts::default(),
        }))
    }

    /// Replaces the nodes of other processes. What is known of those that stay is kept. Within a runtime.
    pub fn set(&self, members: Vec<GpuAddress>) {
        let known = self.0.peers.load();
        let others = members.into_iter().filter(|member| member.name != self.0.own);
        let peers = others.map(|member| {
            let same = known.iter().find(|watched| watched.peer.is_at(&member.name, &member.address));
            same.cloned().unwrap_or_else(|| Arc::new(Watched::new(member)))
        });
        let peers: Vec<Arc<Watched>> = peers.collect();
        self.0.counts.keep(|name| name == self.0.own || peers.iter().any(|watched| watched.peer.name() == name));
        self.0.peers.store(Arc::new(peers));
        self.0.are_known.store(true, Ordering::Release);
    }

    /// Waits until the members are known and each was heard, or should have been.
    pub async fn settled(&self) {
        let is_settled =
            || self.0.are_known.load(Ordering::Acquire) && self.0.peers.load().iter().all(|w| w.peer.is_settled());
        while !is_settled() {
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    }

    /// The nodes, for those who watch; that of this process if it has models.
    pub fn views(&self) -> Vec<GpuNodeView> {
        let nodes = &*self.0;
        let local = nodes.local.as_ref().and_then(|local| local.report()).filter(|report| !report.models.is_empty());
        let local = local.map(|report| (nodes.own.clone(), (Arc::new(report), true, false)));
        let peers = nodes.peers.load();
        let peers = peers.iter().map(|watched| (watched.peer.name().to_owned(), watched.peer.standing()));
        let view = |(name, (report, is_heard, is_aside)): (String, (Arc<GpuReport>, bool, bool))| {
            let counts = nodes.counts.of(&name);
            GpuNodeView { name, report, is_heard, is_aside, counts }
        };
        local.into_iter().chain(peers).map(view).collect()
    }

    /// Refuses what is not there for a tenant as what no node has: whether its nodes are full or lost tells that it exists.
    fn check_seen(&self, model: &str, tenant: &str) -> Result<(), InferenceError> {
        if self.is_seen_by(model, tenant) { Ok(()) } else { Err(unknown(model)) }
    }

    /// What was counted of all nodes together.
    pub fn counts(&self) -> GpuCounts {
        self.0.counts.all()
    }
}

impl Watched {
    fn new(member: GpuAddress) -> Self {
        let peer = Arc::new(Peer::new(member.name, member.address, member.channel));
        let watched = peer.clone();
        let watching = tokio::spawn(async move { watched.watch().await });
        Self { peer, _watching: AbortOnDropHandle::new(watching) }
    }
}

impl Nodes {
    fn seats(&self) -> Vec<Seat> {
        let here = self.local.iter().map(|node| Seat::Here { name: self.own.clone(), node: node.clone() });
        let peers = self.peers.load();
        here.chain(peers.iter().map(|watched| Seat::There(watched.peer.clone()))).collect()
    }

    /// The best node for a request of this model, of those that were not tried.
    fn pick(&self, model: &str, wanted: Wanted, tried: &[String]) -> Result<Seat, Nobody> {
        let (mut seats, mut candidates, mut retry_ms) = (Vec::new(), Vec::new(), u64::MAX);
        for seat in self.seats().into_iter().filter(|seat| !tried.iter().any(|name| name == seat.name())) {
            let Some(report) = seat.report() else { continue };
            let Some(of_model) = report.model(model) else { continue };
            candidates.push(candidate(&seat, &report, of_model));
            retry_ms = retry_ms.min(report.retry_after_ms);
            seats.push(seat);
        }
        match choose(&candidates, wanted) {
            Some(index) if index < seats.len() => Ok(seats.swap_remove(index)),
            _ if !seats.is_empty() => Err(Nobody::Full { retry_ms }),
            _ => Err(self.nobody(model, tried)),
        }
    }

    /// Why no node can be asked.
    fn nobody(&self, model: &str, tried: &[String]) -> Nobody {
        let peers = self.peers.load();
        let untried = peers.iter().map(|watched| &watched.peer).filter(|peer| !tried.iter().any(|t| t == peer.name()));
        let waits = untried.filter(|peer| peer.has(model) != Has::No).map(|peer| {
            let aside = peer.aside().map(|aside| u64::try_from(aside.as_millis()).unwrap_or(u64::MAX));
            aside.unwrap_or(UNREACHED_RETRY_MS)
        });
        waits.min().map_or(Nobody::Unknown, |retry_ms| Nobody::Unreached { retry_ms })
    }
}

fn candidate(seat: &Seat, report: &GpuReport, model: &ModelReport) -> Candidate {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float to an integer saturates")]
    let tokens_per_s = model.tokens_per_s as u64;
    Candidate {
        name: seat.name().to_owned(),
        state: model.state,
        load_ms: model.load_ms,
        waiting: report.waiting.saturating_add(seat.sent()),
        places: report.places,
        running: report.running,
        slots: report.slots,
        service_ms: report.service_ms,
        tokens_per_s,
    }
}

impl Inference for GpuNodes {
    fn models(&self) -> Vec<ModelInfo> {
        let mut models = self.0.local.as_ref().map(|local| local.models()).unwrap_or_default();
        for watched in self.0.peers.load().iter() {
            models.extend(watched.peer.models());
        }
        // Of nodes that tell different things of one name, that of this process, then the first one.
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models.dedup_by(|later, first| later.name == first.name);
        models
    }

    fn is_seen_by(&self, model: &str, tenant: &str) -> bool {
        // What is declared is so for all nodes, and that of this process is told of it. Each node looks itself, too.
        if self.0.local.as_ref().is_some_and(|local| !local.is_seen_by(model, tenant)) {
            return false;
        }
        // Adapters are of the nodes that have them: they say which of them are over a model of some tenants only.
        let mut is_hidden = false;
        for watched in self.0.peers.load().iter() {
            match watched.peer.shows(model, tenant) {
                Some(true) => return true,
                Some(false) => is_hidden = true,
                None => {}
            }
        }
        let is_here =
            || self.0.local.as_ref().is_some_and(|local| local.models().iter().any(|info| info.name == model));
        !is_hidden || is_here()
    }

    fn base_of(&self, model: &str) -> Option<String> {
        let here = self.0.local.as_ref().and_then(|local| local.base_of(model));
        here.or_else(|| self.0.peers.load().iter().find_map(|watched| watched.peer.base_of(model)))
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        Box::pin(async move {
            self.check_seen(&request.model, &request.tenant)?;
            let wanted = Wanted::of_embed(&request);
            let asked = Asked::new(request, wanted);
            let mut attempt = Attempt::default();
            loop {
                let seat = attempt.next(&self.0, &asked.request.model, wanted)?;
                match seat.embed(&asked).await {
                    Ok(response) => {
                        self.0.counts.answered(&seat);
                        return Ok(response);
                    }
                    Err(fault) => attempt.take(&self.0.counts, &seat, fault)?,
                }
            }
        })
    }

    fn transcribe(&self, request: TranscribeRequest) -> BoxFuture<'_, Result<Transcript, InferenceError>> {
        Box::pin(async move {
            self.check_seen(&request.model, &request.tenant)?;
            let wanted = Wanted::of_sound(&request);
            let asked = Asked::new(request, wanted);
            let mut attempt = Attempt::default();
            loop {
                let seat = attempt.next(&self.0, &asked.request.model, wanted)?;
                match seat.transcribe(&asked).await {
                    Ok(transcript) => {
                        self.0.counts.answered(&seat);
                        return Ok(transcript);
                    }
                    Err(fault) => attempt.take(&self.0.counts, &seat, fault)?,
                }
            }
        })
    }

    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        Box::pin(async move {
            self.check_seen(&request.model, &request.tenant)?;
            let wanted = Wanted::of_chat(&request);
            let answer = Answer::begin(self.0.clone(), Asked::new(request, wanted), Shown::AsItComes).await?;
            Ok(answer.into_stream())
        })
    }

    fn chat_whole(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        Box::pin(async move {
            self.check_seen(&request.model, &request.tenant)?;
            let wanted = Wanted::of_chat(&request);
            let answer = Answer::begin(self.0.clone(), Asked::new(request, wanted), Shown::AtTheEnd).await?;
            Ok(answer.into_stream())
        })
    }
}

#[cfg(test)]
mod tests;
