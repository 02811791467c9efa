//! Domain vocabulary shared by the planes.
//!
//! Purpose: the nouns that more than one plane needs (names, resources, the snapshot that nodes
//! run on, decisions, audit events, and the two ports through which planes meet in one process).
//! Invariants: no IO, no clock, no randomness; every type that crosses a plane is plain data.
//! Left out: wire and stored forms (`provost-wire`, `provost-control-state`), compiled forms of
//! policy (`provost-data-policy`).

mod audit;
mod body;
mod connection;
mod content_path;
mod decision;
mod egress;
mod function_call;
mod gpu_report;
mod grpc;
mod guard;
mod identity;
mod inference;
mod isolation;
mod kill_switch;
mod model;
mod name;
mod openapi;
mod package;
mod plugin;
mod publisher;
mod rag;
mod resilience;
mod resource;
mod snapshot;
mod spec;
mod speech;
mod tool_alias;
mod tool_pins;
mod upstream_auth;
mod wasm;
mod wav;

pub use audit::{
    AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, CallStatus, Impact, Phase, Subject, What, Who, Why,
};
pub use body::{
    Body, KeptBody, KeyId, MAX_BODY_BYTES, Month, NotAKeyId, NotAMonth, Pseudonym, SealedBytes, SubjectKey, SubjectKeys,
};
pub use connection::{ConnectionClaim, ConnectionSpec};
pub use content_path::{ContentPath, NotAPath, PathStep};
pub use decision::{Action, Decision, Effect, PolicyMode};
pub use egress::{EgressSpec, HostPattern, NotAHost, NotAPrivateRange, PrivateRange};
pub use function_call::{CallDelta, CallHead, ChatTools, FunctionCall, FunctionTool, ToolChoice};
pub use gpu_report::{GpuReport, ModelReport, ModelState};
pub use grpc::GrpcPlugin;
pub use guard::{
    ExternalFailure, GuardAction, GuardAuth, GuardDictionary, GuardDirection, GuardExternal, GuardKind, GuardMode,
    GuardPathRule, GuardReveal, GuardRule, GuardSpec,
};
pub use identity::{ClaimMapping, IdentityProviderSpec, ProviderPrincipals, RolesClaim, TokenAlgorithm, TokenFacts};
pub use inference::{
    ChatEvent, ChatMessage, ChatRequest, EmbedRequest, EmbedResponse, FinishReason, Inference, InferenceError,
    InferenceErrorKind, LikelyToken, ModelInfo, ModelKind, TokenLogprob, TokenUsage,
};
pub use isolation::{IsolatedNetwork, IsolationSpec};
pub use kill_switch::KillSwitchSpec;
pub use model::{ModelFiles, ModelFormat, ModelPrices, ModelPriority, ModelSpec};
pub use name::{CallId, Name, NameError, PrincipalRef, Revision};
pub use openapi::OpenApiPlugin;
pub use package::{FileDigest, NotSoNamed, PublisherKey};
pub use plugin::{BuiltinPlugin, Era, HttpPlugin, Instances, PluginSource, PluginSpec, StdioPlugin};
pub use publisher::PublisherSpec;
pub use rag::{RagChunk, RagPlugin};
pub use resilience::{
    BreakerSpec, CacheSpec, HedgeSpec, OutlierSpec, Priority, QueueSpec, ResilienceSpec, RetryOn, RetrySpec,
    ToolResilience,
};
pub use resource::{Kind, Metadata, Resource, ResourceKey, UnknownKind};
pub use snapshot::{Resources, Snapshot};
pub use spec::{
    ApiKeySpec, NodeGroupSpec, PolicySpec, PriceSpec, PrincipalSpec, PrincipalType, QuotaPer, QuotaSpec, QuotaUnit,
    QuotaWindow, RoleBindingSpec, RoleRule, RoleSpec, SealedSecret, SecretRef, SecretSpec, Spec, TenantSpec,
};
pub use speech::{
    MAX_SOUND_BYTES, MAX_SOUND_SECONDS, SOUND_TOKENS_A_SECOND, Sound, SpeechSegment, TranscribeRequest, Transcript,
    sound_seconds_at_most, speech_tokens_at_most,
};
pub use upstream_auth::{ClientSecretIn, JwtAlgorithm, OAuthClient, PrivateKeyJwt, UpstreamAuth};

pub use tool_alias::{AliasTarget, Deprecation, ToolAliasSpec};
pub use tool_pins::{DefinitionPolicy, PinnedDefinition, Quarantine, ToolPin, ToolPinsSpec};
pub use wasm::{WasmCredential, WasmPlugin, WasmSource};

/// A boxed future, the form in which ports that are trait objects return their work.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed stream, the form in which ports return sequences.
pub type BoxStream<'a, T> = std::pin::Pin<Box<dyn futures_core::Stream<Item = T> + Send + 'a>>;
