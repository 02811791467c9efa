//! Executors: upstream MCP servers over HTTP and stdio, services with an OpenAPI document, gRPC services, WebAssembly
//! components, documents, and the built-ins.
//!
//! Purpose: everything behind a plugin's name. A [`Toolbox`] keeps the [`Plugin`]s of all tenants
//! in step with the snapshot; a plugin lists its definitions byte for byte and executes operations
//! in its own names.
//! Invariants: an execution always ends, with an answer or an error that has a code; both eras of
//! upstream look alike from outside (see `docs/mcp-bridging.md`); nothing of an upstream's answer
//! is re-serialised, only spliced; everything an upstream can make us keep is bounded ([`Limits`]).
//! Left out: policy, audit and routing (the node), the client's side of MCP (`provost-data-serve`).

mod builtin;
mod component;
mod connections;
mod consent;
mod definition;
mod documents;
pub mod egress;
mod error;
mod grpc;
mod launch;
mod limits;
mod lint;
mod listed;
mod mark;
pub mod names;
mod oauth;
mod openapi;
mod other_tools;
mod packages;
mod plugin;
mod rag;
mod redact;
mod resilience;
mod schema;
mod secrets;
mod siblings;
pub mod sql;
mod toolbox;
mod trace_headers;
mod upstream;

pub use connections::{ConnectionPort, Connections, Keep, KeepFailed, OwnConnection};
pub use consent::Consent;
pub use definition::{Definition, DefinitionList, Definitions, definition_hash};
pub use documents::DocumentClient;
pub use error::UpstreamError;
pub use launch::{Wall, Walls, launch_if_asked};
pub use limits::Limits;
pub use lint::{Others, lint};
pub use oauth::AuthorityTold;
pub use other_tools::{GuestCall, NestedError, OtherTools};
pub use packages::{FetchFailed, MAX_PACKAGE_BYTES, PackagePort};
pub use plugin::{ExecuteRequest, ListenEnd, Plugin, Pressure, Unready};
pub use rag::{CORPUS_METRICS, CorpusMetric, CorpusView};
pub use resilience::{DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT, Shield, Tries, Upstream, callers_time};
pub use schema::ValidationProblem;
pub use secrets::{acts_for_users, secrets_of};
pub use siblings::{At, PluginId, SessionOwner, SharedSession, SiblingError, Siblings};
pub use toolbox::{SecretSource, Toolbox, ToolboxDeps, recorded_digest, spec_digest};
pub use upstream::{EndpointView, ListKind, ListenFilter, ServerFacts, rewrite_handles};
