//! Clusters for the other tests: replicas with gRPC servers on loopback, and a proxy on each way
//! between two of them that can be cut or made to swallow everything.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};

use super::{Journal, PATIENCE, quick};
use crate::{Group, GroupConfig, GrpcTransport, Peer, PeerService};

/// What a proxy does with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    /// Resets what is there and refuses what comes.
    Cut,
    /// Passes nothing on and closes nothing, as a network that drops packets.
    Silent,
}

struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    target: Arc<Mutex<SocketAddr>>,
}

impl Proxy {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel(Way::Open);
        let target = Arc::new(Mutex::new(target));
        let to = target.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = *to.lock().unwrap();
                tokio::spawn(pass(client, to, ways.clone()));
            }
        });
        Self { address, way, target }
    }
}

async fn pass(mut client: TcpStream, to: SocketAddr, mut ways: watch::Receiver<Way>) {
    let now = *ways.borrow();
    match now {
        Way::Open => {}
        Way::Cut => return,
        Way::Silent => {
            // Whoever connected in the silence never hears anything.
            while ways.changed().await.is_ok() && *ways.borrow() == Way::Silent {}
            return;
        }
    }
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let silent = tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        way = ways.wait_for(|way| *way != Way::Open) => matches!(way.as_deref(), Ok(Way::Silent)),
    };
    if silent {
        let _ = ways.wait_for(|way| *way != Way::Silent).await;
    }
}

pub(super) struct Node {
    pub(super) group: Group,
    pub(super) journal: Journal,
    pub(super) address: SocketAddr,
    server: JoinHandle<()>,
}

/// No election but the first.
pub(super) fn calm(config: &mut GroupConfig) {
    config.timings.election_min_ms = 10_000;
    config.timings.election_max_ms = 20_000;
    config.timings.quorum_loss_probe_ms = 40_000;
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<u64, Node>,
    /// By (from, to).
    proxies: Arc<Mutex<BTreeMap<(u64, u64), Proxy>>>,
    change: fn(&mut GroupConfig),
    dir: TempDir,
}

impl Cluster {
    /// For tests that need no election but the first: none comes between, however busy the machine is.
    pub(super) async fn start(voters: u64) -> Self {
        Self::start_with(voters, calm).await
    }

    /// `change` adjusts each node's configuration.
    pub(super) async fn start_with(voters: u64, change: fn(&mut GroupConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { nodes: BTreeMap::new(), proxies: Arc::default(), change, dir };
        for id in 1..=voters {
            cluster.open(id).await;
        }
        let members = cluster.nodes.iter().map(|(id, node)| (*id, node.address.to_string())).collect();
        cluster.nodes[&1].group.initialize(members).await.unwrap();
        cluster.leader_other_than(0).await;
        cluster
    }

    /// Starts a node, or starts it again with its old log, at a new address.
    pub(super) async fn open(&mut self, id: u64) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for other in self.nodes.keys().copied().filter(|other| *other != id) {
            let to_other = Proxy::start(self.nodes[&other].address).await;
            let to_this = Proxy::start(address).await;
            let mut proxies = self.proxies.lock().unwrap();
            proxies.entry((id, other)).or_insert(to_other);
            proxies.entry((other, id)).or_insert(to_this);
        }
        let transport = Arc::new(GrpcTransport::new(id, self.dial(id)));
        let mut config = quick(id);
        config.address = address.to_string();
        (self.change)(&mut config);
        let journal = Journal::default();
        let dir = self.dir.path().join(id.to_string());
        let group = Group::open_with(&dir, config, journal.clone(), transport).await.unwrap();
        let service = PeerService::new(Arc::new(|_, _, _| true));
        service.add(&group);
        let serve = Server::builder().tcp_nodelay(true).add_service(service.into_server());
        let incoming = TcpListenerStream::new(listener);
        let server = tokio::spawn(async move { serve.serve_with_incoming(incoming).await.unwrap() });
        self.nodes.insert(id, Node { group, journal, address, server });
    }

    /// The proxy of the way, aimed at the address that the membership names.
    fn dial(&self, from: u64) -> crate::Dial {
        let proxies = self.proxies.clone();
        Arc::new(move |peer: &Peer| -> Channel {
            let proxies = proxies.lock().unwrap();
            let proxy = &proxies[&(from, peer.id)];
            *proxy.target.lock().unwrap() = peer.address.parse().unwrap();
            Endpoint::from_shared(format!("http://{}", proxy.address)).unwrap().tcp_nodelay(true).connect_lazy()
        })
    }

    /// Sets the ways between a node and all others, both directions.
    pub(super) fn set_ways(&self, id: u64, way: Way) {
        for ((from, to), proxy) in self.proxies.lock().unwrap().iter() {
            if *from == id || *to == id {
                proxy.way.send_replace(way);
            }
        }
    }

    /// Takes a node away as a crash would: nobody hears of it again.
    pub(super) async fn kill(&mut self, id: u64) {
        self.set_ways(id, Way::Cut);
        let node = self.nodes.remove(&id).unwrap();
        node.server.abort();
        node.group.shutdown().await.unwrap();
    }

    /// Waits until a node leads that can commit now, and returns its id.
    pub(super) async fn leader_other_than(&self, not: u64) -> u64 {
        let start = Instant::now();
        loop {
            for (id, node) in self.nodes.iter().filter(|(id, _)| **id != not) {
                if node.group.is_leader() && node.group.core().read_index().await.is_ok() {
                    return *id;
                }
            }
            assert!(start.elapsed() < PATIENCE, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn group(&self, id: u64) -> &Group {
        &self.nodes[&id].group
    }

    pub(super) fn follower(&self, leader: u64) -> u64 {
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    /// Waits until every node has applied exactly these commands, in any order.
    pub(super) async fn agree_on(&self, expected: &[Vec<u8>]) {
        for (id, node) in &self.nodes {
            let start = Instant::now();
            loop {
                let mut commands = node.journal.commands();
                commands.sort_unstable();
                if commands == expected {
                    break;
                }
                let (have, want) = (commands.len(), expected.len());
                assert!(
                    start.elapsed() < PATIENCE,
                    "node {id} has {have} commands of {want}: {:?}",
                    node.group.metrics()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    pub(super) async fn stop(self) {
        for node in self.nodes.values() {
            node.group.shutdown().await.unwrap();
            node.server.abort();
        }
    }
}
