//! What a guest may ask of the node.

use std::time::Duration;

use provost_mcp::RawJson;
use provost_types::BoxFuture;

/// How grave a line of a guest's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// How far a call is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Grows; a finite number.
    pub progress: f64,
    /// What it grows to, if that is known.
    pub total: Option<f64>,
    /// For people.
    pub message: Option<String>,
}

/// Why the plugin's store does not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvError {
    /// The plugin may not keep anything.
    Denied(String),
    /// The key or the value is over its bound.
    TooLarge(String),
    /// The plugin keeps as much as it may.
    Full,
    /// It cannot be read or written now.
    Unavailable(String),
}

/// A tool that a plugin calls in its caller's name.
#[derive(Clone, Copy, Debug)]
pub struct NestedCall<'a> {
    /// The name that the caller would use.
    pub name: &'a str,
    /// An object.
    pub arguments: &'a RawJson,
    /// For [`crate::PluginCall::depth`], if it comes to a plugin again.
    pub depth: u8,
}

/// Why a call within a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NestedError {
    /// Policy, a limit or a guard refused it, or there is no such tool for this caller.
    Denied(String),
    /// The arguments do not fit.
    InvalidParams(String),
    /// The caller gave up.
    Cancelled,
    /// It went wrong.
    Failed(String),
}

/// A request that a guest wants sent. Its method, URL and headers were looked at for form only: where it may lead is
/// for the host to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Letters, capital.
    pub method: String,
    /// `http://…` or `https://…`.
    pub url: String,
    /// Without those that belong to the connection.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// The alias of a credential: the host adds what it stands for, if the plugin may use it.
    pub credential: Option<String>,
    /// The guest's own patience; the call's deadline holds anyway.
    pub timeout: Option<Duration>,
    /// Where to stop reading the response.
    pub max_response_bytes: usize,
}

/// What came back, without anything of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// Those whose values are text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// Not allowed: the host or the credential.
    Denied(String),
    /// It is not a request.
    Invalid(String),
    /// No response in time.
    Timeout,
    /// No connection, or one that broke.
    Connect(String),
    /// The response is over its bound.
    TooLarge,
}

/// The node, as one call of a plugin sees it. The bounds of [`crate::PluginLimits`] are kept before anything comes
/// here, but for the size of a response, which only the host can stop to read.
///
/// Futures are dropped when the call ends early, at any point where they wait. They are polled in the context of the
/// runtime that the call came from, on its threads or on those of the engine for calls that compute for long. What makes
/// threads (as `spawn_blocking` does) belongs into a task: threads inherit the priority of who makes them.
pub trait PluginHost: Send + Sync {
    /// A line for the operator's log. Not to be trusted: it may hold line breaks and what the arguments hold.
    fn log(&self, level: LogLevel, message: &str);

    /// For the caller.
    fn progress(&self, progress: Progress);

    /// Whether the caller gave up. Asked every millisecond that the guest computes: to read a flag.
    fn is_cancelled(&self) -> bool;

    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// A value of the plugin's store, for its tenant.
    fn kv_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, KvError>>;

    /// Keeps a value, or removes it.
    fn kv_set<'a>(&'a self, key: &'a str, value: Option<Vec<u8>>) -> BoxFuture<'a, Result<(), KvError>>;

    /// Drives a call of another tool through the whole pipeline, as the caller. The result object.
    fn call_tool<'a>(&'a self, call: NestedCall<'a>) -> BoxFuture<'a, Result<RawJson, NestedError>>;

    /// Sends a request where the installation allows it, with the credential that the alias stands for, and gives the
    /// response with nothing of that credential in it.
    fn send_http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>>;
}
