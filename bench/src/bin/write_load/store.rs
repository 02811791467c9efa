//! The two stores behind one small interface: put a key, read it back, name the leader.

use std::time::Duration;

use anyhow::{Context, bail};
use provost_wire::{
    AdminConnection,
    admin::{ApplyRequest, Document, Failure, GetRequest, StatusRequest},
    connect_admin,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Target,
    etcd::{self, PutRequest, RangeRequest, kv_client::KvClient, maintenance_client::MaintenanceClient},
};

/// Patience with a connection: a dead process on this machine refuses at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Where and how to write.
#[derive(Clone)]
pub struct Store {
    pub target: Target,
    pub endpoints: Vec<String>,
    pub token: String,
    /// How keys begin.
    pub prefix: String,
    /// Patience with one request.
    pub limit: Duration,
}

/// A connection to one endpoint; clones share it.
#[derive(Clone)]
pub enum Connection {
    Etcd(KvClient<Channel>),
    Provost(AdminConnection),
}

/// Why a write was not acknowledged, as a short word to count by.
pub type Refusal = String;

impl Store {
    /// A key of this run.
    pub fn key(&self, client: usize, number: u64) -> String {
        format!("{}-{client}-{number}", self.prefix)
    }

    /// Connects to the `nth` endpoint, counted round and round.
    pub async fn connect(&self, nth: usize) -> Result<Connection, Refusal> {
        let address = &self.endpoints[nth % self.endpoints.len()];
        let connected = tokio::time::timeout(CONNECT_LIMIT, async {
            match self.target {
                Target::Etcd => Ok(Connection::Etcd(KvClient::new(channel(address).await?))),
                Target::Provost => {
                    let admin = connect_admin(address, &self.token).await.map_err(|f| f.code)?;
                    Ok(Connection::Provost(admin))
                }
            }
        });
        connected.await.unwrap_or_else(|_| Err("connect-timeout".to_owned()))
    }

    /// Writes, and returns when the store says that the write is durable.
    pub async fn put(&self, connection: &mut Connection, key: &str, value: u64) -> Result<(), Refusal> {
        let text = document(key, value);
        let put = async {
            match connection {
                Connection::Etcd(kv) => {
                    let request = PutRequest { key: key.into(), value: text.into_bytes(), lease: 0 };
                    kv.put(request).await.map(drop).map_err(|s| etcd_word(&s))
                }
                Connection::Provost(admin) => {
                    let documents = vec![Document { path: "load.json".to_owned(), text }];
                    let request = ApplyRequest { documents, dry_run: false, message: String::new() };
                    admin.apply(request).await.map(drop).map_err(|s| Failure::of(&s).code)
                }
            }
        };
        tokio::time::timeout(self.limit, put).await.unwrap_or_else(|_| Err("timeout".to_owned()))
    }

    /// Fails unless a linearizable read finds what was written.
    pub async fn verify(&self, connection: &mut Connection, key: &str, value: u64) -> anyhow::Result<()> {
        let found = match connection {
            Connection::Etcd(kv) => {
                let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
                let answer = kv.range(request).await?.into_inner();
                let kv = answer.kvs.into_iter().next().with_context(|| format!("{key} does not exist"))?;
                kv.value == document(key, value).into_bytes()
            }
            Connection::Provost(admin) => {
                let request = GetRequest { kind: "Tenant".to_owned(), name: key.to_owned(), tenant: String::new() };
                let answer = admin.get(request).await?.into_inner();
                let resource = answer.resources.first().with_context(|| format!("{key} does not exist"))?;
                let document: serde_json::Value = serde_json::from_str(&resource.json)?;
                document["spec"]["displayName"].as_str() == Some(&text(value))
            }
        };
        if !found {
            bail!("{key} does not hold the acknowledged value {value}");
        }
        Ok(())
    }

    /// The endpoint that leads, by the answer with the highest term.
    pub async fn leader(&self) -> anyhow::Result<String> {
        let mut leaders = Vec::new();
        for endpoint in &self.endpoints {
            // A node that is down leads nothing.
            if let Ok(Ok(Some(term))) = tokio::time::timeout(CONNECT_LIMIT, self.leads(endpoint)).await {
                leaders.push((term, endpoint.clone()));
            }
        }
        leaders.into_iter().max().map(|(_, endpoint)| endpoint).context("no endpoint leads")
    }

    /// The term in which a node leads, if it does.
    async fn leads(&self, endpoint: &str) -> anyhow::Result<Option<u64>> {
        match self.target {
            Target::Etcd => {
                let channel = channel(endpoint).await.map_err(anyhow::Error::msg)?;
                let status = MaintenanceClient::new(channel).status(etcd::StatusRequest {}).await?.into_inner();
                let own = status.header.map(|h| h.member_id);
                Ok((own == Some(status.leader)).then_some(status.raft_term))
            }
            Target::Provost => {
                let mut admin = connect_admin(endpoint, &self.token).await.map_err(|f| anyhow::anyhow!("{f}"))?;
                let status = admin.status(StatusRequest {}).await?.into_inner();
                Ok((status.role == "leader").then_some(status.term))
            }
        }
    }
}

async fn channel(address: &str) -> Result<Channel, Refusal> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
    endpoint.connect_timeout(CONNECT_LIMIT).connect().await.map_err(|_| "unreachable".to_owned())
}

/// etcd's errors have no codes of their own, but stable texts.
fn etcd_word(status: &Status) -> Refusal {
    match status.message() {
        text if text.starts_with("etcdserver: ") => text.to_owned(),
        _ => format!("{:?}", status.code()),
    }
}

/// What both stores are given.
fn document(key: &str, value: u64) -> String {
    let name = text(value);
    format!(
        r#"{{"apiVersion":"provost/v1","kind":"Tenant","metadata":{{"name":"{key}"}},"spec":{{"displayName":"{name}"}}}}"#
    )
}

fn text(value: u64) -> String {
    format!("value {value:020}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_one_size_and_different_values() {
        let (one, two) = (document("load-0-1", 1), document("load-0-1", u64::MAX));
        assert_eq!(one.len(), two.len());
        assert_ne!(one, two);
        assert!(one.contains(r#""displayName":"value 00000000000000000001""#), "{one}");
    }

    #[test]
    fn etcd_errors_keep_their_text() {
        let table = [
            (Status::unavailable("etcdserver: leader changed"), "etcdserver: leader changed"),
            (Status::unavailable("tcp connect error: 127.0.0.1:4"), "Unavailable"),
        ];
        for (status, expect) in table {
            assert_eq!(etcd_word(&status), expect);
        }
    }
}
