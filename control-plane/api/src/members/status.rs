//! How the cluster stands, as one node knows it.

use std::{collections::BTreeSet, time::Duration};

use provost_control_raft::{GroupMetrics, Role};
use provost_control_state::Release;
use provost_types::{BoxFuture, Revision};
use provost_wire::node::PluginsStanding;
use tokio::time::timeout;

use super::Gathered;
use crate::{
    Caller, ControlError, ControlNode, LocatedProblem,
    push::{self, Part},
};

/// How long a status waits for a quorum before it says what this node knows by itself.
const CONFIRM_LIMIT: Duration = Duration::from_secs(2);
/// A follower that has not answered for so long counts as unreachable.
const SILENT_LIMIT: Duration = Duration::from_secs(5);

/// The cluster as one node knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The state's revision at this node.
    pub revision: Revision,
    /// This node.
    pub node_id: u64,
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// Whether a quorum confirmed that this is the present state.
    pub confirmed: bool,
    /// The version that every control-plane node can read.
    pub wire_version: u32,
    /// Every member with its replica, by id.
    pub members: Vec<MemberStatus>,
    /// Who takes configuration, each with the control-plane node that it takes it from.
    pub subscribers: Vec<(String, SubscriberStatus)>,
    /// How far changes are released; `None`: there is no node group.
    pub release: Option<Release>,
    /// What a held change waits for, by the leader's word; empty: nothing is held, or it is unknown.
    pub waits_for: String,
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberStatus {
    /// Its id.
    pub id: u64,
    /// Its name; empty: unknown.
    pub name: String,
    /// Where peers reach it.
    pub address: String,
    /// Its roles, separated by commas; empty: unknown.
    pub roles: String,
    /// `voter`, `learner`; empty: it has no replica.
    pub membership: &'static str,
    /// `leader`, `follower`, `candidate`, `learner`, `unreachable`; empty: unknown here.
    pub role: &'static str,
    /// The last log index that it is known to have; 0: unknown here.
    pub applied: u64,
    /// Entries behind the leader; 0 also where that is unknown.
    pub lag: u64,
    /// What is known from outside the group.
    pub facts: NodeFacts,
    /// The version that it speaks, by its last word; 0: unknown, or no replica.
    pub wire_version: u32,
}

/// What is known of a node from its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its build; empty: unknown.
    pub version: String,
    /// RFC 3339; empty: unknown.
    pub certificate_expires: String,
}

/// A node that takes configuration from a control-plane node.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriberStatus {
    /// Its name.
    pub node: String,
    /// Its roles.
    pub role: String,
    /// What it runs; 0: it has not said.
    pub revision: Revision,
    /// Revisions behind.
    pub lag: u64,
    /// Since it was last heard.
    pub silent: Duration,
    /// Why it could not run a revision.
    pub problems: Vec<LocatedProblem>,
    /// Its build.
    pub version: String,
    /// Its part in a staged release.
    pub part: Part,
    /// The revision that it could not run, unless it has run a later one since.
    pub refused: Option<Revision>,
    /// How far it is with its plugins; `None`: it has not said.
    pub plugins: Option<PluginsStanding>,
}

/// What the process around the node knows of other nodes.
pub trait Subscribers: Send + Sync {
    /// Who takes configuration from here.
    fn subscribers(&self) -> Vec<SubscriberStatus>;

    /// Who serves calls, of those that are known here: also a node of this process, which takes configuration from
    /// nobody.
    fn serving(&self) -> Vec<SubscriberStatus> {
        self.subscribers()
    }

    /// What all control-plane nodes know; `None`: nobody else is asked.
    fn gather(&self) -> BoxFuture<'_, Option<Gathered>> {
        Box::pin(std::future::ready(None))
    }

    /// What is known of a member from its connections.
    fn facts(&self, _node_id: u64, _name: &str) -> NodeFacts {
        NodeFacts::default()
    }
}

/// Nobody takes configuration from this node.
pub struct NoSubscribers;

impl Subscribers for NoSubscribers {
    fn subscribers(&self) -> Vec<SubscriberStatus> {
        Vec::new()
    }
}

impl Subscribers for push::PushHub {
    fn subscribers(&self) -> Vec<SubscriberStatus> {
        push::PushHub::subscribers(self).into_iter().map(SubscriberStatus::from).collect()
    }
}

impl From<push::Subscriber> for SubscriberStatus {
    fn from(node: push::Subscriber) -> Self {
        let problem = |p: provost_wire::node::NackProblem| LocatedProblem {
            resource: p.resource,
            code: p.code,
            message: p.message,
            ..Default::default()
        };
        Self {
            node: node.node,
            role: node.role,
            revision: node.active.unwrap_or_default(),
            lag: node.lag,
            silent: Duration::from_millis(node.silent_ms),
            problems: node.problems.into_iter().map(problem).collect(),
            version: node.version,
            part: node.part,
            refused: node.nacked,
            plugins: node.plugins,
        }
    }
}

impl ControlNode {
    /// How the cluster stands. It answers without a quorum too, and says so.
    pub async fn cluster_status(
        &self,
        caller: &Caller,
        nodes: &dyn Subscribers,
    ) -> Result<ClusterStatus, ControlError> {
        caller.needs_cluster("the cluster's nodes")?;
        let confirmed = timeout(CONFIRM_LIMIT, self.inner.group.read_barrier()).await.is_ok_and(|read| read.is_ok());
        let gathered = nodes.gather().await;
        let subscribers = match &gathered {
            Some(gathered) => gathered.nodes.iter().map(|(via, n)| (via.clone(), n.clone().into())).collect(),
            None => nodes.subscribers().into_iter().map(|n| (self.inner.config.node_name.clone(), n)).collect(),
        };
        let Gathered { replicas: words, waits_for, .. } = gathered.unwrap_or_default();
        let last_log = words.values().map(|r| r.last_log).max().unwrap_or(0);
        let state = self.inner.published.state.load_full();
        let metrics = self.group_metrics().await;
        let members = state.cluster().members();
        let replicas = metrics.voters.iter().chain(&metrics.learners);
        let ids: BTreeSet<u64> = replicas.chain(members.keys()).copied().collect();
        let member = |id: u64| {
            let own = id == metrics.node_id;
            let known = members.get(&id);
            let name = match known {
                Some(member) => member.name.to_string(),
                None if own => self.inner.config.node_name.clone(),
                None => String::new(),
            };
            let roles: Vec<&str> = known.into_iter().flat_map(|m| m.roles.iter().map(|role| role.as_str())).collect();
            let address = known.map(|m| m.address.clone()).filter(|a| !a.is_empty());
            let mut facts = nodes.facts(id, &name);
            let mut replica = Replica::of(&metrics, id);
            if let Some(word) = words.get(&id).filter(|_| facts.certificate_expires.is_empty()) {
                facts.certificate_expires.clone_from(&word.certificate_expires);
            }
            if let Some(word) = words.get(&id)
                && !own
            {
                // A follower knows nothing of the others; they do.
                facts.version = word.version.clone();
                (replica.applied, replica.lag) = (word.applied, last_log.saturating_sub(word.applied));
                if replica.role.is_empty() {
                    replica.role = word.role;
                }
            } else if !own && !words.is_empty() && !replica.membership.is_empty() && replica.role != "leader" {
                replica.role = "unreachable";
            }
            if let Some(member) = known.filter(|_| facts.version.is_empty()) {
                facts.version = member.version.build.clone();
            }
            MemberStatus {
                id,
                name,
                address: address.or_else(|| metrics.addresses.get(&id).cloned()).unwrap_or_default(),
                roles: roles.join(","),
                membership: replica.membership,
                role: replica.role,
                applied: replica.applied,
                lag: replica.lag,
                facts: if own { facts.or_own_version() } else { facts },
                wire_version: known.filter(|_| !replica.membership.is_empty()).map_or(0, |m| m.version.wire),
            }
        };
        Ok(ClusterStatus {
            cluster: self.inner.config.cluster.clone(),
            revision: state.revision(),
            node_id: metrics.node_id,
            leader: metrics.leader,
            term: metrics.term,
            confirmed,
            wire_version: state.cluster().version(),
            members: ids.into_iter().map(member).collect(),
            subscribers,
            release: state.release().map(|release| (**release).clone()),
            waits_for,
        })
    }
}

impl ControlNode {
    /// The group as this node sees it, with what the leader says of the members: every node then
    /// tells the same. Without a leader it is what this node knows by itself.
    async fn group_metrics(&self) -> GroupMetrics {
        let mut metrics = self.inner.group.metrics();
        if metrics.role != Role::Leader
            && let Ok(Ok(followers)) = timeout(CONFIRM_LIMIT, self.inner.group.followers()).await
        {
            metrics.followers = followers;
        }
        metrics
    }
}

impl NodeFacts {
    fn or_own_version(mut self) -> Self {
        if self.version.is_empty() {
            self.version = env!("CARGO_PKG_VERSION").to_owned();
        }
        self
    }
}

/// A member's part in the group.
#[derive(Default)]
struct Replica {
    membership: &'static str,
    role: &'static str,
    applied: u64,
    lag: u64,
}

impl Replica {
    fn of(metrics: &GroupMetrics, id: u64) -> Self {
        let membership = match (metrics.voters.contains(&id), metrics.learners.contains(&id)) {
            (true, _) => "voter",
            (false, true) => "learner",
            (false, false) => return Self::default(),
        };
        if id == metrics.node_id {
            let applied = metrics.applied.unwrap_or(0);
            let lag = metrics.last_log.unwrap_or(0).saturating_sub(applied);
            return Self { membership, role: role(metrics.role), applied, lag };
        }
        match metrics.followers.get(&id) {
            Some(follower) => {
                let silent = follower.acked_ago.is_none_or(|ago| ago > SILENT_LIMIT);
                let role = match (silent, membership) {
                    _ if metrics.leader == Some(id) => "leader",
                    (true, _) => "unreachable",
                    (false, "learner") => "learner",
                    (false, _) => "follower",
                };
                Self { membership, role, applied: follower.matched.unwrap_or(0), lag: follower.lag }
            }
            None if metrics.leader == Some(id) => Self { membership, role: "leader", ..Self::default() },
            None => Self { membership, ..Self::default() },
        }
    }
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "unreachable",
    }
}
