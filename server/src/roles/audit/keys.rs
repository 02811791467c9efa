//! Keys of sealed bodies between nodes.
//!
//! Purpose: a node of the audit log hands them out; a process that serves calls gets them from the
//! replica in it, or asks others.
//! Invariants: only members with the right role are answered: data planes get one key at a time,
//! nodes of the audit log get all; a key is never logged and never part of an error; a key that
//! cannot be had within [`KEY_DEADLINE`] is an error, and never another way to record.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use provost_audit_store::{AuditClient, AuditNode};
use provost_types::{AuditUnavailable, BoxFuture, KeyId, Month, Name, Pseudonym, SubjectKey, SubjectKeys};
use provost_wire::{
    node::{
        AuditKeyRequest, AuditKeyResponse, AuditKeysExportRequest, AuditKeysExportResponse,
        audit_keys_client::AuditKeysClient, audit_keys_server::AuditKeys,
    },
    tls,
};
use tonic::{Request, Response, Status, transport::Channel};

use super::callers::Callers;

/// A call waits so long for a key that this process does not hold yet.
const KEY_DEADLINE: Duration = Duration::from_secs(4);
/// One audit node gets so long before the next one is asked.
const KEY_LIMIT: Duration = Duration::from_secs(2);
/// Between two rounds of the audit nodes: while they elect a leader none can make a key.
const PAUSE: Duration = Duration::from_millis(100);

/// Hands keys out.
pub struct AuditKeysService {
    pub node: Arc<OnceLock<AuditNode>>,
    pub callers: Callers,
}

impl AuditKeysService {
    fn node(&self) -> Result<&AuditNode, Status> {
        let starting = || Status::unavailable("PV-AUDIT-UNAVAILABLE: this audit node is starting");
        self.node.get().ok_or_else(starting)
    }
}

#[tonic::async_trait]
impl AuditKeys for AuditKeysService {
    async fn key(&self, request: Request<AuditKeyRequest>) -> Result<Response<AuditKeyResponse>, Status> {
        self.callers.with_role(request.extensions(), tls::Role::DataPlane).await?;
        let AuditKeyRequest { tenant, subject, month } = request.into_inner();
        let tenant = Name::new(&tenant).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let month: Month = month.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let keys = self.node()?.subject_keys();
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
        self.callers.with_role(request.extensions(), tls::Role::AuditLog).await?;
        let keys = self.node()?.export_keys().map_err(|e| Status::unavailable(e.to_string()))?;
        tracing::info!("another audit node got the keys of bodies");
        Ok(Response::new(AuditKeysExportResponse { keys: Bytes::copy_from_slice(&keys) }))
    }
}

/// Keys as a process that serves calls gets them: from the replica here, else from other nodes of
/// the audit log.
pub struct GroupKeys {
    here: Arc<OnceLock<AuditNode>>,
    nodes: ArcSwap<Vec<Channel>>,
    /// The newest that another node told with a key.
    generation: AtomicU64,
    /// Others tell it with each batch of records that they take.
    records: AuditClient,
}

impl GroupKeys {
    /// Knows no other node yet; `records` is the way by which this process records.
    pub fn new(here: Arc<OnceLock<AuditNode>>, records: AuditClient) -> Arc<Self> {
        Arc::new(Self { here, nodes: ArcSwap::default(), generation: AtomicU64::new(0), records })
    }

    /// Replaces the other nodes to ask.
    pub fn set(&self, nodes: Vec<Channel>) {
        self.nodes.store(Arc::new(nodes));
    }

    async fn get(&self, tenant: &Name, subject: &str, month: Month) -> Result<SubjectKey, AuditUnavailable> {
        let deadline = tokio::time::Instant::now() + KEY_DEADLINE;
        let mut last = AuditUnavailable("no node of the audit log is known".to_owned());
        loop {
            match tokio::time::timeout_at(deadline, self.ask_each(tenant, subject, month, &mut last)).await {
                Ok(Some(key)) => return Ok(key),
                Ok(None) if tokio::time::Instant::now() + PAUSE < deadline => tokio::time::sleep(PAUSE).await,
                _ => return Err(AuditUnavailable(format!("no key of the body within {KEY_DEADLINE:?}: {last}"))),
            }
        }
    }

    /// One round; `last` says why nobody gave a key.
    async fn ask_each(
        &self,
        tenant: &Name,
        subject: &str,
        month: Month,
        last: &mut AuditUnavailable,
    ) -> Option<SubjectKey> {
        if let Some(node) = self.here.get() {
            match node.subject_keys().key(tenant, subject, month).await {
                Ok(key) => return Some(key),
                Err(cause) => *last = cause,
            }
        }
        for node in self.nodes.load_full().iter() {
            let mut client = AuditKeysClient::new(node.clone());
            let (tenant, subject, month) = (tenant.to_string(), subject.to_owned(), month.to_string());
            let asked = client.key(AuditKeyRequest { tenant, subject, month });
            let answer = match tokio::time::timeout(KEY_LIMIT, asked).await {
                Ok(Ok(answer)) => answer.into_inner(),
                Ok(Err(status)) => {
                    *last = AuditUnavailable(status.message().to_owned());
                    continue;
                }
                Err(_) => {
                    *last = AuditUnavailable("a node of the audit log does not answer".to_owned());
                    continue;
                }
            };
            self.generation.fetch_max(answer.generation, Ordering::SeqCst);
            match key_of(answer) {
                Ok(key) => return Some(key),
                Err(cause) => *last = cause,
            }
        }
        None
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

impl SubjectKeys for GroupKeys {
    fn key<'a>(
        &'a self,
        tenant: &'a Name,
        subject: &'a str,
        month: Month,
    ) -> BoxFuture<'a, Result<SubjectKey, AuditUnavailable>> {
        Box::pin(self.get(tenant, subject, month))
    }

    fn generation(&self) -> u64 {
        let here = self.here.get().map_or(0, |node| node.subject_keys().generation());
        here.max(self.generation.load(Ordering::SeqCst)).max(self.records.keys_generation())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
}
