//! What control-plane nodes tell each other of the nodes that each of them serves.
//!
//! A node knows only its own streams and its own replica; status and the judging of a staged change
//! need all of them. So each node answers its peers with what it knows, and whoever needs the whole
//! asks all at once. Nothing is kept: a peer that does not answer in time is left out, and said so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use provost_control_raft::{Dial, Peer};
use provost_types::{BoxFuture, Revision};
use provost_wire::node::{
    Health, NodeStanding, ReportRequest, ReportResponse,
    standing_client::StandingClient,
    standing_server::{Standing, StandingServer},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::timeout;
use tonic::{Request, Response, Status, transport::Channel};

use super::status::{SubscriberStatus, Subscribers, role};
use crate::{
    ControlNode,
    node::GROUP,
    push::{Part, PushHub, Subscriber},
};

/// A peer gets so long to answer.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of a peer's answer: where plugins cannot be fetched, each node that it serves names many of them, with the reason
/// of each in tens of kilobytes. An answer that is too large would hide all of its nodes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A control-plane node's replica, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStanding {
    /// `leader`, `follower`, `candidate`, `learner`.
    pub role: &'static str,
    /// Its build.
    pub version: String,
    /// The last entry that it applied.
    pub applied: u64,
    /// The last entry in its log.
    pub last_log: u64,
    /// When its certificate ends, RFC 3339; empty: unknown.
    pub certificate_expires: String,
}

/// When this node's present certificate ends.
pub type CertificateEnd = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What all control-plane nodes that answered know.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// The replicas that answered, by id.
    pub replicas: BTreeMap<u64, ReplicaStanding>,
    /// The nodes that take configuration, each with whom it takes it from.
    pub nodes: Vec<(String, Subscriber)>,
    /// By the leader's word, what a held change waits for.
    pub waits_for: String,
}

/// This node's word, and how to ask the others for theirs. Clones share it.
#[derive(Clone)]
pub(crate) struct Standings {
    inner: Arc<Inner>,
}

struct Inner {
    node: ControlNode,
    hub: PushHub,
    dial: Dial,
    certificate_end: CertificateEnd,
    channels: Mutex<BTreeMap<(u64, String), Channel>>,
    waits_for: Mutex<String>,
}

impl Standings {
    pub(crate) fn new(node: ControlNode, hub: PushHub, dial: Dial, certificate_end: CertificateEnd) -> Self {
        let (channels, waits_for) = Default::default();
        Self { inner: Arc::new(Inner { node, hub, dial, certificate_end, channels, waits_for }) }
    }

    /// The service for peers.
    pub(crate) fn service(&self) -> StandingServer<Self> {
        StandingServer::new(self.clone())
    }

    /// Notes what a held change waits for; empty: nothing is held, or this node does not lead.
    pub(crate) fn note(&self, waits_for: String) {
        *self.inner.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = waits_for;
    }

    fn own(&self) -> ReportResponse {
        let Inner { node, hub, certificate_end, waits_for, .. } = &*self.inner;
        let status = node.status();
        ReportResponse {
            node_id: status.group.node_id,
            node: status.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: role(status.group.role).to_owned(),
            applied: status.group.applied.unwrap_or(0),
            last_log: status.group.last_log.unwrap_or(0),
            nodes: hub.subscribers().into_iter().map(to_wire).collect(),
            waits_for: waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            certificate_expires: to_the_second(certificate_end()),
        }
    }

    /// Asks every replica at once.
    pub(crate) async fn gather(&self) -> Gathered {
        let metrics = self.inner.node.status().group;
        let peers = metrics.addresses.iter().filter(|(id, _)| **id != metrics.node_id);
        let asked = join_all(peers.map(|(id, address)| self.ask(*id, address))).await;
        merge(std::iter::once(self.own()).chain(asked.into_iter().flatten()))
    }

    async fn ask(&self, id: u64, address: &str) -> Option<ReportResponse> {
        let mut client = StandingClient::new(self.channel(id, address)).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = timeout(ASK_LIMIT, client.report(ReportRequest {})).await;
        Some(answer.ok()?.ok()?.into_inner()).filter(|answer| answer.node_id == id)
    }

    fn channel(&self, id: u64, address: &str) -> Channel {
        let mut channels = self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner);
        // A node that moved is reached elsewhere; its former channel is of no use.
        channels.retain(|(other, at), _| *other != id || at == address);
        let make = || (self.inner.dial)(&Peer { id, address: address.to_owned(), group: GROUP.to_owned() });
        channels.entry((id, address.to_owned())).or_insert_with(make).clone()
    }
}

impl Subscribers for Standings {
    fn subscribers(&self) -> Vec<SubscriberStatus> {
        Subscribers::subscribers(&self.inner.hub)
    }

    fn gather(&self) -> BoxFuture<'_, Option<Gathered>> {
        Box::pin(async move { Some(self.gather().await) })
    }
}

#[tonic::async_trait]
impl Standing for Standings {
    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Ok(Response::new(self.own()))
    }
}

/// A node that has just gone from one control-plane node to another is known to both: its latest
/// start counts, then who heard it last.
fn merge(answers: impl Iterator<Item = ReportResponse>) -> Gathered {
    let mut gathered = Gathered::default();
    let mut nodes: BTreeMap<String, (String, Subscriber)> = BTreeMap::new();
    for answer in answers {
        for node in answer.nodes.into_iter().map(from_wire) {
            let is_later = nodes.get(&node.node).is_none_or(|(_, known)| {
                (node.epoch, std::cmp::Reverse(node.silent_ms)) > (known.epoch, std::cmp::Reverse(known.silent_ms))
            });
            if is_later {
                nodes.insert(node.node.clone(), (answer.node.clone(), node));
            }
        }
        let roles = ["leader", "follower", "candidate", "learner", "unreachable"];
        let role = roles.into_iter().find(|r| *r == answer.role).unwrap_or_default();
        if role == "leader" && !answer.waits_for.is_empty() {
            gathered.waits_for = answer.waits_for;
        }
        let (applied, last_log) = (answer.applied, answer.last_log);
        let (version, certificate_expires) = (answer.version, answer.certificate_expires);
        let replica = ReplicaStanding { role, version, applied, last_log, certificate_expires };
        gathered.replicas.insert(answer.node_id, replica);
    }
    gathered.nodes = nodes.into_values().collect();
    gathered
}

/// RFC 3339; empty for a time that it cannot say.
fn to_the_second(at: SystemTime) -> String {
    let whole = OffsetDateTime::from(at).replace_nanosecond(0).ok();
    whole.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

fn to_wire(node: Subscriber) -> NodeStanding {
    let health =
        node.health.map(|h| Health { revision: h.revision, calls: h.calls, denials: h.denials, errors: h.errors });
    NodeStanding {
        node: node.node,
        role: node.role,
        version: node.version,
        epoch: node.epoch,
        sent: node.sent.0,
        active: node.active.map(|r| r.0),
        lag: node.lag,
        silent_ms: node.silent_ms,
        nacked: node.nacked.map(|r| r.0),
        problems: node.problems,
        health,
        stage: node.part.as_str().to_owned(),
        plugins: node.plugins,
    }
}

fn from_wire(node: NodeStanding) -> Subscriber {
    Subscriber {
        node: node.node,
        role: node.role,
        group: String::new(),
        version: node.version,
        epoch: node.epoch,
        sent: Revision(node.sent),
        active: node.active.map(Revision),
        lag: node.lag,
        silent_ms: node.silent_ms,
        nacked: node.nacked.map(Revision),
        problems: node.problems,
        health: node.health.map(Into::into),
        part: Part::read(&node.stage),
        plugins: node.plugins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u64, role: &str, nodes: Vec<(&str, u64, u64)>) -> ReportResponse {
        let node = |(node, epoch, silent_ms): (&str, u64, u64)| NodeStanding {
            node: node.to_owned(),
            epoch,
            silent_ms,
            active: Some(7),
            stage: "held".to_owned(),
            ..NodeStanding::default()
        };
        ReportResponse {
            node_id: id,
            node: format!("cp-{id}"),
            role: role.to_owned(),
            waits_for: format!("by {id}"),
            certificate_expires: format!("of {id}"),
            nodes: nodes.into_iter().map(node).collect(),
            ..ReportResponse::default()
        }
    }

    #[test]
    fn a_node_is_known_by_its_latest_start_and_the_leader_says_what_is_waited_for() {
        let answers = [
            answer(1, "follower", vec![("dp-1", 1, 5), ("dp-2", 3, 900)]),
            answer(2, "leader", vec![("dp-1", 2, 9_000), ("dp-2", 3, 10)]),
        ];
        let gathered = merge(answers.into_iter());
        let via: Vec<_> = gathered.nodes.iter().map(|(via, n)| (n.node.as_str(), via.as_str(), n.epoch)).collect();
        assert_eq!(via, [("dp-1", "cp-2", 2), ("dp-2", "cp-2", 3)]);
        assert_eq!(gathered.nodes[0].1.active, Some(Revision(7)));
        assert_eq!(gathered.nodes[0].1.part, Part::Held);
        assert_eq!(gathered.waits_for, "by 2");
        let ends: Vec<_> = gathered.replicas.iter().map(|(id, r)| (*id, r.certificate_expires.as_str())).collect();
        assert_eq!(ends, [(1, "of 1"), (2, "of 2")]);
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_999);
        assert_eq!(to_the_second(at), "1970-01-02T00:00:00Z");
    }
}
