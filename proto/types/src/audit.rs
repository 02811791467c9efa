//! What is said to the audit log, and the port through which it is said.

use serde::{Deserialize, Serialize};

use crate::{Body, BoxFuture, CallId, Effect, Name, Revision};

/// Where in a call's life a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The call was admitted and is about to run.
    Intent,
    /// The call ended; `status` says how.
    Outcome,
    /// The call was refused before it could run.
    Denied,
    /// Not a call: an administrative change, a login, a start or stop, a read of the log.
    Event,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallStatus {
    /// A result.
    Ok,
    /// A result with `isError: true`.
    ToolError,
    /// A JSON-RPC error.
    RpcError,
    /// The deadline passed.
    Timeout,
    /// The caller cancelled.
    Cancelled,
    /// Refused.
    Denied,
    /// The upstream wants input before it goes on (MRTR); the retry is its own call.
    InputRequired,
    /// The process ended between intent and outcome: whether the call ran is not known.
    Unknown,
}

/// Who called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The principal's name within the tenant.
    pub principal: String,
    /// What the client calls itself (`clientInfo.name/version`); never trusted.
    pub agent: Option<String>,
    /// The peer's address.
    pub client_address: Option<String>,
    /// How the caller proved who it is: `api_key:NAME`, `anonymous`, `admin_token`, `internal`.
    pub authenticated_by: String,
}

/// What an event is about when it is not a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What happened: `apply`, `delete`, `rollback`, `secret.set`, `token.create`, `audit.query`,
    /// `log.start`, `log.stop`, …
    pub event: String,
    /// The objects, such as resource keys.
    pub objects: Vec<String>,
    /// Free text for people; never a secret.
    pub detail: String,
}

/// What was called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// The MCP method, or `inference/chat`, `inference/embed`, `inference/transcribe`.
    pub method: String,
    /// Tool, prompt, resource URI or model as the caller named it.
    pub target: Option<String>,
    /// The plugin that served it.
    pub plugin: Option<String>,
    /// SHA-256 of the plugin's spec at this revision, hexadecimal.
    pub plugin_digest: Option<String>,
    /// JSON-RPC id as text.
    pub request_id: Option<String>,
    /// MCP revision of the caller.
    pub protocol_version: Option<String>,
    /// `http`, `ws`, `h3`, `quic`, `stdio`, `admin`.
    pub transport: String,
    /// Names of the secrets that the plugin is given for this call; never their values.
    pub secrets: Vec<String>,
    /// Not a call: what happened.
    pub subject: Option<Subject>,
}

/// Why and under which trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Workflow or conversation id given by the caller.
    pub workflow: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The first call of a chain of calls.
    pub root_call: Option<CallId>,
    /// 1 for the first attempt; of an outcome, how often the upstream was asked: 0 for a kept answer, and for a call that
    /// found no place.
    pub attempt: u32,
}

/// What it cost and moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// Bytes of arguments.
    pub bytes_in: u64,
    /// Bytes of the answer.
    pub bytes_out: u64,
    /// Rows returned by a query.
    pub rows: u64,
    /// Model tokens read.
    pub tokens_in: u64,
    /// Model tokens made.
    pub tokens_out: u64,
    /// Cost in millionths of the tenant's currency.
    pub cost_micro: u64,
    /// From arrival to outcome, microseconds.
    pub duration_us: u64,
}

/// One thing to be recorded. The log adds writer, epoch, sequence, time and chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Intent, outcome, denial or event.
    pub phase: Phase,
    /// The call; an event gets an id of its own.
    pub call_id: CallId,
    /// The tenant whose log it belongs to; `None`: the cluster's own log.
    pub tenant: Option<Name>,
    /// When it happened, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Who.
    pub who: Who,
    /// What.
    pub what: What,
    /// Why.
    pub why: Why,
    /// Allow or deny; `None` for events.
    pub decision: Option<Effect>,
    /// The ids of the deciding policies, and of observers prefixed `observe:`.
    pub policies: Vec<String>,
    /// The snapshot's revision.
    pub revision: Revision,
    /// How the call ended; `None` for intents and events.
    pub status: Option<CallStatus>,
    /// Error code and kind, such as `PV-POLICY-DENIED` or `-32602`.
    pub error: Option<String>,
    /// One sentence on why it was refused or failed; never contents.
    pub reason: Option<String>,
    /// What guards found: of each kind and action how many, `card:mask=2`. Of the arguments for intents
    /// and denials; for outcomes of what came back, and of answers to questions. Never a value.
    #[serde(default)]
    pub guards: Vec<String>,
    /// The arguments as guards left them, for intents and denials; the answer, for outcomes. `None` for
    /// what has none, and for callers who are not known: there is nobody's key to keep it under.
    pub body: Option<Body>,
    /// Sizes, tokens, cost, duration.
    pub impact: Impact,
}

/// Proof of place: handed to the caller in the result's `_meta`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReceipt {
    /// The log's origin, such as `provost/acme`.
    pub log: String,
    /// The leaf's index in that log.
    pub index: u64,
    /// RFC 6962 leaf hash.
    pub leaf_hash: [u8; 32],
}

/// The log could not make a record durable in time; the call must be refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot record now: {0}")]
pub struct AuditUnavailable(pub String);

/// The audit log as the other planes see it: the future resolves when the record is durable.
pub trait AuditSink: Send + Sync {
    /// Appends one record and waits until it is durable.
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>>;

    /// The same of a record that its caller brings again: one that is not on its way yet when the
    /// returned future is dropped or has failed need not be written.
    fn record_if_awaited(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        self.record(event)
    }

    /// [`AuditSink::record`] of an event that is boxed already: it is large, and need not be copied on its way.
    fn record_boxed(&self, event: Box<AuditEvent>) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        self.record(*event)
    }
}
