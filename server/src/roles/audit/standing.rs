//! Whether a node that sends records is still a member, asked of the control plane.
//!
//! A process with a control-plane role knows the member list; one without learns of a removal only
//! by asking, and until then a removed node's certificate would do for as long as it lives.
//! Invariants: nobody is taken for a member who was never confirmed as one; an answer is good for
//! [`FRESH`], and while no control-plane node answers, for [`MAX_AGE`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use provost_control_api::{
    ControlError,
    identity::{Registry, standing},
};
use provost_wire::{
    admin::Failure,
    node::{StandingRequest, identity_client::IdentityClient},
    tls::{self, Certified, Expect, Identity},
};
use tonic::{Code, Status, transport::Channel};

/// An answer is asked for again after so long: how long a removed node may go on.
const FRESH: Duration = Duration::from_secs(2);
/// An answer counts no longer than this, even if nobody gives another.
const MAX_AGE: Duration = Duration::from_secs(300);
/// One control-plane node gets so long to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A member that was confirmed before waits no longer than this for its next confirmation.
const REFRESH_LIMIT: Duration = Duration::from_millis(300);
/// Nodes that are remembered.
const MAX_KNOWN: usize = 10_000;

/// Whom to ask.
pub enum Standing {
    /// This process has the list.
    Here(Arc<dyn Registry>),
    /// The control plane.
    Ask(Asking),
}

impl Standing {
    /// The member's name; refuses a caller that is none. A caller that is not known yet is told so: it
    /// may be newer than what was asked.
    pub async fn name(&self, caller: &Certified) -> Result<String, Status> {
        match self {
            Self::Here(registry) => {
                let cluster = registry.cluster();
                let id = standing(&cluster, caller).map_err(ControlError::from)?;
                let member = id.and_then(|id| cluster.members().get(&id));
                member.map(|member| member.name.to_string()).ok_or_else(not_known)
            }
            Self::Ask(asking) => asking.name(caller).await,
        }
    }
}

fn not_known() -> Status {
    Status::unavailable("PV-AUDIT-PEER: the caller is not in the member list yet; ask again")
}

/// A node by its certificate.
type Caller = (String, Option<u64>);

/// What was answered of a node.
#[derive(Clone)]
struct Confirmed {
    name: String,
    at: Instant,
    /// The last question, answered or not.
    asked: Instant,
}

/// Asks control-plane nodes, and remembers what they said.
pub struct Asking {
    nodes: Vec<Channel>,
    at: AtomicUsize,
    members: Mutex<HashMap<Caller, Confirmed>>,
}

impl Asking {
    /// Of control-plane nodes at these addresses.
    pub fn new(identity: &Arc<Identity>, control_plane: &[String]) -> Self {
        let channel =
            |address: &String| tls::channel(identity.clone(), address, Expect::role(tls::Role::ControlPlane)).ok();
        let nodes = control_plane.iter().filter_map(channel).collect();
        Self { nodes, at: AtomicUsize::new(0), members: Mutex::default() }
    }

    /// Of nobody.
    #[cfg(test)]
    pub fn without_nodes() -> Self {
        Self { nodes: Vec::new(), at: AtomicUsize::new(0), members: Mutex::default() }
    }

    /// Of nobody any more: this one was confirmed.
    #[cfg(test)]
    pub fn knowing(certified: &Certified) -> Self {
        let (name, now) = (certified.name.id().to_owned(), Instant::now());
        let caller = (certified.name.to_string(), certified.serial_node_id);
        let members = HashMap::from([(caller, Confirmed { name, at: now, asked: now })]);
        Self { nodes: Vec::new(), at: AtomicUsize::new(0), members: Mutex::new(members) }
    }

    fn members(&self) -> MutexGuard<'_, HashMap<Caller, Confirmed>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn name(&self, certified: &Certified) -> Result<String, Status> {
        let caller = (certified.name.to_string(), certified.serial_node_id);
        let known = {
            let mut members = self.members();
            let known = members.get(&caller).filter(|c| c.at.elapsed() < MAX_AGE).cloned();
            if let Some(known) = &known {
                if known.asked.elapsed() < FRESH {
                    return Ok(known.name.clone());
                }
                // Others need not ask meanwhile: without a control plane each would wait in vain.
                members.entry(caller.clone()).and_modify(|c| c.asked = Instant::now());
            }
            known
        };
        let limit = if known.is_some() { REFRESH_LIMIT } else { ANSWER_LIMIT * 2 };
        match tokio::time::timeout(limit, self.ask(&caller)).await {
            Ok(Ok(name)) => {
                let mut members = self.members();
                if members.len() >= MAX_KNOWN {
                    members.retain(|_, c| c.at.elapsed() < MAX_AGE);
                }
                let now = Instant::now();
                members.insert(caller, Confirmed { name: name.clone(), at: now, asked: now });
                Ok(name)
            }
            Ok(Err(status)) if status.code() == Code::PermissionDenied => {
                tracing::warn!(code = "PV-TLS-MEMBER", node = %certified.name, "not a member: its record is refused");
                self.members().remove(&caller);
                Err(status)
            }
            // It was one when somebody could still be asked.
            other => {
                if other.is_err() {
                    self.at.fetch_add(1, Ordering::Relaxed);
                }
                match (known, other) {
                    (Some(known), _) => Ok(known.name),
                    (None, Ok(Err(status))) => Err(status),
                    (None, _) => Err(Status::unavailable("PV-AUDIT-PEER: no control-plane node answers")),
                }
            }
        }
    }

    async fn ask(&self, (name, serial_node_id): &Caller) -> Result<String, Status> {
        let mut last = Status::unavailable("PV-AUDIT-PEER: no control-plane node says whether the caller is a member");
        for _ in 0..self.nodes.len() {
            let at = self.at.load(Ordering::Relaxed);
            let Some(node) = self.nodes.get(at % self.nodes.len()) else { break };
            let request = StandingRequest { name: name.clone(), serial_node_id: serial_node_id.unwrap_or_default() };
            let mut client = IdentityClient::new(node.clone());
            match tokio::time::timeout(ANSWER_LIMIT, client.standing(request)).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    if !answer.refusal.is_empty() {
                        return Err(Status::permission_denied(answer.refusal));
                    }
                    if !answer.node.is_empty() {
                        return Ok(answer.node);
                    }
                    last = not_known();
                }
                Ok(Err(status)) => {
                    last = Status::unavailable(format!("PV-AUDIT-PEER: {}", Failure::of(&status)));
                }
                Err(_) => {}
            }
            self.at.store(at + 1, Ordering::Relaxed);
        }
        Err(last)
    }
}
