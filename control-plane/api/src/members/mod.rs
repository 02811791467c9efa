//! The cluster's nodes: who they are, how they stand, and changing that.
//!
//! A control-plane node is two things: a member, known by its certificate, and a replica of the
//! control group. It leaves in that order reversed: the replica first, so that no quorum waits for
//! a node that is no longer let in.
//!
//! Left out: joining and certificates (`identity`), promotion of learners by themselves (the Raft
//! crate).

mod dead;
mod deed;
mod joining;
mod release;
mod standing;
mod status;

pub(crate) use dead::remove_dead;
pub(crate) use deed::Deed;
pub(crate) use release::decide_releases;
pub(crate) use standing::Standings;
pub use standing::{CertificateEnd, Gathered, ReplicaStanding};
pub use status::{ClusterStatus, MemberStatus, NoSubscribers, NodeFacts, SubscriberStatus, Subscribers};

use provost_control_state::{ClusterCommand, State};
use provost_wire::tls::Role;

use crate::{
    Caller, ControlError, ControlNode, ErrorKind,
    identity::{Registry, rejected},
    record::now_ns,
};

impl ControlNode {
    /// Takes a node out for good. `node` is its name or id.
    pub async fn remove_node(&self, caller: &Caller, node: &str) -> Result<(), ControlError> {
        let id = self.resolve(caller, node).await?;
        let this = self.clone();
        let deed = Deed::new("node.remove", vec![node.to_owned()], format!("node {id}"));
        self.recorded(caller, deed.last(id == self.inner.config.node_id), async move {
            let state = this.inner.published.state.load_full();
            if state.cluster().members().contains_key(&id) {
                // Before its replica goes: it would come back by itself.
                state.cluster().check_not_last(id).map_err(|e| rejected(e.problems))?;
            }
            this.leave_audit(id, &state).await?;
            let metrics = this.inner.group.metrics();
            if metrics.voters.contains(&id) || metrics.learners.contains(&id) {
                this.inner.group.remove(id).await?;
            }
            // A crash here leaves a member without a replica: removing it again ends it.
            if this.inner.published.state.load().cluster().members().contains_key(&id) {
                Registry::change(&this, ClusterCommand::NodeRemoved { node_id: id, time_ns: now_ns() }).await?;
            }
            Ok(())
        })
        .await
    }

    /// Takes a member's replica of the audit log out, if it has one.
    async fn leave_audit(&self, id: u64, state: &State) -> Result<(), ControlError> {
        let keeps = state.cluster().members().get(&id).is_some_and(|m| m.has(Role::AuditLog.as_str()));
        let Some(departures) = self.inner.config.departures.as_ref().filter(|_| keeps) else { return Ok(()) };
        departures.leave(id).await.map_err(|why| {
            let text = format!("node {id} cannot leave the audit log's replicas: {why}");
            let hint = "start the other audit-log nodes, or add one and wait until it votes; then remove it again";
            ControlError::new(ErrorKind::Refused, "PV-AUDIT-LEAVE", text, hint)
        })
    }

    /// Makes a learner a voter now.
    pub async fn promote_node(&self, caller: &Caller, node: &str) -> Result<(), ControlError> {
        let id = self.resolve(caller, node).await?;
        let this = self.clone();
        let deed = Deed::new("node.promote", vec![node.to_owned()], format!("node {id}"));
        self.recorded(caller, deed, async move { Ok(this.inner.group.promote(id).await?) }).await
    }

    /// Moves the lead of the control group to a voter.
    pub async fn transfer_leader(&self, caller: &Caller, node: &str) -> Result<(), ControlError> {
        let id = self.resolve(caller, node).await?;
        let this = self.clone();
        let deed = Deed::new("leader.transfer", vec![node.to_owned()], format!("node {id}"));
        self.recorded(caller, deed, async move { Ok(this.inner.group.transfer_leader(id).await?) }).await
    }

    /// The id of a node given by name or id, for one who may change the cluster.
    async fn resolve(&self, caller: &Caller, node: &str) -> Result<u64, ControlError> {
        caller.needs_cluster("the cluster's nodes")?;
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        if let Some((id, _)) = state.cluster().member_named(node) {
            return Ok(id);
        }
        if node == self.inner.config.node_name {
            return Ok(self.inner.config.node_id);
        }
        let metrics = self.inner.group.metrics();
        let known = |id: &u64| {
            metrics.voters.contains(id) || metrics.learners.contains(id) || state.cluster().members().contains_key(id)
        };
        node.parse().ok().filter(known).ok_or_else(|| {
            let text = format!("no node has the name or id `{node}`");
            let hint = "`provost cluster status` lists the members";
            ControlError::new(ErrorKind::NotFound, "PV-CLUSTER-NO-NODE", text, hint)
        })
    }
}
