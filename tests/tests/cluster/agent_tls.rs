//! Agents that know a node by the cluster's own CA, and nodes that know agents by certificates.
//!
//! `PROVOST_CLUSTER_SECONDS` of 100 or more lets certificates live for a minute instead of half of one.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use provost_client::{Connector, Endpoint, Lane, Options, Transport};
use provost_mcp::{RawJson, RequestId};
use provost_wire::tls::{BACKDATE, HostName, certificates, encode_pem, validity_of};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    harness::{Process, modern, upstream_yaml},
    processes::{Fleet, SOON},
    restore::apply,
};

/// The shortest life that a server takes, and the one of a longer run.
const LIVES: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(60)];
/// Between two calls of one client, and between two handshakes.
const CALL_PERIOD: Duration = Duration::from_millis(200);
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Patience with one call or handshake.
const LIMIT: Duration = Duration::from_secs(20);

fn life() -> Duration {
    let seconds = std::env::var("PROVOST_CLUSTER_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    LIVES[usize::from(Duration::from_secs(seconds) >= LIVES[1] * 3 / 2)]
}

/// One control-plane node and some that serve agents under TLS of the cluster; `more` belongs to
/// `[data_plane.tls]`.
pub fn fleet(cluster: &str, life: Duration, more: &str, nodes: &[&str]) -> Fleet {
    let mut fleet = Fleet::new(cluster);
    fleet.more.push_str(&format!(
        "certificate_ttl_seconds = {}\n[data_plane]\nhosts = [\"127.0.0.1\"]\n[data_plane.tls]\n\
         issuer = \"cluster\"\n{more}[[agent_names]]\nnodes = [\"dp-*\"]\nnames = [\"127.0.0.1\"]\n",
        life.as_secs()
    ));
    fleet.add("cp-1", "control-plane+audit-log");
    for node in nodes {
        fleet.add(node, "data-plane");
    }
    fleet.init("cp-1");
    fleet.start("cp-1");
    for node in nodes {
        fleet.start(node);
    }
    fleet.agreed(&["cp-1"]);
    fleet.until_audit_voters("cp-1", 1);
    fleet
}

/// The cluster's CA, as an administrator hands it to agents.
pub fn ca(fleet: &Fleet) -> PathBuf {
    let path = fleet.path("agents-ca.pem");
    fs::write(&path, fleet.ok("cp-1", &["cluster", "ca"])).unwrap();
    path
}

pub fn url(transport: Transport, address: SocketAddr) -> String {
    match transport {
        Transport::Http => format!("https://{address}/mcp"),
        Transport::WebSocket => format!("wss://{address}/mcp"),
        Transport::Http3 => format!("h3+https://{address}/mcp"),
        Transport::Quic => format!("quic://{address}"),
    }
}

const TRANSPORTS: [Transport; 4] = [Transport::Http, Transport::WebSocket, Transport::Http3, Transport::Quic];

async fn open(transport: Transport, address: SocketAddr, ca: &Path, token: &str) -> Result<Lane, String> {
    let endpoint = Endpoint::parse(&url(transport, address), None).unwrap();
    let options = Options { token: Some(token.to_owned().into()), ca: Some(ca.to_owned()), ..Options::default() };
    let connector = Connector::new(endpoint, options).unwrap();
    Lane::open(&connector).await.map_err(|e| e.to_string())
}

async fn call(lane: &mut Lane) -> Result<(), String> {
    let mut body = modern("tools/call", json!({ "name": "up.test_simple_text", "arguments": {} }));
    body["id"] = json!(7);
    let header =
        |name: &'static str, value: &'static str| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let headers: HeaderMap = [
        header("mcp-protocol-version", "2026-07-28"),
        header("mcp-method", "tools/call"),
        header("mcp-name", "up.test_simple_text"),
    ]
    .into_iter()
    .collect();
    let id = RequestId(RawJson::from(json!(7)));
    let asked = lane.call(&headers, Bytes::from(body.to_string()), &id);
    let said = tokio::time::timeout(LIMIT, asked).await.map_err(|_| "no answer".to_owned())?;
    let said: Value = serde_json::from_slice(&said.map_err(|e| e.to_string())?).unwrap();
    if said["result"]["content"].is_array() { Ok(()) } else { Err(said.to_string()) }
}

/// What the node shows agents now; the CAs of the file must vouch for it.
async fn shown(address: SocketAddr, ca: &Path) -> Result<CertificateDer<'static>, String> {
    let stream = connect(address, client_config(ca, None)).await.map_err(|e| e.to_string())?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
}

fn client_config(ca: &Path, own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for ca in certificates("the CA", &fs::read_to_string(ca).unwrap()).unwrap() {
        roots.add(ca).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.unwrap().with_root_certificates(roots);
    match own {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

async fn connect(address: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::IpAddress(address.ip().into());
    let connected =
        async { TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await };
    tokio::time::timeout(LIMIT, connected).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_the_clusters_ca_are_replaced_under_load_and_no_call_is_lost() {
    let life = life();
    let up = Process::everything("modern");
    let (mut fleet, token, ca) = tokio::task::block_in_place(|| {
        let fleet = fleet("agents", life, "", &["dp-1"]);
        apply(&fleet, "cp-1", "up.yaml", &upstream_yaml(&up.url));
        let token = fleet.ok("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
        let ca = ca(&fleet);
        (fleet, token, ca)
    });
    let address = fleet.servers["dp-1"].http;
    let began = Instant::now();
    loop {
        let first = async { call(&mut open(Transport::Http, address, &ca, &token).await?).await };
        match first.await {
            Ok(()) => break,
            Err(why) => assert!(began.elapsed() < SOON, "calls are not taken: {why}"),
        }
        tokio::time::sleep(CALL_PERIOD).await;
    }

    // Connections that stay, one on each transport, and new ones all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for transport in TRANSPORTS {
        let (ca, token, stop) = (ca.clone(), token.clone(), stop.clone());
        clients.spawn(async move {
            let mut stays = open(transport, address, &ca, &token).await.unwrap();
            let mut calls = 0_u32;
            while !stop.load(Ordering::SeqCst) {
                call(&mut stays).await.unwrap_or_else(|e| panic!("{transport:?}, the connection that stays: {e}"));
                let mut new = open(transport, address, &ca, &token).await.unwrap();
                call(&mut new).await.unwrap_or_else(|e| panic!("{transport:?}, a new connection: {e}"));
                calls += 2;
                tokio::time::sleep(CALL_PERIOD).await;
            }
            calls
        });
    }
    let began = Instant::now();
    let mut seen: Vec<CertificateDer<'static>> = Vec::new();
    while began.elapsed() < life * 3 / 2 {
        let leaf = shown(address, &ca).await.unwrap();
        let (from, until) = validity_of(&leaf).unwrap();
        assert_eq!(until.duration_since(from + BACKDATE).unwrap(), life);
        assert!(SystemTime::now() < until, "an ended certificate is shown");
        if seen.last() != Some(&leaf) {
            seen.push(leaf);
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    stop.store(true, Ordering::SeqCst);
    let calls: u32 = clients.join_all().await.into_iter().sum();
    println!("{} certificates of {life:?} and {calls} calls in {:?}, none failed", seen.len(), began.elapsed());
    assert!(seen.len() > 2 && calls > 40, "{} certificates, {calls} calls", seen.len());
    let distinct: BTreeSet<&[u8]> = seen.iter().map(AsRef::as_ref).collect();
    assert_eq!(distinct.len(), seen.len(), "one was used again");
    assert_eq!(HostName::of_certificate(&seen[0]).unwrap(), ["127.0.0.1".parse().unwrap()]);

    tokio::task::block_in_place(|| {
        // A node that no rule names does not get the name of those that one does.
        fleet.join("cp-1", "edge-1", "data-plane");
        assert!(!fleet.get("edge-1").ended(SOON).success());
        let said = fleet.servers["edge-1"].log();
        assert!(said.contains("PV-TLS-AGENT-NAMES") && said.contains("edge-1"), "{said}");
        // Without any control plane a node starts with what it has kept.
        fleet.get("dp-1").terminate();
        fleet.get("cp-1").kill();
        fleet.start("dp-1");
        fleet.until("it listens", |f| std::net::TcpStream::connect(f.servers["dp-1"].http).is_ok());
    });
}

/// An authority of agents, and its files.
struct Agents {
    issuer: Issuer<'static, KeyPair>,
    ca: PathBuf,
    list: PathBuf,
}

impl Agents {
    fn new(dir: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (ca, list) = (dir.join("client-ca.pem"), dir.join("client.crl"));
        fs::write(&ca, encode_pem("CERTIFICATE", certificate.der())).unwrap();
        let agents = Self { issuer: Issuer::new(params, key), ca, list };
        agents.revoke(&[]);
        agents
    }

    /// Puts a list in place, whole.
    fn revoke(&self, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2400, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let aside = self.list.with_extension("new");
        fs::write(&aside, encode_pem("X509 CRL", list.signed_by(&self.issuer).unwrap().der())).unwrap();
        fs::rename(aside, &self.list).unwrap();
    }

    fn client(&self, ca: &Path, serial: u64) -> ClientConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = vec![SanType::URI("spiffe://agents/bot".try_into().unwrap())];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        client_config(ca, Some((certificate.der().clone(), key)))
    }
}

/// Asks on a connection that stays; whether it answers.
async fn answers(stream: &mut TlsStream<TcpStream>) -> bool {
    let request = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    if stream.write_all(request).await.is_err() {
        return false;
    }
    let mut said = [0; 4096];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut said)).await.expect("neither an answer nor an end");
    read.is_ok_and(|count| said[..count].starts_with(b"HTTP/1.1 200"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_revoked_is_out_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let agents = Agents::new(dir.path());
    let more = format!("client_ca = {:?}\nclient_crl = [{:?}]\n", agents.ca, agents.list);
    let (fleet, ca) = tokio::task::block_in_place(|| {
        let fleet = fleet("revoked", Duration::from_secs(3_600), &more, &["dp-1"]);
        fleet.until("it listens", |f| std::net::TcpStream::connect(f.servers["dp-1"].http).is_ok());
        let ca = ca(&fleet);
        (fleet, ca)
    });
    let address = fleet.servers["dp-1"].http;
    let (good, bad) = (agents.client(&ca, 1), agents.client(&ca, 2));
    let (mut stays, mut goes) =
        (connect(address, good.clone()).await.unwrap(), connect(address, bad.clone()).await.unwrap());
    assert!(answers(&mut stays).await && answers(&mut goes).await);

    // What cannot be used changes nothing.
    fs::write(&agents.list, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
    tokio::task::block_in_place(|| {
        fleet.until("it is said", |f| f.servers["dp-1"].log().contains("still taken as before"));
    });
    assert!(answers(&mut stays).await && answers(&mut goes).await);

    agents.revoke(&[2]);
    let began = Instant::now();
    while answers(&mut goes).await {
        assert!(began.elapsed() < LIMIT, "a revoked certificate is still served");
        assert!(answers(&mut stays).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the connection of a revoked certificate ended after {:?}", began.elapsed());
    assert!(answers(&mut stays).await, "the other one stays");
    // Its end of the handshake comes first; the refusal is what is read.
    if let Ok(mut again) = connect(address, bad).await {
        assert!(!answers(&mut again).await, "a revoked certificate is let in");
    }
    assert!(answers(&mut connect(address, good).await.unwrap()).await);
}
