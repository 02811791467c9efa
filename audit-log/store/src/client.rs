//! The group by way of whichever replica answers: the one in this process, or others over gRPC.
//!
//! To another node one command is under way at a time: calls may overtake each other. An attempt that fails
//! moves on to the next replica; the writer then sends again. How long an attempt may take grows while no answer is
//! heard (`patience`).

mod patience;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use provost_audit_core::{Hash, LogId};
use provost_types::{BoxFuture, Name};
use provost_wire::audit::{
    AppendRequest, AppendResponse, GroupRequest, GroupResponse, KeyRequest, LeaveRequest, OfferKeyRequest,
    OpenCallsRequest, WriterRequest, audit_log_client::AuditLogClient,
};
use provost_wire::node::{AuditKeysExportRequest, audit_keys_client::AuditKeysClient};
use tonic::{Code, Status, transport::Channel};
use zeroize::Zeroizing;

use self::patience::{FIRST, Patience};
use crate::{
    entry::Reply,
    proposer::{LocalProposer, ProposeError, Proposer, WriterState},
    recovery::OpenCall,
    service::MAX_AUDIT_MESSAGE_BYTES,
    state::WriterChain,
};

/// A writer with a replica in its process goes back to it after so long.
const HOME_AFTER: Duration = Duration::from_secs(10);
/// A leader that takes a replica out is looked for so long, with this pause between two rounds.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
const LEAVE_PAUSE: Duration = Duration::from_millis(200);
/// The key of a new replica may be waited for a little longer.
const KEY_LIMIT: Duration = Duration::from_secs(5);
/// All keys of bodies are up to this many bytes, and may take so long.
pub const MAX_KEYS_BYTES: usize = 256 << 20;
const KEYS_LIMIT: Duration = Duration::from_secs(30);

/// A replica and how it is reached.
#[derive(Clone)]
pub enum AuditEndpoint {
    /// In this process.
    Here(LocalProposer),
    /// On another node.
    There {
        /// For messages.
        name: String,
        /// Reaches it, and nobody else.
        channel: Channel,
    },
}

/// The group's replicas as a writer asks them; clones share the list.
#[derive(Clone, Default)]
pub struct AuditClient {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    endpoints: RwLock<Arc<Vec<AuditEndpoint>>>,
    at: AtomicUsize,
    left_home: Mutex<Option<Instant>>,
    keys_generation: AtomicU64,
    patience: Patience,
}

impl AuditClient {
    /// Replaces the replicas. The first is preferred: put the one of this process there.
    pub fn set(&self, endpoints: Vec<AuditEndpoint>) {
        *self.inner.endpoints.write() = Arc::new(endpoints);
        self.inner.at.store(0, Ordering::Relaxed);
    }

    /// How the group stands, by the word of a replica that answers.
    pub async fn group(&self) -> Result<GroupResponse, ProposeError> {
        match self.endpoint()? {
            AuditEndpoint::Here(local) => {
                let metrics = local.group.metrics();
                Ok(GroupResponse {
                    node_id: metrics.node_id,
                    leader_id: metrics.leader.unwrap_or_default(),
                    voters: metrics.voters.into_iter().collect(),
                    learners: metrics.learners.into_iter().collect(),
                    applied: metrics.applied.unwrap_or_default(),
                })
            }
            AuditEndpoint::There { name, channel } => {
                let asked = client(channel).group(GroupRequest {}).into_answer(&name, FIRST).await;
                self.noted(asked)
            }
        }
    }

    /// Takes a replica out of the group for good, by way of the leader. The sentence says why not.
    pub async fn leave(&self, node_id: u64) -> Result<(), String> {
        let began = Instant::now();
        let mut last = String::from("no audit node is known");
        while began.elapsed() < LEAVE_LIMIT {
            let endpoints = self.inner.endpoints.read().clone();
            for endpoint in endpoints.iter() {
                let asked = match endpoint {
                    AuditEndpoint::Here(local) if local.group.is_leader() => {
                        return local.leave(node_id).await.map_err(|e| e.to_string());
                    }
                    AuditEndpoint::Here(_) => continue,
                    AuditEndpoint::There { channel, .. } => {
                        let mut client = client(channel.clone());
                        tokio::time::timeout(LEAVE_LIMIT, client.leave(LeaveRequest { node_id })).await
                    }
                };
                match asked {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                        return Err(status.message().to_owned());
                    }
                    Ok(Err(status)) => status.message().clone_into(&mut last),
                    Err(_) => "an audit node does not answer".clone_into(&mut last),
                }
            }
            tokio::time::sleep(LEAVE_PAUSE).await;
        }
        Err(last)
    }

    /// Grows when the replicas' answers tell that keys of bodies were destroyed.
    pub fn keys_generation(&self) -> u64 {
        self.inner.keys_generation.load(Ordering::SeqCst)
    }

    /// The endpoint to ask now.
    fn endpoint(&self) -> Result<AuditEndpoint, ProposeError> {
        let endpoints = self.inner.endpoints.read().clone();
        let mut at = self.inner.at.load(Ordering::Relaxed);
        if matches!(endpoints.first(), Some(AuditEndpoint::Here(_)))
            && self.inner.left_home.lock().is_some_and(|left| left.elapsed() >= HOME_AFTER)
        {
            self.inner.left_home.lock().take();
            self.inner.at.store(0, Ordering::Relaxed);
            at = 0;
        }
        let nobody = || ProposeError::Again("no audit node is known".to_owned());
        endpoints.get(at % endpoints.len().max(1)).cloned().ok_or_else(nobody)
    }

    /// After a failure the next endpoint is asked.
    fn noted<T>(&self, answer: Result<T, ProposeError>) -> Result<T, ProposeError> {
        if let Err(ProposeError::Again(_)) = &answer {
            self.inner.at.fetch_add(1, Ordering::Relaxed);
            self.inner.left_home.lock().get_or_insert_with(Instant::now);
        }
        answer
    }

    /// One attempt at a replica on another node.
    async fn attempt<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, ProposeError> {
        let limit = self.inner.patience.limit();
        let began = tokio::time::Instant::now();
        let answer = call.into_answer(name, limit).await;
        if answer.is_err() && began.elapsed() >= limit {
            self.inner.patience.late(limit);
        }
        self.noted(answer)
    }

    /// One attempt to have a command logged.
    async fn append(
        &self,
        name: &str,
        call: impl Future<Output = Result<tonic::Response<AppendResponse>, Status>>,
    ) -> Result<Reply, ProposeError> {
        let began = tokio::time::Instant::now();
        let answer = self.attempt(name, call).await?;
        self.inner.patience.answered(began.elapsed());
        self.inner.keys_generation.fetch_max(answer.keys_generation, Ordering::SeqCst);
        Reply::decode(&answer.reply).map_err(|e| ProposeError::Refused(e.to_string()))
    }
}

/// Gets the checkpoint key from another replica. The bytes are secret.
pub async fn fetch_key(channel: Channel) -> Result<Vec<u8>, Status> {
    let late = |_| Status::unavailable("PV-AUDIT-PEER: no answer");
    let answer = tokio::time::timeout(KEY_LIMIT, client(channel).key(KeyRequest {})).await.map_err(late)??;
    Ok(answer.into_inner().pkcs8.to_vec())
}

/// Gives another replica the key that is about to sign; its number, once it keeps the key.
pub(crate) async fn offer_key(channel: Channel, pkcs8: Vec<u8>) -> Result<u64, Status> {
    let late = |_| Status::unavailable("PV-AUDIT-PEER: no answer");
    let request = OfferKeyRequest { pkcs8: pkcs8.into() };
    let answer = tokio::time::timeout(FIRST, client(channel).offer_key(request)).await.map_err(late)??;
    Ok(answer.into_inner().node_id)
}

/// Gets the keys of bodies from another replica; see [`crate::adopt_keys`].
pub async fn fetch_keys(channel: Channel) -> Result<Zeroizing<Vec<u8>>, Status> {
    let late = |_| Status::unavailable("PV-AUDIT-PEER: no answer");
    let mut client = AuditKeysClient::new(channel).max_decoding_message_size(MAX_KEYS_BYTES);
    let answer = tokio::time::timeout(KEYS_LIMIT, client.export(AuditKeysExportRequest {})).await.map_err(late)??;
    Ok(Zeroizing::new(answer.into_inner().keys.to_vec()))
}

pub(crate) fn client(channel: Channel) -> AuditLogClient<Channel> {
    AuditLogClient::new(channel)
        .max_decoding_message_size(MAX_AUDIT_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_AUDIT_MESSAGE_BYTES)
}

/// A call as an attempt: whatever goes wrong, another replica may do better.
trait IntoAnswer<T> {
    async fn into_answer(self, name: &str, limit: Duration) -> Result<T, ProposeError>;
}

impl<T, F: Future<Output = Result<tonic::Response<T>, Status>>> IntoAnswer<T> for F {
    async fn into_answer(self, name: &str, limit: Duration) -> Result<T, ProposeError> {
        match tokio::time::timeout(limit, self).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(ProposeError::Again(format!("audit node {name}: {}", status.message()))),
            Err(_) => Err(ProposeError::Again(format!("audit node {name} does not answer"))),
        }
    }
}

pub(crate) fn log_of(tenant: &str) -> Result<LogId, ProposeError> {
    if tenant.is_empty() {
        return Ok(LogId::CLUSTER);
    }
    let name = Name::new(tenant).map_err(|e| ProposeError::Refused(e.to_string()))?;
    Ok(LogId(Some(name)))
}

fn hash_of(bytes: &[u8]) -> Result<Hash, ProposeError> {
    let hash = <[u8; 32]>::try_from(bytes).map_err(|_| ProposeError::Refused("no hash".to_owned()))?;
    Ok(Hash(hash))
}

impl Proposer for AuditClient {
    fn pipeline(&self) -> usize {
        match self.endpoint() {
            Ok(AuditEndpoint::Here(local)) => local.pipeline(),
            _ => 1,
        }
    }

    fn writer_state(self: Arc<Self>, writer: String) -> BoxFuture<'static, Result<WriterState, ProposeError>> {
        Box::pin(async move {
            let answer = match self.endpoint()? {
                AuditEndpoint::Here(local) => return self.noted(Arc::new(local).writer_state(writer).await),
                AuditEndpoint::There { name, channel } => {
                    let mut client = client(channel);
                    self.attempt(&name, client.writer(WriterRequest { writer })).await?
                }
            };
            let mut chains = BTreeMap::new();
            for place in answer.places {
                let chain = WriterChain { epoch: place.epoch, seq: place.seq, prev: hash_of(&place.prev)? };
                chains.insert(log_of(&place.log)?, chain);
            }
            Ok(WriterState { epoch: answer.epoch, chains })
        })
    }

    fn propose(self: Arc<Self>, command: Bytes) -> BoxFuture<'static, Result<Reply, ProposeError>> {
        Box::pin(async move {
            match self.endpoint()? {
                AuditEndpoint::Here(local) => self.noted(Arc::new(local).propose(command).await),
                AuditEndpoint::There { name, channel } => {
                    let mut client = client(channel);
                    self.append(&name, client.append(AppendRequest { command })).await
                }
            }
        })
    }

    fn open_calls(
        self: Arc<Self>,
        writer: String,
        before_epoch: u64,
    ) -> BoxFuture<'static, Result<Vec<OpenCall>, ProposeError>> {
        Box::pin(async move {
            let answer = match self.endpoint()? {
                AuditEndpoint::Here(local) => {
                    return self.noted(Arc::new(local).open_calls(writer, before_epoch).await);
                }
                AuditEndpoint::There { name, channel } => {
                    let request = OpenCallsRequest { writer, before_epoch };
                    let mut client = client(channel);
                    self.attempt(&name, client.open_calls(request)).await?
                }
            };
            let call = |call: provost_wire::audit::OpenCall| {
                Ok(OpenCall { log: log_of(&call.log)?, index: call.index, intent: call.intent })
            };
            answer.calls.into_iter().map(call).collect()
        })
    }
}
