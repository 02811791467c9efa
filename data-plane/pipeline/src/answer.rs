//! What comes back: from the executor, and to the transport.

use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::{AuditReceipt, CallStatus, QuotaUnit};

/// What an executor answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A result object, as bytes. `is_error` tells a tool's own `isError: true`.
    Result {
        /// The object.
        body: RawJson,
        /// The tool says that it failed.
        is_error: bool,
    },
    /// An MRTR result: the object with `inputRequests` and the executor's own `requestState`.
    InputRequired(RawJson),
    /// A JSON-RPC error.
    Error(RpcError),
}

/// What a call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rows returned.
    pub rows: u64,
    /// Model tokens read.
    pub tokens_in: u64,
    /// Model tokens made.
    pub tokens_out: u64,
    /// What it cost, in millionths of the tenant's currency; 0 where nothing has a price.
    pub cost_micro: u64,
}

/// How an answer was come by, for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// How often it was tried; 0: nothing was asked.
    pub attempts: u32,
    /// The answer was given before and kept: so many milliseconds ago.
    pub cached_ms: Option<u64>,
}

impl Default for Effort {
    fn default() -> Self {
        Self { attempts: 1, cached_ms: None }
    }
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// What to answer.
    pub reply: Reply,
    /// How it is recorded.
    pub status: CallStatus,
    /// What it used.
    pub usage: Usage,
    /// What it took.
    pub effort: Effort,
}

impl Execution {
    /// A result; `is_error` as the tool says.
    pub fn result(body: RawJson, is_error: bool) -> Self {
        let status = if is_error { CallStatus::ToolError } else { CallStatus::Ok };
        Self { reply: Reply::Result { body, is_error }, status, usage: Usage::default(), effort: Effort::default() }
    }

    /// An MRTR result.
    pub fn input_required(body: RawJson) -> Self {
        Self {
            reply: Reply::InputRequired(body),
            status: CallStatus::InputRequired,
            usage: Usage::default(),
            effort: Effort::default(),
        }
    }

    /// An error; its status follows from its code.
    pub fn error(error: RpcError) -> Self {
        let status = match error.code {
            RpcError::DEADLINE_EXCEEDED => CallStatus::Timeout,
            _ => CallStatus::RpcError,
        };
        Self { reply: Reply::Error(error), status, usage: Usage::default(), effort: Effort::default() }
    }

    /// The caller gave up.
    pub fn cancelled() -> Self {
        Self {
            reply: Reply::Error(RpcError::with_code(
                RpcError::INTERNAL,
                "PV-CALL-CANCELLED",
                "the caller cancelled the call",
            )),
            status: CallStatus::Cancelled,
            usage: Usage::default(),
            effort: Effort::default(),
        }
    }
}

/// Which stage refused; each transport has one table from this to its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// The caller is not known: HTTP 401.
    Unauthenticated,
    /// No such tool, prompt, resource, model or plugin (or none that the caller may see).
    NotFound,
    /// Policy: 403 on OpenAI endpoints, a JSON-RPC error on MCP.
    Denied,
    /// A limit is used up: 429.
    Limited,
    /// Whether a limit is used up cannot be known now: 503.
    LimitUnknown,
    /// The parameters are wrong.
    Invalid,
    /// A guard refused.
    Guarded,
    /// The node runs as many calls as it may: 503.
    Overloaded,
    /// The audit log cannot record: 503.
    AuditUnavailable,
}

/// A refusal before execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which stage.
    pub kind: RejectionKind,
    /// The stable code, `PV-…`.
    pub code: &'static str,
    /// The error to answer.
    pub error: RpcError,
    /// For limits: when to try again.
    pub retry_after_ms: Option<u64>,
    /// For limits: what is left of the one that refused.
    pub limit: Option<Box<LimitState>>,
    /// What only some refusals have.
    aside: Option<Box<Aside>>,
}

/// What only some refusals have, and none has both.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Aside {
    Challenge(ScopeChallenge),
    Withheld(Vec<String>),
}

/// Scopes to ask an authorization server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeChallenge {
    /// All that are needed, those that the caller has included.
    pub scopes: Vec<String>,
}

/// How what is used of a limit comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// When its window ends.
    Consumable,
    /// By time, steadily.
    Rate,
    /// When calls that run end.
    Concurrency,
}

impl LimitKind {
    /// The name as errors carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitKind::Consumable => "consumable",
            LimitKind::Rate => "rate",
            LimitKind::Concurrency => "concurrency",
        }
    }
}

/// What is left of a limit that a call counts in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// `TENANT/QUOTA`.
    pub quota: String,
    /// How it comes back.
    pub kind: LimitKind,
    /// What it counts.
    pub unit: QuotaUnit,
    /// The most in one window.
    pub limit: u64,
    /// What is left, as far as this node can know.
    pub remaining: u64,
    /// Milliseconds until the window ends; `None`: it has no end.
    pub reset_ms: Option<u64>,
}

impl Rejection {
    /// A refusal whose JSON-RPC error carries the stable code in its data.
    pub fn new(kind: RejectionKind, code: &'static str, message: impl Into<String>) -> Self {
        let number = match kind {
            RejectionKind::Unauthenticated => RpcError::UNAUTHENTICATED,
            RejectionKind::NotFound | RejectionKind::Invalid => RpcError::INVALID_PARAMS,
            RejectionKind::Denied | RejectionKind::Guarded => RpcError::POLICY_DENIED,
            RejectionKind::Limited | RejectionKind::LimitUnknown => RpcError::LIMIT_EXCEEDED,
            RejectionKind::Overloaded => RpcError::OVERLOADED,
            RejectionKind::AuditUnavailable => RpcError::AUDIT_UNAVAILABLE,
        };
        Self {
            kind,
            code,
            error: RpcError::with_code(number, code, message),
            retry_after_ms: None,
            limit: None,
            aside: None,
        }
    }

    /// The same, and nothing of the parameters is kept.
    #[must_use]
    pub fn withholding(mut self, found: Vec<String>) -> Self {
        self.aside = Some(Box::new(Aside::Withheld(found)));
        self
    }

    /// A guard refused the parameters by what it alone knows of them: what is counted of it. The record keeps
    /// none of them.
    pub fn withheld(&self) -> Option<&[String]> {
        match self.aside.as_deref() {
            Some(Aside::Withheld(found)) => Some(found),
            _ => None,
        }
    }

    /// The scopes of a token with which it would not be refused; told in `WWW-Authenticate`.
    pub fn challenge(&self) -> Option<&ScopeChallenge> {
        match self.aside.as_deref() {
            Some(Aside::Challenge(challenge)) => Some(challenge),
            _ => None,
        }
    }

    /// The same with the scopes to ask for; without any it is as it was.
    #[must_use]
    pub fn with_scopes(mut self, scopes: Vec<String>) -> Self {
        if !scopes.is_empty() {
            // For transports without headers.
            let data = self.error.data.as_ref().map_or(Ok(RawObject::new()), RawObject::parse);
            if let Ok(mut data) = data {
                data.set("scopes", RawJson::from(serde_json::json!(scopes)));
                self.error.data = Some(data.finish());
            }
            self.aside = Some(Box::new(Aside::Challenge(ScopeChallenge { scopes })));
        }
        self
    }
}

/// What `drive` hands back to the transport.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The reply, or why there is none.
    pub outcome: Result<Reply, Rejection>,
    /// Where the last record of the call stands; `None` when nothing could be recorded.
    pub receipt: Option<AuditReceipt>,
    /// What is left of the limits that the call counts in; a refusal carries its own.
    pub limits: Vec<LimitState>,
}

impl Answer {
    pub(crate) fn refused(rejection: Rejection, receipt: Option<AuditReceipt>) -> Self {
        Self { outcome: Err(rejection), receipt, limits: Vec::new() }
    }
}
