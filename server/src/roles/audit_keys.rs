//! Keys of sealed bodies between nodes.
//!
//! Purpose: a node of the audit log hands them out; a data-plane node without a log of its own
//! asks for them.
//! Invariants: only members with the right role are answered: data planes get one key at a time,
//! nodes of the audit log get all; a key is never logged and never part of an error.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use provost_audit_store::AuditLog;
use provost_types::{AuditUnavailable, BoxFuture, KeyId, Month, Name, Pseudonym, SubjectKey, SubjectKeys};
use provost_wire::{
    node::{
        AuditKeyRequest, AuditKeyResponse, AuditKeysExportRequest, AuditKeysExportResponse,
        audit_keys_client::AuditKeysClient, audit_keys_server::AuditKeys,
    },
    tls,
};
use tonic::{Request, Response, Status, transport::Channel};
use zeroize::Zeroizing;

use super::standing::Standing;

/// One audit node gets so long before the next one is asked.
const KEY_LIMIT: Duration = Duration::from_secs(2);
/// Bytes of all keys in one answer.
pub const MAX_EXPORT_BYTES: usize = 256 << 20;

/// Hands keys out.
pub struct AuditKeysService {
    pub log: AuditLog,
    pub standing: Standing,
}

impl AuditKeysService {
    /// The caller is a member and has the role.
    async fn check<T>(&self, request: &Request<T>, role: tls::Role) -> Result<(), Status> {
        let Some(caller) = tls::certified_of(request) else {
            return Err(Status::unauthenticated("PV-AUDIT-PEER: only nodes of the cluster get keys"));
        };
        if !caller.name.has(role) {
            let text = format!("PV-AUDIT-PEER: {} has not the role for these keys", caller.name);
            return Err(Status::permission_denied(text));
        }
        self.standing.check(caller).await
    }
}

#[tonic::async_trait]
impl AuditKeys for AuditKeysService {
    async fn key(&self, request: Request<AuditKeyRequest>) -> Result<Response<AuditKeyResponse>, Status> {
        self.check(&request, tls::Role::DataPlane).await?;
        let AuditKeyRequest { tenant, subject, month } = request.into_inner();
        let tenant = Name::new(&tenant).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let month: Month = month.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let keys = self.log.subject_keys();
        // Before the key: what is destroyed meanwhile is asked for again.
        let generation = keys.generation();
        let key = keys.key(&tenant, &subject, month).await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(AuditKeyResponse {
            id: Bytes::copy_from_slice(&key.id.0),
            pseudonym: Bytes::copy_from_slice(&key.subject.0),
            secret: Bytes::copy_from_slice(key.secret()),
            generation,
        }))
    }

    async fn export(
        &self,
        request: Request<AuditKeysExportRequest>,
    ) -> Result<Response<AuditKeysExportResponse>, Status> {
        self.check(&request, tls::Role::AuditLog).await?;
        let keys = self.log.export_keys().map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(AuditKeysExportResponse { keys: Bytes::copy_from_slice(&keys) }))
    }
}

/// All keys, from the first node that gives them: what a node that joins the audit log adopts.
#[allow(dead_code, reason = "called by a node that joins an audit log of several nodes")]
pub async fn fetch_all(nodes: &[Channel]) -> Result<Zeroizing<Vec<u8>>, AuditUnavailable> {
    let mut last = AuditUnavailable("no node of the audit log is known".to_owned());
    for node in nodes {
        let mut client = AuditKeysClient::new(node.clone()).max_decoding_message_size(MAX_EXPORT_BYTES);
        match client.export(AuditKeysExportRequest {}).await {
            Ok(answer) => return Ok(Zeroizing::new(answer.into_inner().keys.to_vec())),
            Err(status) => last = AuditUnavailable(status.message().to_owned()),
        }
    }
    Err(last)
}

/// Asks nodes of the audit log for keys.
pub struct RemoteSubjectKeys {
    nodes: ArcSwap<Vec<Channel>>,
    /// The newest that any of them told.
    generation: AtomicU64,
}

impl RemoteSubjectKeys {
    /// Without nodes nothing is sealed, and so nothing is called.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { nodes: ArcSwap::default(), generation: AtomicU64::new(0) })
    }

    /// Replaces the nodes to ask.
    #[allow(dead_code, reason = "called where the audit log is elsewhere")]
    pub fn set(&self, nodes: Vec<Channel>) {
        self.nodes.store(Arc::new(nodes));
    }

    async fn ask(&self, request: AuditKeyRequest) -> Result<SubjectKey, AuditUnavailable> {
        let mut last = "no node of the audit log is known".to_owned();
        for node in self.nodes.load_full().iter() {
            let mut client = AuditKeysClient::new(node.clone());
            match tokio::time::timeout(KEY_LIMIT, client.key(request.clone())).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    self.generation.fetch_max(answer.generation, Ordering::SeqCst);
                    return key_of(answer);
                }
                Ok(Err(status)) => status.message().clone_into(&mut last),
                Err(_) => last = format!("no key within {KEY_LIMIT:?}"),
            }
        }
        Err(AuditUnavailable(last))
    }
}

fn key_of(answer: AuditKeyResponse) -> Result<SubjectKey, AuditUnavailable> {
    let AuditKeyResponse { id, pseudonym, secret, .. } = answer;
    let wrong = || AuditUnavailable("the audit log gave something that is no key".to_owned());
    let id = id.as_ref().try_into().map_err(|_| wrong())?;
    let pseudonym = pseudonym.as_ref().try_into().map_err(|_| wrong())?;
    let secret = secret.as_ref().try_into().map_err(|_| wrong())?;
    Ok(SubjectKey::new(KeyId(id), Pseudonym(pseudonym), secret))
}

impl SubjectKeys for RemoteSubjectKeys {
    fn key<'a>(
        &'a self,
        tenant: &'a Name,
        subject: &'a str,
        month: Month,
    ) -> BoxFuture<'a, Result<SubjectKey, AuditUnavailable>> {
        let (tenant, subject, month) = (tenant.to_string(), subject.to_owned(), month.to_string());
        Box::pin(self.ask(AuditKeyRequest { tenant, subject, month }))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_audit_store::AuditLogConfig;

    use super::*;
    use crate::roles::standing::Asking;

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
        let service = AuditKeysService { log: log.clone(), standing: Standing::Ask(Asking::without_nodes()) };
        let key = service.key(Request::new(AuditKeyRequest::default())).await.unwrap_err();
        let all = service.export(Request::new(AuditKeysExportRequest {})).await.unwrap_err();
        assert_eq!((key.code(), all.code()), (tonic::Code::Unauthenticated, tonic::Code::Unauthenticated));
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
            Ok(Response::new(AuditKeyResponse {
                id: part(1, 16),
                pseudonym: part(2, 16),
                secret: part(3, 32),
                generation,
            }))
        }
        async fn export(
            &self,
            _: Request<AuditKeysExportRequest>,
        ) -> Result<Response<AuditKeysExportResponse>, Status> {
            Ok(Response::new(AuditKeysExportResponse { keys: Bytes::from_static(b"all") }))
        }
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

        let (acme, keys) = (Name::new("acme").unwrap(), RemoteSubjectKeys::new());
        assert!(keys.key(&acme, "ana", Month::EPOCH).await.is_err(), "nobody to ask");
        keys.set(nodes.clone());
        let key = keys.key(&acme, "ana", Month::EPOCH).await.unwrap();
        assert_eq!((key.id, key.subject, key.secret()), (KeyId([1; 16]), Pseudonym([2; 16]), &[3; 32]));
        assert_eq!(keys.generation(), 4);
        generation.store(5, Ordering::SeqCst);
        keys.key(&acme, "ana", Month::EPOCH).await.unwrap();
        assert_eq!(keys.generation(), 5, "writers forget what they hold");
        let refused = keys.key(&acme, "sue", Month::EPOCH).await.unwrap_err();
        assert!(refused.0.contains("no quorum"), "{refused}");
        assert_eq!(fetch_all(&nodes).await.unwrap().as_slice(), b"all");
    }
}
