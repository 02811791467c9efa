//! Keys of sealed bodies between nodes.
//!
//! Purpose: a node of the audit log hands them out; a process that serves calls gets them from the
//! replica in it, or asks others.
//! Invariants: only members with the right role are answered: data planes get one key at a time,
//! nodes of the audit log get all; a data plane gets keys of the months that its calls can be of, so that
//! one that is taken over opens nothing older; a key is never logged and never part of an error; a key that
//! cannot be had within [`KEY_DEADLINE`] is an error, and never another way to record.

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
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
/// Keys are given out of so many months before and after this one.
const MONTHS_AROUND: u32 = 1;
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
        recent(month, now_month())?;
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

/// Refuses months that no call can be of that is recorded now: a call ends in the month in which it began
/// or in the next one, and clocks differ.
#[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
fn recent(asked: Month, now: Month) -> Result<(), Status> {
    if asked.number().abs_diff(now.number()) <= MONTHS_AROUND {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "PV-AUDIT-PEER: keys of bodies are given out around {now}, not of {asked}; set the clock of this node"
    )))
}

fn now_month() -> Month {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Month::of_ns(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
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
