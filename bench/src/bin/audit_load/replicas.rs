//! Three replicas of the audit group in this process, reached over their own sockets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use provost_audit_store::{
    AuditCallers, AuditClient, AuditEndpoint, AuditNode, AuditNodeConfig, AuditPeers, AuditService, AuditWriter,
    AuditWriterConfig, CheckpointKey, Dial, GrpcTransport, Peer, PeerService, Promotion, RaftRetention, SubjectPaths,
    Timings,
};
use provost_types::BoxFuture;
use provost_wire::tls::{self, Expect, Identity, Limits, Role};
use tokio::net::TcpListener;
use tonic::{
    Extensions, Status,
    transport::{Channel, Endpoint, Server},
};

use crate::pki::Pki;

const VOTERS: u64 = 3;
/// The group gets so long to have its voters.
const READY_LIMIT: Duration = Duration::from_secs(60);
const CLUSTER: &str = "bench";

/// The running group.
pub struct Replicas {
    nodes: Vec<AuditNode>,
    addresses: BTreeMap<u64, SocketAddr>,
}

/// Whoever has a certificate writes under the name in it.
struct Certified;

impl AuditCallers for Certified {
    fn writer<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<String, Status>> {
        let caller = tls::certified_in(connection).map(|c| c.name.id().to_owned());
        Box::pin(std::future::ready(caller.ok_or_else(|| Status::unauthenticated("no certificate"))))
    }
    fn control<'a>(&'a self, _: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn replica<'a>(&'a self, _: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn name(id: u64) -> String {
    format!("au-{id}")
}

fn reach(identity: &Arc<Identity>, id: u64, address: &str) -> Channel {
    tls::channel(identity.clone(), address, Expect::role(Role::AuditLog).id(name(id)))
        .unwrap_or_else(|_| Endpoint::from_static("http://127.0.0.1:1").connect_lazy())
}

impl Replicas {
    /// Starts three and waits until all vote.
    pub async fn start(dir: &Path, pki: &Pki) -> anyhow::Result<Self> {
        let mut listeners = BTreeMap::new();
        for id in 1..=VOTERS {
            listeners.insert(id, TcpListener::bind("127.0.0.1:0").await?);
        }
        let addresses = listeners.iter().map(|(id, l)| Ok((*id, l.local_addr()?))).collect::<anyhow::Result<_>>()?;
        let key_file = dir.join("key");
        let mut nodes = Vec::new();
        for (id, listener) in listeners {
            let identity = pki.identity("audit-log", &name(id))?;
            let dialling = identity.clone();
            let dial: Dial = Arc::new(move |peer: &Peer| reach(&dialling, peer.id, &peer.address));
            let peers = AuditPeers {
                address: listener.local_addr()?.to_string(),
                transport: Arc::new(GrpcTransport::new(id, dial)),
                timings: Timings::default(),
                retention: RaftRetention {
                    snapshot_every_entries: 20_000,
                    keep_entries: 50_000,
                    ..RaftRetention::default()
                },
                replicas: Arc::new(Vec::new),
                promotion: Promotion { stable_ms: 500, ..Promotion::default() },
                expect_existing: false,
            };
            let own = dir.join(name(id));
            let config = AuditNodeConfig {
                audit_dir: own.join("audit"),
                raft_dir: own.join("audit-raft"),
                subject_keys: SubjectPaths::below(&own),
                begins_keys: false,
                key_file: key_file.clone(),
                node_id: id,
                cluster: CLUSTER.to_owned(),
                checkpoint_interval: Duration::from_secs(1),
                peers: Some(peers),
            };
            let node = AuditNode::open(config, CheckpointKey::open(&key_file)?).await?;
            serve(&node, listener, identity);
            nodes.push(node);
        }
        let group = Self { nodes, addresses };
        group.form().await?;
        Ok(group)
    }

    async fn form(&self) -> anyhow::Result<()> {
        let first = self.nodes.first().context("no replica")?;
        first.initialize().await?;
        let members = self.addresses.iter().map(|(id, address)| (*id, address.to_string())).collect();
        let all_vote = async {
            while first.metrics().voters.len() as u64 != VOTERS {
                // While it has no leader it follows nothing.
                let _ = first.follow(&members).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(READY_LIMIT, all_vote).await.context("three voters")?;
        for node in &self.nodes {
            node.check_and_sign(READY_LIMIT).await?;
        }
        Ok(())
    }

    /// A writer as another process has it.
    pub async fn writer(&self, pki: &Pki, writer: &str) -> anyhow::Result<AuditWriter> {
        let identity = pki.identity("data-plane", writer)?;
        let endpoint = |(id, address): (&u64, &SocketAddr)| AuditEndpoint::There {
            name: name(*id),
            channel: reach(&identity, *id, &address.to_string()),
        };
        let client = AuditClient::default();
        client.set(self.addresses.iter().map(endpoint).collect());
        let (cluster, writer) = (CLUSTER.to_owned(), writer.to_owned());
        let config = AuditWriterConfig { cluster, writer, deadline: Duration::from_secs(5) };
        let writer = AuditWriter::start(config, Arc::new(client));
        writer.ready().await?;
        Ok(writer)
    }

    pub async fn close(self) -> anyhow::Result<()> {
        for node in self.nodes {
            node.close().await?;
        }
        Ok(())
    }
}

fn serve(node: &AuditNode, listener: TcpListener, identity: Arc<Identity>) {
    let slot = Arc::new(OnceLock::new());
    let _ = slot.set(node.clone());
    let peers = PeerService::new(Arc::new(|_, _, _| true));
    peers.add(node.group());
    let incoming = tls::incoming(listener, identity, Limits::default(), None);
    let server = Server::builder()
        .add_service(peers.into_server())
        .add_service(AuditService::server(slot, Arc::new(Certified)))
        .serve_with_incoming(incoming);
    // Ends with the process.
    tokio::spawn(server);
}
