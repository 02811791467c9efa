//! Where agents come in: one TCP port, and with TLS the UDP port of the same number.

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use provost_data_serve::{ClientCertificates, Doors, FrontendConfig, PlainRule, SealKeys, ServerTls};
use provost_wire::tls::HostName;
use serde::{Serialize, Serializer};
use tokio::net::TcpListener;

use crate::{
    agent_tls::{ClientCa, Current, LocalCa, TlsFiles},
    failure::Failure,
};

/// With port 0, how often another free TCP port is tried whose UDP namesake is taken.
const FREE_PORT_TRIES: usize = 16;

/// Where the certificate that agents see comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentTls {
    /// Files that somebody else renews. TCP then takes TLS and nothing else.
    Files(TlsFiles),
    /// The cluster's CA, for these names. TCP then takes TLS and nothing else.
    ClusterCa {
        /// DNS names and addresses.
        #[serde(serialize_with = "as_text")]
        names: Vec<HostName>,
    },
    /// An authority of this machine, for `provost dev`: TCP takes plain HTTP, too.
    LocalCa {
        /// Where its certificate is, for clients.
        certificate: PathBuf,
        /// The folder with its key.
        keys: PathBuf,
    },
}

fn as_text<S: Serializer>(names: &[HostName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(ToString::to_string))
}

impl AgentTls {
    /// Whether the cluster's CA certifies.
    pub fn is_of_cluster(&self) -> bool {
        matches!(self, Self::ClusterCa { .. })
    }
}

/// How agents are served.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AgentConfig {
    /// `None`: plain HTTP on TCP, and nothing on UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AgentTls>,
    /// Whose certificates agents may show, where TLS is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<ClientCa>,
    /// Names, beside those of loopback, under which the node answers.
    pub hosts: Vec<String>,
    /// Origins, beside those of loopback, whose pages may call.
    pub origins: Vec<String>,
    /// The address that agents know the node by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Calls at once; `None`: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_calls: Option<u32>,
    /// How a node goes; `None`: at once, as `provost dev` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
}

/// How a node that is told to stop takes leave of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leaving {
    /// Calls in flight get so long.
    pub drain: Duration,
    /// For so long, within it, connections are still accepted.
    pub notice: Duration,
}

impl Leaving {
    /// Together with the flush of the audit log it stays within five seconds.
    pub const DEFAULT: Self = Self { drain: Duration::from_millis(3_500), notice: Duration::from_millis(1_000) };
}

impl AgentConfig {
    /// The addresses that agents know a node by which listens at `at`: the public one, or those of loopback.
    pub fn addresses(&self, at: SocketAddr) -> Vec<String> {
        match &self.public_url {
            Some(url) => vec![url.clone()],
            None if at.ip().is_loopback() => ["http", "https"]
                .iter()
                .flat_map(|scheme| {
                    ["127.0.0.1", "localhost", "[::1]"].map(|host| format!("{scheme}://{host}:{}", at.port()))
                })
                .collect(),
            None => Vec::new(),
        }
    }

    /// The front end's settings.
    pub fn front(&self, seal_keys: Arc<SealKeys>) -> FrontendConfig {
        let mut front = FrontendConfig::new(seal_keys);
        front.allowed_hosts.extend(self.hosts.iter().cloned());
        front.allowed_origins.extend(self.origins.iter().cloned());
        front.public_url.clone_from(&self.public_url);
        if let Some(Leaving { drain, notice }) = self.leaving {
            front.drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
            front.lame_duck_ms = u64::try_from(notice.as_millis()).unwrap_or(u64::MAX);
        }
        front
    }
}

/// Open ports.
pub struct AgentPorts {
    tcp: TcpListener,
    udp: Option<UdpSocket>,
    /// The certificate that the cluster's CA has issued, and what keeps it new.
    issued: Option<(Arc<Current>, Following)>,
}

impl AgentPorts {
    /// Takes them; `what` names the address in errors.
    pub async fn bind(address: SocketAddr, what: &str, tls: Option<&AgentTls>) -> anyhow::Result<Self> {
        let taken = |address: SocketAddr, cause: std::io::Error| {
            let text = format!("cannot listen on {address} for {what}: {cause}");
            Failure::new("PV-NODE-LISTEN", text, "is another server running there? choose another port")
        };
        let mut last = None;
        for _ in 0..FREE_PORT_TRIES {
            let tcp = TcpListener::bind(address).await.map_err(|cause| taken(address, cause))?;
            if tls.is_none() {
                return Ok(Self { tcp, udp: None, issued: None });
            }
            let beside = tcp.local_addr()?;
            match UdpSocket::bind(beside) {
                Ok(udp) => return Ok(Self { tcp, udp: Some(udp), issued: None }),
                Err(cause) if address.port() == 0 => last = Some(taken(beside, cause)),
                Err(cause) => return Err(taken(beside, cause).into()),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("PV-NODE-LISTEN: no free port"), Into::into))
    }

    /// The address, of both.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.tcp.local_addr()?)
    }

    /// With the certificate that [`AgentTls::ClusterCa`] stands for.
    pub fn with_certificate(self, issued: (Arc<Current>, Following)) -> Self {
        Self { issued: Some(issued), ..self }
    }

    /// With what TLS needs. Also gives what keeps the certificate new, and has no end of its own.
    pub fn open(self, tls: Option<&AgentTls>, clients: Option<&ClientCa>) -> anyhow::Result<(Doors, Following)> {
        let Self { tcp, udp, issued } = self;
        let Some(tls) = tls else {
            let doors = Doors { tcp, udp: None, tls: None, plain: PlainRule::Served };
            return Ok((doors, Box::pin(std::future::pending())));
        };
        let (current, following, plain): (_, Following, _) = match tls {
            AgentTls::Files(files) => {
                let (current, following) = Current::start(files.clone().source())?;
                (current, Box::pin(following), PlainRule::Refused)
            }
            AgentTls::ClusterCa { .. } => {
                let none = || anyhow::anyhow!("PV-TLS-AGENTS: no CA of a cluster certifies this node for agents");
                let (current, following) = issued.ok_or_else(none)?;
                (current, following, PlainRule::Refused)
            }
            AgentTls::LocalCa { certificate, keys } => {
                let ca = LocalCa::open_or_make(keys, certificate)?;
                let (current, following) = Current::start(ca.source(vec![tcp.local_addr()?.ip()]))?;
                (current, Box::pin(following), PlainRule::Served)
            }
        };
        let (clients, seen): (Option<ClientCertificates>, _) = clients.map(ClientCa::read).transpose()?.unzip();
        let tls = ServerTls::with_clients(current, clients.as_ref())?;
        let following: Following = match seen {
            Some(seen) => {
                let clients = seen.follow(tls.clone());
                Box::pin(async move {
                    tokio::join!(following, clients);
                })
            }
            None => following,
        };
        Ok((Doors { tcp, udp, tls: Some(tls), plain }, following))
    }
}

/// Keeps a certificate new.
pub type Following = Pin<Box<dyn Future<Output = ()> + Send>>;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn udp_has_the_number_of_tcp() {
        let dir = tempfile::tempdir().unwrap();
        let tls = AgentTls::LocalCa { certificate: dir.path().join("ca.pem"), keys: dir.path().join("keys") };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ports = AgentPorts::bind(any, "a test", Some(&tls)).await.unwrap();
        let (doors, _) = ports.open(Some(&tls), None).unwrap();
        assert_eq!(doors.tcp.local_addr().unwrap(), doors.udp.unwrap().local_addr().unwrap());
        assert!(dir.path().join("ca.pem").exists());
        let plain = AgentPorts::bind(any, "a test", None).await.unwrap();
        let (doors, _) = plain.open(None, None).unwrap();
        assert!(doors.udp.is_none() && doors.tls.is_none() && doors.plain == PlainRule::Served);
    }
}
