//! Who gets keys, and how they are asked for.
#![allow(clippy::unwrap_used)]

use provost_audit_store::AuditLogConfig;

use super::*;
use crate::roles::audit::standing::{Asking, Standing};

#[test]
fn what_is_no_key_is_refused() {
    let good = AuditKeyResponse {
        id: vec![1; 16].into(),
        pseudonym: vec![2; 16].into(),
        secret: vec![3; 32].into(),
        generation: 4,
    };
    assert_eq!(key_of(good.clone()).unwrap().secret(), &[3; 32]);
    assert!(key_of(AuditKeyResponse { secret: vec![3; 31].into(), ..good.clone() }).is_err());
    assert!(key_of(AuditKeyResponse { id: Bytes::new(), ..good }).is_err());
}

/// Without a certificate of the cluster nobody gets a key.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = provost_audit_store::open(AuditLogConfig::new(dir.path(), "n")).await.unwrap();
    let node = Arc::new(OnceLock::from(log.node().clone()));
    let callers = Callers(Arc::new(Standing::Ask(Asking::without_nodes())));
    let service = AuditKeysService { node, callers };
    let key = service.key(Request::new(AuditKeyRequest::default())).await.unwrap_err();
    let all = service.export(Request::new(AuditKeysExportRequest {})).await.unwrap_err();
    assert_eq!((key.code(), all.code()), (tonic::Code::Unauthenticated, tonic::Code::Unauthenticated));
    log.close().await.unwrap();
}

/// A data plane gets keys of this month and those beside it, whatever the subject.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_gets_no_key_of_a_month_that_is_past() {
    let dir = tempfile::tempdir().unwrap();
    let log = provost_audit_store::open(AuditLogConfig::new(dir.path(), "n")).await.unwrap();
    let name = |text: &str| Name::new(text).unwrap();
    let (not_before, not_after) = (UNIX_EPOCH, SystemTime::now());
    let node = tls::NodeName::new(name("provost"), tls::Role::DataPlane, name("dp-1"));
    let caller = Arc::new(tls::Certified { name: node, dns: Vec::new(), serial_node_id: None, not_before, not_after });
    let callers = Callers(Arc::new(Standing::Ask(Asking::knowing(&caller))));
    let service = AuditKeysService { node: Arc::new(OnceLock::from(log.node().clone())), callers };
    let ask = async |month: u32| {
        let month = Month::from_number(month).to_string();
        let asked = AuditKeyRequest { tenant: "acme".to_owned(), subject: "ana".to_owned(), month };
        let mut request = Request::new(asked);
        let (remote, certified) = ("127.0.0.1:1".parse().unwrap(), Some(caller.clone()));
        request.extensions_mut().insert(tls::PeerInfo { remote, certified });
        service.key(request).await.map(|answer| answer.into_inner().secret.len())
    };
    let now = now_month().number();
    for month in [now - 1, now, now + 1] {
        assert_eq!(ask(month).await.unwrap(), 32);
    }
    for month in [0, now - 12, now - 2, now + 2, now + 1_000] {
        let refused = ask(month).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{month}: {refused}");
        assert!(refused.message().contains("PV-AUDIT-PEER"), "{refused}");
    }
    let made = log.node().export_keys().unwrap().len();
    assert!(ask(now - 3).await.is_err());
    assert_eq!(log.node().export_keys().unwrap().len(), made, "none was made either");
    log.close().await.unwrap();
}

/// A node of the audit log that knows one subject.
struct Fake {
    generation: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl AuditKeys for Fake {
    async fn key(&self, request: Request<AuditKeyRequest>) -> Result<Response<AuditKeyResponse>, Status> {
        let AuditKeyRequest { tenant, subject, month } = request.into_inner();
        if (tenant.as_str(), subject.as_str(), month.as_str()) != ("acme", "ana", "1970-01") {
            return Err(Status::unavailable("no quorum"));
        }
        let generation = self.generation.load(Ordering::SeqCst);
        let part = |n, len| Bytes::from(vec![n; len]);
        Ok(Response::new(AuditKeyResponse { id: part(1, 16), pseudonym: part(2, 16), secret: part(3, 32), generation }))
    }
    async fn export(&self, _: Request<AuditKeysExportRequest>) -> Result<Response<AuditKeysExportResponse>, Status> {
        Ok(Response::new(AuditKeysExportResponse { keys: Bytes::from_static(b"all") }))
    }
}

#[tokio::test(start_paused = true)]
async fn without_anybody_to_ask_a_call_is_refused_in_time() {
    let keys = GroupKeys::new(Arc::default(), AuditClient::default());
    let began = tokio::time::Instant::now();
    let refused = keys.key(&Name::new("acme").unwrap(), "ana", Month::EPOCH).await.unwrap_err();
    assert!(refused.0.contains("no node of the audit log is known"), "{refused}");
    assert!(began.elapsed() <= KEY_DEADLINE);
}

#[tokio::test]
async fn the_first_node_that_answers_is_enough_and_tells_of_destroyed_keys() {
    use provost_wire::node::audit_keys_server::AuditKeysServer;
    use tonic::transport::{Endpoint, Server, server::TcpIncoming};

    let generation = Arc::new(AtomicU64::new(4));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = AuditKeysServer::new(Fake { generation: generation.clone() });
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
    let channel = |address: String| Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let nodes = vec![channel("127.0.0.1:1".to_owned()), channel(address.to_string())];

    let (acme, keys) = (Name::new("acme").unwrap(), GroupKeys::new(Arc::default(), AuditClient::default()));
    keys.set(nodes.clone());
    let key = keys.key(&acme, "ana", Month::EPOCH).await.unwrap();
    assert_eq!((key.id, key.subject, key.secret()), (KeyId([1; 16]), Pseudonym([2; 16]), &[3; 32]));
    assert_eq!(keys.generation(), 4);
    generation.store(5, Ordering::SeqCst);
    keys.key(&acme, "ana", Month::EPOCH).await.unwrap();
    assert_eq!(keys.generation(), 5, "writers forget what they hold");
    let refused = keys.key(&acme, "sue", Month::EPOCH).await.unwrap_err();
    assert!(refused.0.contains("no quorum"), "{refused}");
    let all = provost_audit_store::fetch_keys(channel(address.to_string())).await.unwrap();
    assert_eq!(all.as_slice(), b"all");
}
