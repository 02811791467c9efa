//! Nodes under test: one, or three that vote in both groups, each a process of this program.
//!
//! They are made and joined as `provost cluster init` and `provost server` do it in production, on free ports of the
//! loopback network; every node has the control plane, the audit log and the data plane, but for those that only serve
//! beside one that does. Several have their parts of the processors, as the voters of `provost dev --nodes 3`. A lone
//! node's records are synced to its own disk before a call goes on; those of three are on two of their disks.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use provost_client::{Connector, Endpoint, Options, Transport};
use provost_wire::{
    AdminConnection,
    admin::{ApplyRequest, Document, Failure as AdminFailure, TokenCreateRequest},
    connect_admin,
};
use secrecy::{ExposeSecret, SecretString};

use super::{
    documents,
    node_files::{EVERY_ROLE, ModelsOf, PORTS_EACH, Planned, Ports, SERVING, ca, config, init, write},
    program::{LOOK_EVERY, Program, START_LIMIT, Scratch, free_ports, ourselves},
};
use crate::{bench::process::Watched, failure::Failure, threads::environment_of};

/// A page of metrics comes at once or not at all.
const METRICS_LIMIT: Duration = Duration::from_secs(5);

struct Node {
    program: Program,
    ports: Ports,
    folder: PathBuf,
}

/// The running nodes.
pub struct Cluster {
    nodes: Vec<Node>,
    admin_token: SecretString,
    token: SecretString,
    metrics: reqwest::Client,
}

impl Cluster {
    /// Starts so many, with these resources. Ready when every node runs them and all vote.
    pub async fn start(scratch: &Scratch, name: &str, count: usize, upstream: &str) -> anyhow::Result<Self> {
        Self::start_with(scratch, name, count, upstream, None).await
    }

    /// The same, with models.
    pub async fn start_with(
        scratch: &Scratch,
        name: &str,
        count: usize,
        upstream: &str,
        models: Option<&ModelsOf>,
    ) -> anyhow::Result<Self> {
        Self::launch(scratch, name, &vec![EVERY_ROLE; count], upstream, models).await
    }

    /// Starts a node with all roles, and so many beside it that serve agents and keep nothing. The first is node 0.
    pub async fn start_serving(scratch: &Scratch, name: &str, serving: usize, upstream: &str) -> anyhow::Result<Self> {
        let mut roles = vec![EVERY_ROLE];
        roles.resize(serving + 1, SERVING);
        Self::launch(scratch, name, &roles, upstream, None).await
    }

    async fn launch(
        scratch: &Scratch,
        name: &str,
        roles: &[&'static str],
        upstream: &str,
        models: Option<&ModelsOf>,
    ) -> anyhow::Result<Self> {
        let folder = scratch.folder(name)?;
        let numbers = free_ports(roles.len() * PORTS_EACH)?;
        let ports = numbers.chunks_exact(PORTS_EACH).filter_map(Ports::of);
        let planned: Vec<Planned> = ports.zip(roles).map(|(ports, roles)| Planned { ports, roles }).collect();
        let names: Vec<String> = (0..planned.len()).map(|n| format!("n{n}")).collect();
        for (at, own) in planned.iter().enumerate() {
            let node = scratch.folder(&format!("{name}/n{at}"))?;
            write(&node.join("provost.toml"), &config(&folder, &node, at, &planned, *own, models))?;
        }
        let joining: Vec<(String, &str)> = names.iter().cloned().zip(roles.iter().copied()).skip(1).collect();
        let made = init(&folder, &joining).await?;
        for (node, token) in &made.join_tokens {
            write(&folder.join(node).join("token"), token.expose_secret())?;
        }
        let mut nodes = Vec::new();
        for (node, own) in names.iter().zip(&planned) {
            let folder = folder.join(node);
            let mut command = ourselves()?;
            if planned.len() > 1 {
                let told = |name: &str| std::env::var_os(name).is_some();
                command.envs(environment_of(planned.len()).into_iter().filter(|(name, _)| !told(name)));
            }
            command.args(["server", "--until-stdin-closes", "--config"]).arg(folder.join("provost.toml"));
            let program = Program::start(&format!("{name}/{node}"), command, &folder.join("log"), None)?;
            nodes.push(Node { program, ports: own.ports, folder });
        }
        let metrics = reqwest::Client::builder().timeout(METRICS_LIMIT).no_proxy().build();
        let metrics = metrics.context("PV-BENCH-START: no HTTP client can be made")?;
        let mut cluster = Self { nodes, admin_token: made.admin_token, token: SecretString::default(), metrics };
        let voters = roles.iter().filter(|roles| **roles == EVERY_ROLE).count();
        cluster.settle(upstream, voters).await?;
        Ok(cluster)
    }

    /// Gives the nodes their first resources and a token, and waits until all of them serve and vote.
    async fn settle(&mut self, upstream: &str, voters: usize) -> anyhow::Result<()> {
        let documents = documents::file(&documents::base(upstream));
        let (address, admin_token) = (self.admin(0)?, self.admin_token.clone());
        // A node that does not serve yet and one that refuses look alike: what it said last tells them apart.
        let refusal = std::cell::RefCell::new(String::new());
        let apply = async || match apply_at(&address, &admin_token, &documents).await {
            Ok(revision) => Some(revision),
            Err(cause) => {
                *refusal.borrow_mut() = format!("{cause:#}");
                None
            }
        };
        let first = self.nodes.first_mut().context("PV-BENCH-START: no node")?;
        let applied = first.program.until("it took its resources", apply).await;
        let revision = applied.with_context(|| format!("PV-BENCH-START: no resources; last: {}", refusal.borrow()))?;
        let mut client = connect(&address, &admin_token).await?;
        let request = TokenCreateRequest {
            tenant: documents::TENANT.to_owned(),
            principal: documents::PRINCIPAL.to_owned(),
            ..TokenCreateRequest::default()
        };
        let made = client.token_create(request).await.map_err(|status| refused(&AdminFailure::of(&status)))?;
        let made = made.into_inner();
        self.token = made.token.into();
        let needed = made.revision.max(revision) as f64;
        let metrics = self.metrics.clone();
        for node in &mut self.nodes {
            let (metrics, url) = (metrics.clone(), metrics_url(node.ports));
            let ready = async || {
                let page = page(&metrics, &url).await?;
                let runs = value_of(&page, "provost_active_revision")? >= needed;
                let votes = voters == 1 || value_of(&page, "provost_audit_voters")? >= voters as f64;
                (runs && votes).then_some(())
            };
            node.program.until("it served and voted", ready).await?;
        }
        Ok(())
    }

    /// Applies a file; gives the revision.
    pub async fn apply(&self, text: &str) -> anyhow::Result<u64> {
        apply_at(&self.admin(0)?, &self.admin_token, text).await
    }

    /// A connection to a node's admin API, for many changes.
    pub async fn admin_connection(&self, node: usize) -> anyhow::Result<AdminConnection> {
        connect(&self.admin(node)?, &self.admin_token).await
    }

    /// Waits until every node runs a revision.
    pub async fn until_active(&self, revision: u64) -> anyhow::Result<()> {
        let began = tokio::time::Instant::now();
        for node in 0..self.nodes.len() {
            while self.active_revision(node).await.is_none_or(|active| active < revision) {
                if began.elapsed() > START_LIMIT {
                    let text = format!("node {node} does not run revision {revision} after {START_LIMIT:?}");
                    return Err(Failure::new("PV-BENCH-START", text, "leave this machine more CPU").into());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// The revision that a node's calls run under.
    pub async fn active_revision(&self, node: usize) -> Option<u64> {
        let page = self.page(node).await?;
        value_of(&page, "provost_active_revision").map(|revision| revision as u64)
    }

    /// A node's metrics.
    pub async fn page(&self, node: usize) -> Option<String> {
        page(&self.metrics, &metrics_url(self.nodes.get(node)?.ports)).await
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// A node's process, whose CPU and memory are watched.
    pub fn watched(&self, node: usize) -> Option<Watched> {
        self.nodes.get(node).and_then(|node| Watched::open(node.program.pid()))
    }

    /// Opens connections to a node's MCP endpoint `path` over a transport.
    pub fn connector(&self, node: usize, transport: Transport, path: &str) -> anyhow::Result<Connector> {
        let node = self.nodes.get(node).context("PV-BENCH-START: no node")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.ports.http));
        let url = match transport {
            Transport::Http => format!("http://{address}{path}"),
            Transport::WebSocket => format!("ws://{address}{path}"),
            Transport::Http3 => format!("h3+https://{address}{path}"),
            Transport::Quic => format!("quic://{address}"),
        };
        let endpoint = Endpoint::parse(&url, Some(transport)).context("PV-BENCH-START: the node's address")?;
        let options = Options {
            token: Some(self.token.clone()),
            ca: Some(ca(&node.folder)).filter(|ca| ca.exists()),
            ..Options::default()
        };
        Connector::new(endpoint, options).context("PV-BENCH-START: the node's address")
    }

    /// A node's MCP endpoint over HTTP, and the token to call it with.
    pub fn mcp(&self, node: usize) -> anyhow::Result<(String, &SecretString)> {
        Ok((format!("{}/mcp", self.http(node)?), &self.token))
    }

    /// A node's OpenAI-compatible API, and the token to call it with.
    pub fn openai(&self, node: usize) -> anyhow::Result<(String, &SecretString)> {
        Ok((format!("{}/v1", self.http(node)?), &self.token))
    }

    fn http(&self, node: usize) -> anyhow::Result<String> {
        let node = self.nodes.get(node).context("PV-BENCH-START: no node")?;
        Ok(format!("http://127.0.0.1:{}", node.ports.http))
    }

    /// Ends all of them, in order.
    pub async fn stop(self) {
        let ends = self.nodes.into_iter().map(|node| node.program.stop());
        futures::future::join_all(ends).await;
    }

    /// Where other nodes reach a node.
    pub fn peer(&self, node: usize) -> anyhow::Result<String> {
        let node = self.nodes.get(node).context("PV-BENCH-START: no node")?;
        Ok(format!("127.0.0.1:{}", node.ports.peer))
    }

    fn admin(&self, node: usize) -> anyhow::Result<String> {
        let node = self.nodes.get(node).context("PV-BENCH-START: no node")?;
        Ok(format!("127.0.0.1:{}", node.ports.admin))
    }
}

fn metrics_url(ports: Ports) -> String {
    format!("http://127.0.0.1:{}/metrics", ports.metrics)
}

async fn connect(address: &str, token: &SecretString) -> anyhow::Result<AdminConnection> {
    connect_admin(address, token.expose_secret()).await.map_err(|failure| refused(&failure))
}

async fn apply_at(address: &str, token: &SecretString, text: &str) -> anyhow::Result<u64> {
    apply_over(&mut connect(address, token).await?, text).await
}

/// Applies a file over a connection; gives the revision.
pub async fn apply_over(client: &mut AdminConnection, text: &str) -> anyhow::Result<u64> {
    let document = Document { path: "suite.yaml".to_owned(), text: text.to_owned() };
    let request = ApplyRequest { documents: vec![document], ..ApplyRequest::default() };
    let applied = client.apply(request).await.map_err(|status| refused(&AdminFailure::of(&status)))?;
    Ok(applied.into_inner().revision)
}

fn refused(failure: &AdminFailure) -> anyhow::Error {
    Failure::new("PV-BENCH-START", format!("the node refused: {failure}"), "see the page of the code in it").into()
}

async fn page(client: &reqwest::Client, url: &str) -> Option<String> {
    client.get(url).send().await.ok()?.error_for_status().ok()?.text().await.ok()
}

/// The value of a metric that a node prints once, whatever its labels.
pub fn value_of(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.split_once('}')?.1,
            None => rest,
        };
        rest.strip_prefix(' ')?.split_whitespace().next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# TYPE a gauge\na_more 7\na 9\nd{b=\"c\"} 8\n";
        assert_eq!((value_of(page, "a"), value_of(page, "d")), (Some(9.0), Some(8.0)));
        assert_eq!(value_of(page, "missing"), None);
    }
}
