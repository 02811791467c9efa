//! The commands as people type them, against a node in this process.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use clap::Parser;
use provost_control_api::{
    AdminApi, AdminToken, Caller, ControlConfig, ControlNode, NoAdmission, RestoredNode, SourceFile,
    identity::{Certifier, DEFAULT_LIFE, KeyRequest, KeySealer, NodeKey, NodeRecord, Registry},
};
use provost_control_state::ClusterCommand;
use provost_types::{AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture, Name, SecretRef};
use provost_wire::tls::{Identity, Limits, Material, Role, incoming};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;

use super::super::{Cli, run};

const RESOURCES: &str = "apiVersion: provost/v1\nkind: Tenant\nmetadata: {name: acme}\n";

/// Counts records.
#[derive(Default)]
struct Audit(Mutex<u64>);

impl AuditSink for Audit {
    fn record(&self, _: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        Box::pin(async move {
            let mut count = self.0.lock().unwrap();
            *count += 1;
            Ok(AuditReceipt { log: "test".into(), index: *count, leaf_hash: [0; 32] })
        })
    }
}

fn n(text: &str) -> Name {
    Name::new(text).unwrap()
}

async fn open(dir: &Path, cluster: &str, node_id: u64) -> ControlNode {
    let mut config = ControlConfig::new(dir, cluster, "cp-1");
    config.node_id = node_id;
    ControlNode::open(config, Arc::new(NoAdmission), Arc::new(Audit::default())).await.unwrap()
}

fn value_of(node: &ControlNode) -> String {
    let reference = SecretRef { secret: n("api"), prefix: String::new() };
    node.secrets().unseal(&n("acme"), &reference).unwrap().expose_secret().to_owned()
}

/// A node with one secret, served with and without TLS.
struct Server {
    node: ControlNode,
    plain: String,
    secure: String,
    token: String,
    dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let node = open(&dir.path().join("data"), "first", 1).await;
        let caller = Caller::internal("test");
        let file = SourceFile { path: "a.yaml".into(), text: RESOURCES.into() };
        node.apply(&caller, &[file], "", false).await.unwrap();
        node.secret_set(&caller, &n("acme"), &n("api"), b"hunter2", "").await.unwrap();
        let (token, kept) = AdminToken::generate("root").unwrap();

        let secrets: Arc<dyn KeySealer> = node.secrets();
        let (authority, _) = Certifier::make_authority(&*secrets, &n("first"), SystemTime::now()).unwrap();
        fs::write(dir.path().join("ca.pem"), &authority.certificate).unwrap();
        let command = ClusterCommand::Init {
            cluster: n("first"),
            node_id: 1,
            node: n("cp-1"),
            roles: [n("control-plane")].into(),
            address: "127.0.0.1:7443".into(),
            authority: Some(authority),
            version: Default::default(),
        };
        Registry::change(&node, command).await.unwrap();
        let registry: Arc<dyn Registry> = Arc::new(node.clone());
        let certifier = Arc::new(Certifier::new(registry, secrets, DEFAULT_LIFE));
        let key = KeyRequest::make().unwrap();
        let record = NodeRecord { node_id: 1, name: n("cp-1"), roles: Role::ControlPlane.into() };
        let request = NodeKey::of_request(&key.request).unwrap();
        let issued = certifier.certify(&record, &request, SystemTime::now()).unwrap();
        let material = Material { certificate: issued.certificate, key: key.key, bundle: issued.bundle };
        let identity = Arc::new(Identity::new(&material).unwrap());

        let (plain, secure) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let addresses = [plain.local_addr().unwrap().to_string(), secure.local_addr().unwrap().to_string()];
        let api = |tokens: Vec<AdminToken>| AdminApi::new(&node, tokens).with_certifier(certifier.clone());
        let (first, second) = (api(vec![kept.clone()]), api(vec![kept]));
        tokio::spawn(first.serve(plain, std::future::pending()));
        tokio::spawn(
            second.serve_incoming(incoming(secure, identity, Limits::default(), None), std::future::pending()),
        );
        let [plain, secure] = addresses;
        Self { node, plain, secure, token: token.expose_secret().to_owned(), dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs a command line with the server's address; gives the error as it is printed.
    async fn run(&self, line: &[&str]) -> Result<(), String> {
        self.run_at(&self.plain, line).await
    }

    async fn run_at(&self, admin: &str, line: &[&str]) -> Result<(), String> {
        let connection = ["--admin", admin, "--admin-token", &self.token];
        provost(&[line, &connection].concat()).await
    }
}

/// Boxed: the future of every command is large, and each test runs several.
async fn provost(line: &[&str]) -> Result<(), String> {
    let cli = Cli::try_parse_from([&["provost"], line].concat()).map_err(|e| e.to_string())?;
    Box::pin(run(cli)).await.map(drop).map_err(|e| format!("{e:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_written_verified_and_restored() {
    let server = Server::start().await;
    let (file, sealed) = (server.path("b.pvb"), server.path("b.pvb.age"));
    server.run(&["cluster", "backup", &file]).await.unwrap();
    let again = server.run(&["cluster", "backup", &file]).await.unwrap_err();
    assert!(again.starts_with("PV-BACKUP-TARGET"), "{again}");
    server.run(&["cluster", "backup", &file, "--force", "--json"]).await.unwrap();

    let identity = age::x25519::Identity::generate();
    let key = server.path("identity");
    fs::write(&key, identity.to_string().expose_secret()).unwrap();
    let recipient = identity.to_public().to_string();
    server.run(&["cluster", "backup", &sealed, "--age-recipient", &recipient]).await.unwrap();
    assert!(!fs::read(&sealed).unwrap().windows(8).any(|w| w == b"PVBACKUP"));

    provost(&["cluster", "backup", "--verify", &file]).await.unwrap();
    let closed = provost(&["cluster", "backup", "--verify", &sealed]).await.unwrap_err();
    assert!(closed.starts_with("PV-BACKUP-IDENTITY"), "{closed}");
    provost(&["cluster", "backup", "--verify", &sealed, "--age-identity", &key, "--json"]).await.unwrap();
    let mut bad = fs::read(&file).unwrap();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    let damaged = server.path("bad.pvb");
    fs::write(&damaged, bad).unwrap();
    let error = provost(&["cluster", "backup", "--verify", &damaged]).await.unwrap_err();
    assert!(error.starts_with("PV-BACKUP-DAMAGED") && error.contains("between byte"), "{error}");

    let data = server.path("restored");
    let restore = |file: &str, cluster: &str| {
        let line = ["cluster", "restore", file, "--data-dir", &data, "--cluster", cluster];
        line.map(str::to_owned)
    };
    for (line, code) in [
        (restore(&damaged, "second"), "PV-BACKUP-DAMAGED"),
        (restore(&file, "first"), "PV-BACKUP-TARGET"),
        (restore(&sealed, "second"), "PV-BACKUP-IDENTITY"),
        (restore(&server.path("none"), "second"), "PV-BACKUP-IO"),
    ] {
        let error = provost(&line.each_ref().map(String::as_str)).await.unwrap_err();
        assert!(error.starts_with(code), "{error}");
        assert!(!Path::new(&data).exists(), "{code}: something was written");
    }
    let secrets_key = server.path("data/secrets.key");
    let line = restore(&sealed, "second");
    let line = [&line.each_ref().map(String::as_str)[..], &["--age-identity", &key, "--secrets-key", &secrets_key]];
    provost(&line.concat()).await.unwrap();
    let note = RestoredNode::read(Path::new(&data)).unwrap().unwrap();
    assert_eq!((note.cluster.as_str(), note.node_id), ("second", 2), "the old cluster gave id 1");
    let node = open(Path::new(&data), &note.cluster, note.node_id).await;
    assert_eq!(value_of(&node), "hunter2");
    assert!(node.cluster().members().is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_managed_over_tls_by_whichever_address_answers() {
    let server = Server::start().await;
    let ca = server.path("ca.pem");
    let list = format!("127.0.0.1:1,https://{}", server.secure);
    server.run_at(&list, &["cluster", "status", "--admin-ca", &ca]).await.unwrap();
    // Without a scheme the CA says that it is TLS.
    server.run_at(&server.secure, &["cluster", "status", "--json", "--admin-ca", &ca]).await.unwrap();
    server.run_at(&list, &["cluster", "rotate-keys", "--admin-ca", &ca]).await.unwrap();
    assert_eq!(value_of(&server.node), "hunter2");
    server
        .run_at(&list, &["cluster", "join-token", "--role", "data-plane", "--node", "edge-1", "--admin-ca", &ca])
        .await
        .unwrap();
    assert_eq!(server.node.cluster().join_tokens().len(), 1);
    // Somebody who adds a node has a voter in mind, unless another role is named.
    server.run_at(&list, &["cluster", "add", "cp-2", "--admin-ca", &ca]).await.unwrap();
    let others = ["cluster", "add", "edge-2", "--role", "data-plane", "--ttl", "5m", "--json", "--admin-ca", &ca];
    server.run_at(&list, &others).await.unwrap();
    let cluster = server.node.cluster();
    let roles_for = |node: &str| -> Vec<String> {
        let tokens = cluster.join_tokens().values().filter(|token| token.node.as_str() == node);
        tokens.flat_map(|token| token.roles.iter().map(|role| role.to_string())).collect()
    };
    assert_eq!(roles_for("cp-2"), ["control-plane"]);
    assert_eq!(roles_for("edge-2"), ["data-plane"]);
    let there = server.run_at(&list, &["cluster", "add", "cp-1", "--admin-ca", &ca]).await.unwrap_err();
    assert!(there.starts_with("PV-JOIN-NAME"), "{there}");
    server.run_at(&list, &["cluster", "rotate-ca", "begin", "--admin-ca", &ca]).await.unwrap();
    let early = server.run_at(&list, &["cluster", "rotate-ca", "commit", "--admin-ca", &ca]).await.unwrap_err();
    assert!(early.starts_with("PV-CA-TOO-EARLY"), "{early}");

    let without = server.run_at(&list, &["cluster", "status"]).await.unwrap_err();
    assert!(without.starts_with("PV-ADMIN-UNREACHABLE") && without.contains("CA"), "{without}");
    let none = server.run_at(&format!("https://{}", server.secure), &["cluster", "status"]).await.unwrap_err();
    assert!(none.starts_with("PV-ADMIN-CA"), "{none}");
    let unread = server.run(&["cluster", "status", "--admin-ca", "/no/such/file"]).await.unwrap_err();
    assert!(unread.starts_with("PV-ADMIN-CA"), "{unread}");
    // Another cluster's CA does not do.
    let (other, _) = Certifier::make_authority(&*server.node.secrets(), &n("other"), SystemTime::now()).unwrap();
    let other_ca = server.path("other.pem");
    fs::write(&other_ca, other.certificate).unwrap();
    let wrong = server.run_at(&server.secure, &["cluster", "status", "--admin-ca", &other_ca]).await.unwrap_err();
    assert!(wrong.starts_with("PV-TLS-PEER"), "{wrong}");
    let nobody = server.run(&["cluster", "remove", "cp-9"]).await.unwrap_err();
    assert!(nobody.starts_with("PV-CLUSTER-NO-NODE"), "{nobody}");
}

#[test]
fn every_command_has_an_example() {
    use clap::CommandFactory;
    let cli = Cli::command();
    let cluster = cli.find_subcommand("cluster").unwrap();
    for command in cluster.get_subcommands().chain(cli.find_subcommand("watch")) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Example: provost "), "{} has no example", command.get_name());
    }
    for promised in "status join-token add remove promote transfer-leader backup restore".split(' ') {
        assert!(cluster.find_subcommand(promised).is_some(), "there is no `provost cluster {promised}`");
    }
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let refused = Cli::try_parse_from(["provost", "cluster", "backup", "f", "--verify", "--age-recipient", &recipient]);
    assert!(refused.is_err(), "a verification encrypts nothing");
}
