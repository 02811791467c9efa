//! A call and the stages it has passed.

use std::{any::Any, sync::Arc};

use provost_mcp::{ProtocolVersion, RawJson};
use provost_types::{Action, AuditReceipt, CallId, Decision, Name, PrincipalRef, Sound, TokenFacts};

use crate::{CallGuard, GuardedParams, Reservation, SubjectToken, Within};

/// How a caller proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token, whole.
    Bearer(Arc<str>),
    /// A client certificate that TLS has verified, where no token was sent.
    Certificate(Arc<CertificateFacts>),
    /// None was given.
    Anonymous,
}

/// What a verified client certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its subject alternative names: `uri:…`, `dns:…`, `email:…`.
    pub names: Vec<String>,
    /// Unix seconds from which it holds no more.
    pub ends_s: u64,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Certificate(_) => "Certificate",
            Self::Anonymous => "Anonymous",
        })
    }
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Tenant and name.
    pub principal: PrincipalRef,
    /// For the record: `api_key:NAME`, `jwt:PROVIDER`, `certificate`, `anonymous`.
    pub authenticated_by: String,
    /// What a token of an identity provider says beside the name; decisions count it.
    pub token: Option<Arc<TokenFacts>>,
    /// The token that they came with, if an upstream's authorization server can be asked to exchange it.
    pub subject: Option<SubjectToken>,
}

/// Where the caller came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/mcp`: every plugin of the tenant, names prefixed with `plugin.`.
    Merged,
    /// `/mcp/PLUGIN`: one plugin, names as the upstream gives them.
    Plugin(Name),
}

/// What the caller wants, without its parameters' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `server/discover`, and what a legacy `initialize` needs to answer.
    Discover,
    /// `tools/list`.
    ListTools,
    /// `prompts/list`.
    ListPrompts,
    /// `resources/list`.
    ListResources,
    /// `resources/templates/list`.
    ListResourceTemplates,
    /// `tools/call`; the name as the caller wrote it.
    CallTool(String),
    /// `prompts/get`; the name as the caller wrote it.
    GetPrompt(String),
    /// `resources/read`; the URI as the caller wrote it.
    ReadResource(String),
    /// `completion/complete` for a prompt name or a resource template URI.
    Complete {
        /// A `ref/prompt` name; else a `ref/resource` URI.
        is_prompt: bool,
        /// The name or URI.
        target: String,
    },
    /// `resources/subscribe` (legacy).
    Subscribe(String),
    /// `resources/unsubscribe` (legacy).
    Unsubscribe(String),
    /// `subscriptions/listen`, and the stream behind a legacy GET: runs until cancelled.
    Listen,
    /// `logging/setLevel` (legacy).
    SetLogLevel,
    /// `tasks/get`, `tasks/update`, `tasks/cancel`, and the legacy `tasks/result`, `tasks/list`.
    Task {
        /// The method.
        method: String,
        /// The task's handle as the caller wrote it; empty for `tasks/list`.
        task: String,
    },
    /// `/v1/chat/completions` on a model, or `/v1/completions`.
    Chat(String),
    /// `/v1/embeddings` on a model.
    Embed(String),
    /// `/v1/audio/transcriptions` on a model.
    Transcribe(String),
    /// `/v1/models`.
    ListModels,
}

impl Operation {
    /// The method for records and metrics.
    pub fn method(&self) -> &str {
        match self {
            Self::Discover => "server/discover",
            Self::ListTools => "tools/list",
            Self::ListPrompts => "prompts/list",
            Self::ListResources => "resources/list",
            Self::ListResourceTemplates => "resources/templates/list",
            Self::CallTool(_) => "tools/call",
            Self::GetPrompt(_) => "prompts/get",
            Self::ReadResource(_) => "resources/read",
            Self::Complete { .. } => "completion/complete",
            Self::Subscribe(_) => "resources/subscribe",
            Self::Unsubscribe(_) => "resources/unsubscribe",
            Self::Listen => "subscriptions/listen",
            Self::SetLogLevel => "logging/setLevel",
            Self::Task { method, .. } => method,
            Self::Chat(_) => "inference/chat",
            Self::Embed(_) => "inference/embed",
            Self::Transcribe(_) => "inference/transcribe",
            Self::ListModels => "inference/models",
        }
    }

    /// What it names, if anything.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::CallTool(t)
            | Self::GetPrompt(t)
            | Self::ReadResource(t)
            | Self::Complete { target: t, .. }
            | Self::Subscribe(t)
            | Self::Unsubscribe(t)
            | Self::Task { task: t, .. }
            | Self::Chat(t)
            | Self::Embed(t)
            | Self::Transcribe(t) => Some(t),
            _ => None,
        }
    }
}

/// What the client says of itself; nothing here is trusted for a security decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFacts {
    /// The revision spoken on this side.
    pub protocol_version: ProtocolVersion,
    /// `clientInfo` object.
    pub info: Option<RawJson>,
    /// Client capabilities object; `{}` if none.
    pub capabilities: RawJson,
    /// The client's legacy session, opaque: upstream sessions and subscriptions are kept under it.
    pub session: Option<Arc<str>>,
    /// The peer's address.
    pub address: Option<String>,
    /// `http`, `ws`, `h3`, `quic`, `stdio`, `internal`.
    pub transport: &'static str,
}

/// Trace and conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFacts {
    /// JSON-RPC id as text.
    pub request_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What tracing systems on the way added to it.
    pub tracestate: Option<String>,
    /// Workflow or conversation id.
    pub workflow: Option<String>,
}

/// Everything a transport hands over.
#[derive(Clone, Debug)]
pub struct Request {
    /// Made at arrival.
    pub call_id: CallId,
    /// Arrival, nanoseconds since the Unix epoch.
    pub arrived_ns: u64,
    /// Who claims to call.
    pub credential: Credential,
    /// Where it came in.
    pub route: Route,
    /// What is wanted.
    pub operation: Operation,
    /// The `params` object as received, `_meta` included; for MRTR retries `requestState` is
    /// already opened and verified by the front end. For OpenAI endpoints: the body.
    pub params: RawJson,
    /// What came beside them and is told in them by its digest: it is sent on as it is, and neither looked at nor recorded.
    pub sound: Option<Sound>,
    /// The client.
    pub client: ClientFacts,
    /// Trace.
    pub trace: TraceFacts,
    /// Where it stands, if a plugin makes it; `None`: it is a caller's own.
    pub within: Option<Within>,
}

/// What a resolved operation will touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The plugin that will serve it; `None` for lists over many and for `Discover`.
    pub plugin: Option<Name>,
    /// The name or URI inside the plugin (no prefix).
    pub local: String,
    /// The full name (`plugin.tool`; of a resource its upstream's URI), which policy and audit use on every route.
    pub full: String,
    /// The action to authorise; `None`: nothing to ask (lists are filtered instead).
    pub action: Option<Action>,
    /// SHA-256 of the plugin's spec, hexadecimal.
    pub plugin_digest: Option<Arc<str>>,
    /// Names of the secrets that the plugin is given, for the record.
    pub secrets: Arc<[String]>,
    /// What serves it, if that was looked for: what is recorded runs, whatever takes its place meanwhile.
    pub found: Found,
}

/// What was found to serve a call, held until the call is over. Of what kind it is knows the plane that found it.
#[derive(Clone, Default)]
pub struct Found(Option<Arc<dyn Any + Send + Sync>>);

impl Found {
    /// Holds it.
    pub fn new<T: Any + Send + Sync>(what: Arc<T>) -> Self {
        Self(Some(what))
    }

    /// What is held, if it is of this kind.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.clone()?.downcast().ok()
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Found(…)" } else { "Found()" })
    }
}

/// Targets are told apart by their names and digests.
impl PartialEq for Found {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Found {}

/// A call at stage `S`. Only this crate moves a call from stage to stage.
#[derive(Debug)]
pub struct Call<S> {
    pub(crate) request: Arc<Request>,
    pub(crate) stage: S,
}

impl Call<Received> {
    /// A call as it arrives.
    pub fn received(request: Request) -> Self {
        Self { request: Arc::new(request), stage: Received(()) }
    }
}

impl<S> Call<S> {
    /// What was asked.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What was asked, shared.
    pub fn shared_request(&self) -> Arc<Request> {
        self.request.clone()
    }

    pub(crate) fn into_stage<T>(self, next: impl FnOnce(S) -> T) -> Call<T> {
        Call { request: self.request, stage: next(self.stage) }
    }
}

/// Arrived; nothing is known of the caller.
#[derive(Debug)]
pub struct Received(pub(crate) ());
/// The caller is known.
#[derive(Debug)]
pub struct Authenticated {
    pub(crate) caller: Arc<Caller>,
}
/// What it touches is known.
#[derive(Debug)]
pub struct Resolved {
    pub(crate) caller: Arc<Caller>,
    pub(crate) target: Arc<Target>,
}
/// Policy permits it.
#[derive(Debug)]
pub struct Admitted {
    pub(crate) resolved: Resolved,
    pub(crate) decision: Decision,
}
/// Its units are reserved.
#[derive(Debug)]
pub struct Limited {
    pub(crate) admitted: Admitted,
    pub(crate) reservation: Reservation,
}
/// Its arguments fit the schema.
#[derive(Debug)]
pub struct Validated {
    pub(crate) limited: Limited,
}
/// Guards have seen (and may have changed) its parameters.
#[derive(Debug)]
pub struct Guarded {
    pub(crate) limited: Limited,
    pub(crate) guarded: GuardedParams,
}
/// Its intent is durable: it may run.
#[derive(Debug)]
pub struct Intended {
    pub(crate) guarded: Guarded,
    pub(crate) receipt: AuditReceipt,
}
/// It ran.
#[derive(Debug)]
pub struct Executed {
    pub(crate) intended: Intended,
}

/// The stages from `Resolved` on know the caller and the target.
macro_rules! knows_target {
    ($($stage:ty => $path:ident $(. $rest:tt)*);+ $(;)?) => { $(
        impl Call<$stage> {
            /// The caller.
            pub fn caller(&self) -> &Arc<Caller> {
                &self.stage.$path $(. $rest)* .caller
            }
            /// What the call touches.
            pub fn target(&self) -> &Arc<Target> {
                &self.stage.$path $(. $rest)* .target
            }
        }
    )+ };
}

impl Call<Authenticated> {
    /// The caller.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.stage.caller
    }
}

impl Call<Resolved> {
    /// The same call by another caller, for the question what would be decided then. Like every call it goes
    /// no further but through `drive`, which never sees this one.
    #[must_use]
    pub fn supposing(&self, caller: Caller) -> Self {
        let stage = Resolved { caller: Arc::new(caller), target: self.stage.target.clone() };
        Self { request: self.request.clone(), stage }
    }
    /// The caller.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.stage.caller
    }
    /// What the call touches.
    pub fn target(&self) -> &Arc<Target> {
        &self.stage.target
    }
}

knows_target! {
    Admitted => resolved;
    Limited => admitted.resolved;
    Validated => limited.admitted.resolved;
    Guarded => limited.admitted.resolved;
    Intended => guarded.limited.admitted.resolved;
    Executed => intended.guarded.limited.admitted.resolved;
}

impl Call<Intended> {
    /// The parameters as the guards left them; what may be sent on. The log may keep another form.
    pub fn params(&self) -> &RawJson {
        let guarded = &self.stage.guarded.guarded;
        guarded.sent.as_ref().unwrap_or(&guarded.params)
    }
    /// What watches it while it runs, if anything.
    pub fn guard(&self) -> Option<&dyn CallGuard> {
        self.stage.guarded.guarded.guard.as_deref()
    }
    /// Where the intent stands in the log.
    pub fn intent(&self) -> &AuditReceipt {
        &self.stage.receipt
    }
    pub(crate) fn reservation(&self) -> &Reservation {
        &self.stage.guarded.limited.reservation
    }
    /// What policy said.
    pub fn decision(&self) -> &Decision {
        &self.stage.guarded.limited.admitted.decision
    }
}
