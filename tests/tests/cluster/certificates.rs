//! Certificates that live for seconds: they end and are replaced under load, nothing is lost by it,
//! and a cluster that was off for longer than they live comes back.
//!
//! What a node shows is read from handshakes of our own, made all the time: each must be answered,
//! and with a certificate that holds.

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use provost_wire::tls::{BACKDATE, Certified, certificate_hash, certificates, read_certificate};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    admin::Admin,
    cluster::{Cluster, HEAL_LIMIT, Place},
    harness::{Dev, START_LIMIT},
    history::Recorder,
    tool_calls::ToolCalls,
    workload::Scene,
};

/// How the server is told how long certificates live.
const LIFE_VARIABLE: &str = "PROVOST_CERTIFICATE_TTL_SECONDS";
/// The shortest life that a server takes.
const SHORT: Duration = Duration::from_secs(30);
/// The life if the run is long enough for it: `PROVOST_CLUSTER_SECONDS` of 140 or more.
const MINUTE: Duration = Duration::from_secs(60);
/// Each certificate must be replaced at least so often in a run.
const REPLACED: usize = 2;
/// Between two looks at every node.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// A handshake on a busy machine.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A write's patience: elections of a busy machine are no fault of a certificate.
const WRITE_LIMIT: Duration = Duration::from_secs(15);
const WRITE_PERIOD: Duration = Duration::from_millis(50);

/// How long certificates live and how long the load runs.
fn plan() -> (Duration, Duration) {
    let wanted = std::env::var("PROVOST_CLUSTER_SECONDS").ok().and_then(|n| n.parse().ok());
    let wanted = Duration::from_secs(wanted.unwrap_or(0));
    let runs_for = |life: Duration| life * 2 + Duration::from_secs(8);
    let life = if wanted >= runs_for(MINUTE) { MINUTE } else { SHORT };
    (life, wanted.max(runs_for(life)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_end_and_are_replaced_under_load_and_no_call_is_lost() {
    let (life, run) = plan();
    let seconds = life.as_secs().to_string();
    let Some(cluster) = Cluster::start_env(&[(LIFE_VARIABLE, &seconds)]).await else { return };
    let scene = Scene::set(&cluster).await;
    let calls = ToolCalls::start(&cluster.place);
    let writers = Writers::start(&scene, &cluster);
    let config = look_config(&ca(&cluster.place));

    let began = Instant::now();
    let mut seen: BTreeMap<String, Vec<(Shown, SystemTime)>> = BTreeMap::new();
    while began.elapsed() < run {
        for (node, address) in peers(&cluster.place) {
            let shown = look(&config, &node, address).await;
            let issued = shown.certified.not_before + BACKDATE;
            assert_eq!(shown.certified.not_after.duration_since(issued).unwrap(), life, "{node}: {shown:?}");
            let of_node = seen.entry(node).or_default();
            if of_node.last().is_none_or(|(last, _)| last.hash != shown.hash) {
                of_node.push((shown, SystemTime::now()));
            }
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    let writes = writers.stop().await;

    // Every certificate of the beginning has ended by now: connections are made with later ones only.
    let leader = cluster.leader().await;
    let follower = cluster.place.members().into_iter().find(|m| m.id != leader.id).unwrap();
    cluster.kill(&follower);
    cluster.agreed(HEAL_LIMIT).await;
    scene.writable_everywhere(&cluster).await;
    calls.stop().await.expect_no_failure();

    println!("certificates of {life:?} for {run:?}: {writes} writes, none failed");
    assert_eq!(seen.len(), 4, "three voters and the data plane's node: {:?}", seen.keys());
    for (node, shown) in &seen {
        let changes: Vec<_> = shown.iter().map(|(s, _)| &s.hash[..4]).collect();
        println!("{node}: {} certificates", changes.len());
        assert!(changes.len() > REPLACED, "{node} showed only {changes:02x?} in {run:?}");
        // The same node each time, and each one taken into use before the last had ended.
        for pair in shown.windows(2) {
            let ((old, _), (new, at)) = (&pair[0], &pair[1]);
            assert_eq!(old.certified.name, new.certified.name);
            assert_eq!(old.certified.serial_node_id, new.certified.serial_node_id);
            assert!(*at < old.certified.not_after, "{node} showed an ended certificate");
        }
    }
    for member in cluster.place.members() {
        let log = cluster.log(&member);
        for code in ["PV-TLS-EXPIRED", "not a member"] {
            let line = log.lines().find(|l| l.contains(code));
            assert_eq!(line, None, "node {} met {code}", member.id);
        }
    }
}

/// Everything was off, and every certificate ended: the voters certify themselves, the data plane's
/// node, which also keeps the audit log, shows that it has its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_off_for_longer_than_its_certificates_live_comes_back() {
    let seconds = SHORT.as_secs().to_string();
    let env = [(LIFE_VARIABLE, seconds.as_str())];
    let Some(mut cluster) = Cluster::start_env(&env).await else { return };
    let scene = Scene::set(&cluster).await;
    let kept = scene.write(0, "reg-0", WRITE_LIMIT).await.unwrap();
    let config = look_config(&ca(&cluster.place));
    let mut before = BTreeMap::new();
    for (node, address) in peers(&cluster.place) {
        before.insert(node.clone(), look(&config, &node, address).await);
    }

    off_for(&mut cluster, SHORT + Duration::from_secs(2), &env).await;

    for (node, address) in peers(&cluster.place) {
        let shown = look_until(&config, &node, address).await;
        let old = &before[&node];
        assert!(old.certified.not_after < SystemTime::now(), "{node}: the test was too quick");
        assert_eq!(
            (&shown.certified.name, shown.certified.serial_node_id),
            (&old.certified.name, old.certified.serial_node_id)
        );
    }
    // Reads need a quorum, writes also the audit log on the data plane's node.
    let scene = Scene { admin: Admin::new(cluster.place.clone()), recorder: Recorder::new(), initial: HashMap::new() };
    assert_eq!(scene.read(0, "reg-0", HEAL_LIMIT).await.unwrap(), Some(kept));
    scene.writable_everywhere(&cluster).await;
    let calls = ToolCalls::start(&cluster.place);
    tokio::time::sleep(Duration::from_secs(2)).await;
    calls.stop().await.expect_no_failure();
}

/// Where every node of the cluster listens for the others: the voters, and the process itself.
fn peers(place: &Place) -> Vec<(String, SocketAddr)> {
    let now = place.now().unwrap_or_default();
    let peer = |node: &Value| Some((node["name"].as_str()?.to_owned(), node["peer"].as_str()?.parse().ok()?));
    let mut peers: Vec<_> = now["nodes"].as_array().into_iter().flatten().filter_map(peer).collect();
    let plan: Value = serde_json::from_slice(&std::fs::read(place.data.join("cluster.json")).unwrap()).unwrap();
    peers.push(("dev".to_owned(), plan["peer"].as_str().unwrap().parse().unwrap()));
    peers
}

/// The certificates to trust.
fn ca(place: &Place) -> String {
    std::fs::read_to_string(place.data.join("ca.pem")).unwrap()
}

/// Stops everything, waits, and starts it again.
async fn off_for(cluster: &mut Cluster, time: Duration, env: &[(&str, &str)]) {
    let (took, ended_well) = cluster.dev.terminate();
    assert!(ended_well, "`provost dev` did not end well ({took:?}): {}", cluster.dev.stderr());
    tokio::time::sleep(time).await;
    cluster.dev = Dev::start_env(&cluster.place.data, None, &["--nodes", "3"], env);
    cluster.agreed(START_LIMIT).await;
}

/// Writers that keep to their node, and may not fail.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<u64>,
}

impl Writers {
    fn start(scene: &Arc<Scene>, cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for member in cluster.place.members() {
            let (scene, stop) = (scene.clone(), stop.clone());
            tasks.spawn(async move {
                let (key, mut writes) = (format!("reg-{}", member.id), 0);
                while !stop.load(Ordering::SeqCst) {
                    let written = scene.write(member.id, &key, WRITE_LIMIT).await;
                    written.unwrap_or_else(|e| panic!("write {writes} through node {} failed: {e:?}", member.id));
                    writes += 1;
                    tokio::time::sleep(WRITE_PERIOD).await;
                }
                writes
            });
        }
        Self { stop, tasks }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.join_all().await.into_iter().sum()
    }
}

/// What a node showed in a handshake.
#[derive(Clone, Debug)]
pub struct Shown {
    pub certified: Certified,
    pub hash: [u8; 32],
}

/// A handshake without a certificate of our own. The node's must be the cluster's and hold now.
pub async fn look(config: &Arc<ClientConfig>, node: &str, address: SocketAddr) -> Shown {
    let config = config.clone();
    let shown = tokio::task::spawn_blocking(move || handshake(config, address)).await.unwrap();
    shown.unwrap_or_else(|why| panic!("{node} at {address} refused a handshake: {why}"))
}

/// The first good certificate of a node that is coming back.
async fn look_until(config: &Arc<ClientConfig>, node: &str, address: SocketAddr) -> Shown {
    let began = Instant::now();
    loop {
        let config = config.clone();
        match tokio::task::spawn_blocking(move || handshake(config, address)).await.unwrap() {
            Ok(shown) => return shown,
            Err(why) => assert!(began.elapsed() < HEAL_LIMIT, "{node} does not come back: {why}"),
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

fn handshake(
    config: Arc<ClientConfig>,
    address: SocketAddr,
) -> Result<Shown, Box<dyn std::error::Error + Send + Sync>> {
    let mut tcp = TcpStream::connect_timeout(&address, HANDSHAKE_LIMIT)?;
    tcp.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    let mut tls = ClientConnection::new(config, ServerName::IpAddress(address.ip().into()))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    let leaf = tls.peer_certificates().and_then(|chain| chain.first()).ok_or("no certificate")?;
    Ok(Shown { certified: read_certificate(leaf)?, hash: certificate_hash(leaf) })
}

pub fn look_config(ca: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for ca in certificates("the CA", ca).unwrap() {
        roots.add(ca).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let of_cluster = OfCluster { roots, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.unwrap().dangerous().with_custom_certificate_verifier(Arc::new(of_cluster));
    Arc::new(config.with_no_client_auth())
}

/// Any node of the cluster, whatever its name.
#[derive(Debug)]
struct OfCluster {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OfCluster {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
