//! One control-plane node with its services, over an in-memory registry.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot_free::Mutex;
use provost_control_state::{Cluster, ClusterCommand, ClusterReply};
use provost_types::{Name, Revision};
use provost_wire::{
    node::{
        identity_server::IdentityServer, join_server::JoinServer, peer_server::PeerServer, push_server::PushServer,
    },
    tls::{Expect, Identity, Limits, Material, Role, Roles, channel, incoming},
};
use secrecy::ExposeSecret;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};
use tonic::transport::{Channel, Server};
use zeroize::Zeroizing;

use crate::{
    ControlError, ErrorKind, SecretError,
    identity::{
        AgentNameRule, AgentNames, Certifier, IdentityService, JoinService, Joined, Joining, KeyRequest, KeySealer,
        MembersOnly, NodeKey, NodeRecord, Registry, RemoteRenewer, admit, cut_former_members, join, make_join_token,
        registry::rejected,
    },
};

/// `std`'s mutex without poisoning.
mod parking_lot_free {
    use std::sync::{MutexGuard, PoisonError};

    #[derive(Default)]
    pub(super) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The replicated facts without replication.
#[derive(Default)]
pub(super) struct Memory {
    state: Mutex<(u64, Cluster)>,
    /// Every command that took effect.
    log: Mutex<Vec<ClusterCommand>>,
    pub(super) changes: watch::Sender<()>,
    /// Changes take effect and their answers are lost, this often.
    pub(super) lose_answers: AtomicU32,
    pub(super) no_quorum: AtomicBool,
}

impl Memory {
    /// Learns up to `count` commands of another that it does not know yet.
    pub(super) fn replay(&self, from: &Memory, count: usize) {
        let commands = from.log.lock().clone();
        let known = self.state.lock().0 as usize;
        for command in commands.into_iter().skip(known).take(count) {
            let mut state = self.state.lock();
            state.0 += 1;
            let revision = Revision(state.0);
            state.1.apply(revision, command).unwrap();
        }
        self.changes.send_replace(());
    }
}

#[tonic::async_trait]
impl Registry for Memory {
    fn cluster(&self) -> Arc<Cluster> {
        Arc::new(self.state.lock().1.clone())
    }

    async fn confirmed(&self) -> Result<Arc<Cluster>, ControlError> {
        if self.no_quorum.load(Ordering::SeqCst) {
            return Err(ControlError::new(ErrorKind::Unavailable, "PV-RAFT-NO-QUORUM", "no quorum", ""));
        }
        Ok(self.cluster())
    }

    async fn change(&self, command: ClusterCommand) -> Result<ClusterReply, ControlError> {
        let reply = {
            let mut state = self.state.lock();
            state.0 += 1;
            let revision = Revision(state.0);
            let reply = state.1.apply(revision, command.clone()).map_err(|e| rejected(e.problems))?;
            self.log.lock().push(command);
            reply
        };
        self.changes.send_replace(());
        let lose = self.lose_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match lose {
            Ok(_) => Err(ControlError::new(ErrorKind::Unavailable, "PV-RAFT-OUTCOME-UNKNOWN", "lost", "")),
            Err(_) => Ok(reply),
        }
    }

    async fn join(&self, _: Joining, command: ClusterCommand) -> Result<ClusterReply, ControlError> {
        self.change(command).await
    }
}

/// Seals by turning bits over, bound to the context.
pub(super) struct Upside;

impl KeySealer for Upside {
    fn seal(&self, context: &str, bytes: &[u8]) -> Result<Vec<u8>, SecretError> {
        Ok(context.bytes().chain([0]).chain(bytes.iter().map(|b| !b)).collect())
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let body = sealed.strip_prefix(context.as_bytes()).and_then(|r| r.strip_prefix(&[0]));
        let body = body.ok_or_else(|| SecretError::DoesNotOpen { what: context.to_owned() })?;
        Ok(Zeroizing::new(body.iter().map(|b| !b).collect()))
    }
}

pub(super) struct World {
    pub(super) memory: Arc<Memory>,
    pub(super) certifier: Arc<Certifier>,
    pub(super) server: Arc<Identity>,
    pub(super) address: String,
    tasks: Vec<AbortHandle>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Cluster `acme`, node 1 `cp-1`, certificates that live for `life`.
pub(super) async fn start(life: Duration) -> World {
    let now = SystemTime::now();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let memory = Arc::new(Memory::default());
    let (authority, _) = Certifier::make_authority(&Upside, &name("acme"), now).unwrap();
    let roles = BTreeSet::from([name("control-plane")]);
    let init = ClusterCommand::Init {
        cluster: name("acme"),
        node_id: 1,
        node: name("cp-1"),
        roles: roles.clone(),
        address: address.clone(),
        authority: Some(authority),
        version: Default::default(),
    };
    memory.change(init).await.unwrap();
    let rule = AgentNameRule {
        nodes: vec!["dp-*".to_owned()],
        names: vec!["mcp.example.com".to_owned(), "192.0.2.1".to_owned()],
    };
    let agent_names = AgentNames::new(vec![rule]).unwrap();
    let certifier = Certifier::new(memory.clone(), Arc::new(Upside), life).with_agent_names(agent_names);
    let certifier = Arc::new(certifier);
    let node = NodeRecord::of_parts(1, name("cp-1"), &roles).unwrap();
    let server = Arc::new(Identity::new(&certify(&certifier, &node)).unwrap());

    let incoming = incoming(listener, server.clone(), Limits::default(), Some(admit(memory.clone())));
    let connections = incoming.connections();
    let only = |roles| MembersOnly::new(memory.clone(), roles);
    let echo = tonic::service::interceptor::InterceptedService::new(
        PeerServer::new(super::membership::Echo),
        only(&[Role::ControlPlane, Role::DataPlane]),
    );
    let for_gpu = tonic::service::interceptor::InterceptedService::new(
        PushServer::new(super::membership::Echo),
        only(&[Role::GpuNode]),
    );
    let serving = Server::builder()
        .add_service(JoinServer::new(JoinService::new(certifier.clone())))
        .add_service(IdentityServer::new(IdentityService::new(certifier.clone())))
        .add_service(echo)
        .add_service(for_gpu)
        .serve_with_incoming(incoming);
    let cutting = cut_former_members(memory.changes.subscribe(), memory.clone(), connections);
    let tasks = vec![tokio::spawn(serving).abort_handle(), tokio::spawn(cutting).abort_handle()];
    World { memory, certifier, server, address, tasks }
}

/// A certificate without asking over the network.
pub(super) fn certify(certifier: &Certifier, node: &NodeRecord) -> Material {
    certify_at(certifier, node, SystemTime::now())
}

/// By an issuer whose clock says `now`.
pub(super) fn certify_at(certifier: &Certifier, node: &NodeRecord, now: SystemTime) -> Material {
    let key = KeyRequest::make().unwrap();
    let issued = certifier.certify(node, &NodeKey::of_request(&key.request).unwrap(), now).unwrap();
    Material { certificate: issued.certificate, key: key.key, bundle: issued.bundle }
}

impl World {
    pub(super) async fn token(&self, node: &str, role: Role) -> String {
        self.token_for(node, role, Duration::from_secs(60)).await.unwrap()
    }

    pub(super) async fn token_for(&self, node: &str, role: Role, life: Duration) -> Result<String, ControlError> {
        let now = SystemTime::now();
        let made = make_join_token(&self.certifier, &name(node), &Roles::from(role), life, now).await?;
        Ok(made.0.expose_secret().to_owned())
    }

    pub(super) async fn join(&self, node: &str, role: Role) -> Joined {
        join(&self.address, &self.token(node, role).await, &format!("{node}:1")).await.unwrap()
    }

    pub(super) async fn remove(&self, node_id: u64) {
        self.memory.change(ClusterCommand::NodeRemoved { node_id, time_ns: 0 }).await.unwrap();
    }

    pub(super) fn renewer(&self, identity: &Arc<Identity>) -> RemoteRenewer {
        RemoteRenewer::new(identity.clone(), std::slice::from_ref(&self.address)).unwrap()
    }

    pub(super) fn connect(&self, identity: &Arc<Identity>) -> Channel {
        channel(identity.clone(), &self.address, Expect::control_plane(1)).unwrap()
    }
}
