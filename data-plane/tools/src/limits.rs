//! The bounds on what upstreams may cost this node, and on where they may be.

use std::{sync::Arc, time::Duration};

use provost_types::PrivateRange;

/// Bounds; the defaults suit production, tests make them small.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest single message of an upstream, in bytes.
    pub max_answer_bytes: usize,
    /// Most definitions of one kind that a plugin may list.
    pub max_definitions: usize,
    /// Most pages of one list.
    pub max_pages: usize,
    /// Longest time to set up a connection: discovery, `initialize`, the start of a process.
    pub connect_timeout: Duration,
    /// Longest time to fetch one list.
    pub list_timeout: Duration,
    /// How long a list is used before it is fetched again, whatever the upstream says.
    pub list_ttl_min: Duration,
    /// The longest `ttlMs` of an upstream that is honoured.
    pub list_ttl_max: Duration,
    /// How long an old list may be used when it cannot be fetched again.
    pub list_stale_max: Duration,
    /// How long a call waits for its client's answer to a question of a legacy upstream.
    pub park_ttl: Duration,
    /// Most calls of one plugin that wait so.
    pub max_parked: usize,
    /// How long to collect further questions after one, so that they reach the client together. People answer
    /// them: it may be much longer than an upstream needs from one to the next, on a busy machine too.
    pub ask_window: Duration,
    /// Most legacy HTTP sessions of one plugin.
    pub max_sessions: usize,
    /// Most processes of one legacy stdio plugin: one a caller that can be asked, one for the rest.
    pub max_processes: usize,
    /// A session or process without calls for so long is closed.
    pub idle_ttl: Duration,
    /// The longest pause before an ended process is started again.
    pub restart_backoff_max: Duration,
    /// Pause between two looks at a folder of documents.
    pub corpus_pause: Duration,
    /// Private ranges that a plugin's document may open for itself; none unless the node's operator says so.
    pub allow_private: Arc<[PrivateRange]>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_answer_bytes: 16 * 1024 * 1024,
            max_definitions: 4_096,
            max_pages: 64,
            connect_timeout: Duration::from_secs(20),
            list_timeout: Duration::from_secs(20),
            list_ttl_min: Duration::from_secs(10),
            list_ttl_max: Duration::from_secs(300),
            list_stale_max: Duration::from_secs(900),
            park_ttl: Duration::from_secs(300),
            max_parked: 1_024,
            ask_window: Duration::from_millis(100),
            max_sessions: 512,
            max_processes: 16,
            idle_ttl: Duration::from_secs(600),
            restart_backoff_max: Duration::from_secs(30),
            corpus_pause: Duration::from_secs(5),
            allow_private: Arc::default(),
        }
    }
}
