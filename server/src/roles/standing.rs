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
    /// Refuses a caller that is not a member.
    pub async fn check(&self, caller: &Certified) -> Result<(), Status> {
        match self {
            Self::Here(registry) => match standing(&registry.cluster(), caller) {
                Ok(_) => Ok(()),
                Err(refused) => Err(ControlError::from(refused).into()),
            },
            Self::Ask(asking) => asking.check(caller).await,
        }
    }
}

/// A node by its certificate.
type Caller = (String, Option<u64>);

/// Asks control-plane nodes, and remembers what they said.
pub struct Asking {
    nodes: Vec<Channel>,
    at: AtomicUsize,
    members: Mutex<HashMap<Caller, Instant>>,
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

    fn members(&self) -> MutexGuard<'_, HashMap<Caller, Instant>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn check(&self, certified: &Certified) -> Result<(), Status> {
        let caller = (certified.name.to_string(), certified.serial_node_id);
        let confirmed = self.members().get(&caller).copied();
        if confirmed.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(());
        }
        match self.ask(&caller).await {
            Ok(()) => {
                let mut members = self.members();
                if members.len() >= MAX_KNOWN {
                    members.retain(|_, at| at.elapsed() < MAX_AGE);
                }
                members.insert(caller, Instant::now());
                Ok(())
            }
            Err(status) if status.code() == Code::PermissionDenied => {
                tracing::warn!(code = "PV-TLS-MEMBER", node = %certified.name, "not a member: its record is refused");
                self.members().remove(&caller);
                Err(status)
            }
            // It was one when somebody could still be asked.
            Err(_) if confirmed.is_some_and(|at| at.elapsed() < MAX_AGE) => Ok(()),
            Err(status) => Err(status),
        }
    }

    async fn ask(&self, (name, serial_node_id): &Caller) -> Result<(), Status> {
        let mut last = Status::unavailable("PV-AUDIT-PEER: no control-plane node says whether the caller is a member");
        for _ in 0..self.nodes.len() {
            let at = self.at.load(Ordering::Relaxed);
            let Some(node) = self.nodes.get(at % self.nodes.len()) else { break };
            let request = StandingRequest { name: name.clone(), serial_node_id: serial_node_id.unwrap_or_default() };
            let mut client = IdentityClient::new(node.clone());
            match tokio::time::timeout(ANSWER_LIMIT, client.standing(request)).await {
                Ok(Ok(answer)) if answer.get_ref().refusal.is_empty() => return Ok(()),
                Ok(Ok(answer)) => return Err(Status::permission_denied(answer.into_inner().refusal)),
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
