//! What a plugin's document says about slow, failing and busy upstreams.
//!
//! Every number has a default here, so that the documentation, the check at `apply` and the node that
//! runs it agree; [`ResilienceSpec::default`] is what a plugin without the field has.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How calls of a plugin are protected from its upstream, and the upstream from calls. Everything is per
/// node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ResilienceSpec {
    /// Calls that wait for a free place when as many run as may.
    pub queue: QueueSpec,
    /// Other times and bounds for some tools. The first entry that names a tool holds. At most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolResilience>,
    /// When an upstream that fails is left alone for a while.
    pub breaker: BreakerSpec,
    /// When one of several endpoints (`moreUrls`) is left out for a while. None: by the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<OutlierSpec>,
    /// What is tried again.
    pub retry: RetrySpec,
    /// Which answers are kept and given again.
    pub cache: CacheSpec,
    /// When a second try is started beside a slow first one. None: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<HedgeSpec>,
}

/// Calls that wait for a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct QueueSpec {
    /// The most that wait; 0: none waits. Default 1024. When it is full, the principal with the most waiting calls
    /// loses its newest one to a principal with fewer.
    pub max_queued: u32,
    /// The longest wait, in milliseconds. Default 10000; a call's own time may end earlier.
    pub timeout_ms: u64,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self { max_queued: 1_024, timeout_ms: 10_000 }
    }
}

/// Other times and bounds for some tools of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ToolResilience {
    /// Names of tools as the plugin gives them, without its own name before; `*` ends a prefix.
    pub tools: BTreeSet<String>,
    /// Longest time for one call, in milliseconds, in place of the plugin's `timeoutMs`. 0: the plugin's.
    pub timeout_ms: u64,
    /// Calls of these tools together at once; they count as calls of the plugin too. 0: no bound of their own.
    pub max_concurrent: u32,
}

/// The circuit breaker. Only failures of the upstream itself count: no connection, a broken one, HTTP 5xx, no answer
/// in the policy's time. A tool's own error, an error answer and a caller that gives up do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BreakerSpec {
    /// `false`: failing upstreams are called on and on. Default `true`.
    pub enabled: bool,
    /// Failures one after the other that open it. Default 10.
    pub consecutive_failures: u32,
    /// The share of failed calls in the window that opens it, in percent. Default 50; 0: shares do not count.
    pub failure_percent: u32,
    /// Calls in the window below which its share says nothing. Default 20.
    pub min_calls: u32,
    /// The window, in milliseconds. Default 10000.
    pub window_ms: u64,
    /// How long it stays open the first time, in milliseconds; twice as long after each trial that fails. Default 1000.
    pub open_ms: u64,
    /// The longest that it stays open, in milliseconds. Default 30000.
    pub max_open_ms: u64,
}

impl Default for BreakerSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 10,
            failure_percent: 50,
            min_calls: 20,
            window_ms: 10_000,
            open_ms: 1_000,
            max_open_ms: 30_000,
        }
    }
}

/// When one of several equal endpoints gets no calls for a while. What counts as a failure is what counts for the
/// breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct OutlierSpec {
    /// Failures of an endpoint one after the other that eject it. Default 3.
    pub consecutive_failures: u32,
    /// How long it is out the first time, in milliseconds; then it is looked at, and twice as long after each look that
    /// fails. Default 1000.
    pub eject_ms: u64,
    /// The longest that it is out between two looks, in milliseconds. Default 60000.
    pub max_eject_ms: u64,
    /// The share of a plugin's endpoints that may be out at once, in percent. Default 50. One may always be, and the
    /// last one never is.
    pub max_ejected_percent: u32,
}

impl Default for OutlierSpec {
    fn default() -> Self {
        Self { consecutive_failures: 3, eject_ms: 1_000, max_eject_ms: 60_000, max_ejected_percent: 50 }
    }
}

/// A failure after which a call may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// There was no connection, or no process: nothing was sent, so every call may be tried again.
    NotSent,
    /// The connection or process ended in the middle. Only calls that are safe to repeat.
    ConnectionLost,
    /// HTTP 502, 503 or 504. Only calls that are safe to repeat.
    Unavailable,
}

/// What is tried again, and how often. An answer of the tool, an error answer and a refused credential never are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RetrySpec {
    /// The most attempts of one call, the first included. Default 3; 1: nothing is tried again.
    pub attempts: u32,
    /// After which failures. Default all three.
    pub on: BTreeSet<RetryOn>,
    /// Tools that are safe to repeat, by the operator's word; `*` ends a prefix. Reading of resources, prompts and
    /// completions always are.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<String>,
    /// Also the tools that their own server marks `readOnlyHint` or `idempotentHint`. Default `false`: the mark is the
    /// server's word only.
    pub trust_annotations: bool,
    /// The pause before the second attempt, in milliseconds, at most; twice as long before each later one. Half of it is
    /// random. Default 100.
    pub backoff_ms: u64,
    /// The longest pause, in milliseconds. Default 2000.
    pub max_backoff_ms: u64,
    /// Retries and hedges in percent of calls, over time; ten more are always in reserve, refilled by one a
    /// second. Default 20.
    pub budget_percent: u32,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 3,
            on: [RetryOn::NotSent, RetryOn::ConnectionLost, RetryOn::Unavailable].into(),
            tools: BTreeSet::new(),
            trust_annotations: false,
            backoff_ms: 100,
            max_backoff_ms: 2_000,
            budget_percent: 20,
        }
    }
}

/// Which answers are kept. A cached answer is authorised, limited, guarded and recorded like any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CacheSpec {
    /// Answers of `resources/read` for as long as the upstream's `ttlMs` says, shared between principals only where its
    /// `cacheScope` is `public`. Default `true`.
    pub honour_hints: bool,
    /// The longest `ttlMs` that is honoured, in milliseconds. Default 300000.
    pub max_ttl_ms: u64,
    /// Tools whose results are kept, for each principal by itself: name only such as read; `*` ends a prefix.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<String>,
    /// How long the results of these tools are kept, in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub ttl_ms: u64,
    /// The most bytes kept. Default 8388608 (8 MiB).
    pub max_bytes: u64,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self { honour_hints: true, max_ttl_ms: 300_000, tools: BTreeSet::new(), ttl_ms: 0, max_bytes: 8 << 20 }
    }
}

/// A second try beside a slow first one; the first good answer is taken and the other try is cancelled. It counts
/// against the budget of retries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HedgeSpec {
    /// The tools, which must only read; `*` ends a prefix.
    pub tools: BTreeSet<String>,
    /// After how long without an answer, in milliseconds.
    pub after_ms: u64,
}

/// How calls of a principal stand when a node has more of them than it can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Refused first.
    Low,
    /// What a principal has that says nothing.
    #[default]
    Normal,
    /// Refused last.
    High,
}

impl Priority {
    /// Whether it is what a principal has that says nothing.
    pub fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
