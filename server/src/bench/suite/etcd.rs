//! Three members of etcd with its defaults, and the one call of its API that is measured.

use std::{path::Path, time::Duration};

use anyhow::Context;
use http::uri::PathAndQuery;
use tonic::{
    Request, Response,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::program::{Program, Scratch, command, free_ports};

const MEMBERS: usize = 3;
/// Listeners of a member.
const PORTS_EACH: usize = 2;
/// A member on this machine that does not answer within this is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// `KV.Put` of etcd's API, version 3.
const PUT: &str = "/etcdserverpb.KV/Put";

/// The part of `etcdserverpb.PutRequest` that is used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Nothing of `etcdserverpb.PutResponse` is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// The running members.
pub struct Etcd {
    members: Vec<Program>,
    clients: Vec<u16>,
    version: String,
}

impl Etcd {
    /// Starts them; ready when each takes writes.
    pub async fn start(scratch: &Scratch, program: &Path) -> anyhow::Result<Self> {
        let folder = scratch.folder("etcd")?;
        let ports = free_ports(MEMBERS * PORTS_EACH)?;
        let (clients, peers) = ports.split_at(MEMBERS);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> = peers.iter().enumerate().map(|(at, port)| format!("m{at}={}", url(port))).collect();
        let cluster = cluster.join(",");
        let mut members = Vec::new();
        for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let (client, peer) = (url(client), url(peer));
            let mut member = command(program);
            member.args(["--name", &format!("m{at}")]).arg("--data-dir").arg(folder.join(format!("m{at}")));
            member.args(["--listen-client-urls", &client]).args(["--advertise-client-urls", &client]);
            member.args(["--listen-peer-urls", &peer]).args(["--initial-advertise-peer-urls", &peer]);
            member.args(["--initial-cluster", &cluster]).args(["--initial-cluster-token", "bench"]);
            member.args(["--initial-cluster-state", "new", "--logger", "zap", "--log-level", "warn"]);
            members.push(Program::start(&format!("etcd/m{at}"), member, &folder.join(format!("m{at}.log")), None)?);
        }
        let version = version_of(program).await;
        let mut etcd = Self { members, clients: clients.to_vec(), version };
        for (at, port) in clients.iter().enumerate() {
            let ready = async || Put::open(*port).await.ok()?.put("ready", "1").await.ok();
            let member = etcd.members.get_mut(at).context("PV-BENCH-START: a member is missing")?;
            member.until("it took a write", ready).await?;
        }
        Ok(etcd)
    }

    /// What it says that it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A connection to one of the members, counted round and round.
    pub async fn connect(&self, nth: usize) -> anyhow::Result<Put> {
        let port = self.clients.get(nth % self.clients.len().max(1)).context("PV-BENCH-START: a member is missing")?;
        Put::open(*port).await
    }

    /// Ends them: they do not listen to their stdin, and what they hold is thrown away.
    pub async fn stop(self) {
        for member in self.members {
            member.kill().await;
        }
    }
}

/// A connection that writes.
pub struct Put(Grpc<Channel>);

impl Put {
    async fn open(port: u16) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).context("PV-BENCH: etcd's address")?;
        let channel = endpoint.connect_timeout(CONNECT_LIMIT).connect().await;
        Ok(Self(Grpc::new(channel.context("PV-BENCH-START: etcd does not answer")?)))
    }

    /// Writes a key, and returns when a majority has synced it.
    pub async fn put(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let failed = "PV-BENCH-ERRORS: etcd acknowledges no write";
        self.0.ready().await.context(failed)?;
        let request = PutRequest { key: key.as_bytes().to_vec(), value: value.as_bytes().to_vec() };
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let put = self.0.unary(Request::new(request), PathAndQuery::from_static(PUT), codec);
        let _: Response<PutResponse> = put.await.context(failed)?;
        Ok(())
    }
}

async fn version_of(program: &Path) -> String {
    let Ok(output) = command(program).arg("--version").output().await else { return String::new() };
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned()
}
