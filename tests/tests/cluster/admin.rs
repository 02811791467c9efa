//! The admin API as tests use it: one client that asks the node it is told to, with a deadline, and
//! says whether a failed write may still take effect.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use provost_wire::{
    AdminConnection,
    admin::{
        ApplyRequest, ChangeKind, Document, Failure, GetRequest, HistoryEntry, HistoryRequest, StatusRequest,
        StatusResponse,
    },
    connect_admin,
};
use tonic::{Code, Status};

use crate::{cluster::Place, history::Value};

/// The node number that stands for the relay of `dev.json`.
pub const RELAY: u64 = 0;
/// How long a question about the node itself may take.
const STATUS_LIMIT: Duration = Duration::from_secs(1);
/// Entries of one history answer: as many as a node keeps.
const HISTORY_ENTRIES: u32 = 1_000;

/// A call that failed.
#[derive(Debug)]
pub struct Failed {
    pub failure: Failure,
    pub code: Code,
    /// Whether the request may have reached the node.
    sent: bool,
    pub took: Duration,
}

impl Failed {
    /// Whether a write surely has no effect, now or later.
    pub fn had_no_effect(&self) -> bool {
        let refused = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::PermissionDenied,
            Code::Unauthenticated,
            Code::FailedPrecondition,
        ];
        !self.sent || refused.contains(&self.code)
    }

    /// Whether the node itself refused, with a code of its own: no lost connection, no deadline of ours.
    pub fn is_refusal(&self) -> bool {
        self.sent && self.failure.code.starts_with("PV-") && self.failure.code != "PV-ADMIN-RPC"
    }
}

/// Connections to every node, made when needed and forgotten when they fail.
pub struct Admin {
    place: Place,
    connections: Mutex<HashMap<u64, AdminConnection>>,
}

impl Admin {
    pub fn new(place: Place) -> Self {
        Self { place, connections: Mutex::default() }
    }

    /// The numbers of the three voters: they follow the order in which nodes joined.
    pub fn voters(&self) -> [u64; 3] {
        let voters: Vec<u64> = self.place.members().into_iter().map(|member| member.id).collect();
        voters.try_into().expect("three voters")
    }

    /// How a node stands, by its own word.
    pub async fn status(&self, node: u64) -> Result<StatusResponse, Failed> {
        self.call(node, STATUS_LIMIT, async |mut admin| admin.status(StatusRequest {}).await).await
    }

    /// Gives registers new values, all in one transaction; the revision, unless nothing changed.
    pub async fn write(&self, node: u64, values: &[(&str, Value)], limit: Duration) -> Result<Option<u64>, Failed> {
        let document = |(key, value): &(&str, Value)| {
            format!(
                "apiVersion: provost/v1\nkind: Tenant\nmetadata: {{ name: {key} }}\n\
                 spec: {{ displayName: '{value}' }}\n"
            )
        };
        let text = values.iter().map(document).collect::<Vec<_>>().join("---\n");
        let documents = vec![Document { path: "registers.yaml".to_owned(), text }];
        let request = ApplyRequest { documents, dry_run: false, message: String::new() };
        let answer = self.call(node, limit, async |mut admin| admin.apply(request).await).await?;
        // A node that asked the leader twice reports the present revision, which is not this write's.
        let changed = answer.changes.iter().any(|c| c.kind() != ChangeKind::Unchanged);
        Ok(changed.then_some(answer.revision))
    }

    /// What a register holds, and the revision at which it was read.
    pub async fn read(&self, node: u64, key: &str, limit: Duration) -> Result<(Option<Value>, Option<u64>), Failed> {
        let request = GetRequest { kind: "Tenant".to_owned(), name: key.to_owned(), tenant: String::new() };
        let answer = self.call(node, limit, async |mut admin| admin.get(request).await).await;
        let answer = match answer {
            Err(failed) if failed.code == Code::NotFound => return Ok((None, None)),
            other => other?,
        };
        let [resource] = answer.resources.as_slice() else { panic!("{key} is not one resource: {answer:?}") };
        let document: serde_json::Value = serde_json::from_str(&resource.json).unwrap();
        let value = document["spec"]["displayName"].as_str().unwrap().parse().unwrap();
        Ok((Some(value), Some(answer.revision)))
    }

    /// The newest transactions that a node knows, newest first.
    pub async fn history(&self, node: u64, limit: Duration) -> Result<Vec<HistoryEntry>, Failed> {
        let request = HistoryRequest { limit: HISTORY_ENTRIES, resource: String::new() };
        Ok(self.call(node, limit, async |mut admin| admin.history(request).await).await?.entries)
    }

    async fn call<T>(
        &self,
        node: u64,
        limit: Duration,
        ask: impl AsyncFnOnce(AdminConnection) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Failed> {
        let began = Instant::now();
        let connected = tokio::time::timeout(limit, self.connection(node)).await;
        let unreachable = |failure| Failed { failure, code: Code::Unavailable, sent: false, took: began.elapsed() };
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(failure)) => return Err(unreachable(failure)),
            Err(_) => return Err(unreachable(Failure::new("TEST-DEADLINE", "no connection in time", ""))),
        };
        let left = limit.saturating_sub(began.elapsed());
        let (failure, code) = match tokio::time::timeout(left, ask(connection)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => (Failure::of(&status), status.code()),
            Err(_) => (Failure::new("TEST-DEADLINE", "no answer in time", ""), Code::DeadlineExceeded),
        };
        let failed = Failed { failure, code, sent: true, took: began.elapsed() };
        if !failed.is_refusal() {
            // The process may be gone, and its successor may listen elsewhere.
            self.connections.lock().unwrap().remove(&node);
        }
        Err(failed)
    }

    async fn connection(&self, node: u64) -> Result<AdminConnection, Failure> {
        if let Some(known) = self.connections.lock().unwrap().get(&node) {
            return Ok(known.clone());
        }
        let address = match node {
            RELAY => self.place.relay(),
            id => self.place.members().into_iter().find(|m| m.id == id).map(|m| m.admin),
        };
        let address = address.ok_or_else(|| Failure::new("TEST-ADDRESS", "dev.json names no address", ""))?;
        let made = connect_admin(&address, &self.place.admin_token).await?;
        self.connections.lock().unwrap().insert(node, made.clone());
        Ok(made)
    }
}
