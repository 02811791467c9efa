//! One connection to an upstream, in one era, and the exchanges on it.
//!
//! Purpose: the same three verbs (start, tell, respond) over HTTP and stdio, stateless or in a
//! session.
//! Invariants: an exchange that is dropped before its answer is cancelled upstream, in the way of
//! its era and transport; an answer carries the id that was asked, or it is refused.

mod exchange;
mod facts;
mod stream;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use provost_mcp::{
    Era, RawJson, RequestId, RpcError, error_message, notification_message, request_message, result_message,
};

pub(super) use self::exchange::{Event, Exchange};
pub use self::facts::ServerFacts;
use self::{exchange::Source, stream::read_stream};
use super::{
    http::{HttpTarget, PROTOCOL_VERSION, Posted, SESSION_ID, header_value},
    stdio::StdioProcess,
    switchboard::Switchboard,
};
use crate::{UpstreamError, siblings::SharedSession};

/// How bytes reach the upstream.
pub(super) enum Wire {
    /// `is_shared`: other nodes may use the session too, and so it is not ended from here.
    Http {
        target: Box<HttpTarget>,
        session: Option<String>,
        is_shared: bool,
    },
    Stdio(Arc<StdioProcess>),
}

/// One connection.
pub(super) struct Connection {
    pub(super) facts: ServerFacts,
    /// Its revision as a header.
    version: Option<HeaderValue>,
    wire: Wire,
    ids: AtomicI64,
    switchboard: Arc<Switchboard>,
    /// The level that a legacy session was told, if any.
    log_level: Mutex<Option<String>>,
    /// The access token of whom the connection is for, if it is for one caller: that of their last call.
    authorization: Mutex<Option<HeaderValue>>,
    /// Milliseconds since `made` of the last use.
    used_ms: AtomicU64,
    made: Instant,
    /// The reader of a legacy HTTP session's own stream, and when it was started.
    reader: Mutex<Option<(tokio::task::JoinHandle<()>, Instant)>>,
}

impl Connection {
    pub(super) fn new(facts: ServerFacts, wire: Wire) -> Arc<Self> {
        let switchboard = match &wire {
            Wire::Http { .. } => Arc::new(Switchboard::new()),
            Wire::Stdio(process) => process.switchboard().clone(),
        };
        // In a shared session no two nodes give their requests the same ids.
        let range = match &wire {
            Wire::Http { session: Some(_), is_shared: true, .. } => {
                i64::from(rand::random::<u32>() >> 1) << OWN_IDS_BITS
            }
            _ => 0,
        };
        Arc::new(Self {
            version: header_value(&facts.protocol_version),
            facts,
            wire,
            ids: AtomicI64::new(FIRST_CALL_ID + range),
            switchboard,
            log_level: Mutex::new(None),
            authorization: Mutex::new(None),
            used_ms: AtomicU64::new(0),
            made: Instant::now(),
            reader: Mutex::new(None),
        })
    }

    /// In a session that another node opened.
    pub(super) fn resumed(target: &HttpTarget, session: SharedSession) -> Arc<Self> {
        let SharedSession { id, facts, .. } = session;
        Self::new(facts, Wire::Http { target: Box::new(target.clone()), session: Some(id), is_shared: true })
    }

    /// The legacy session's id.
    pub(super) fn session_id(&self) -> Option<&str> {
        match &self.wire {
            Wire::Http { session, .. } => session.as_deref(),
            Wire::Stdio(_) => None,
        }
    }

    /// The session for another node; `None`: it has no id.
    pub(super) fn share(&self) -> Option<SharedSession> {
        Some(SharedSession { id: self.session_id()?.to_owned(), facts: self.facts.clone(), endpoint: self.endpoint() })
    }

    /// At which of the plugin's endpoints it is.
    pub(super) fn endpoint(&self) -> usize {
        match &self.wire {
            Wire::Http { target, .. } => target.number(),
            Wire::Stdio(_) => 0,
        }
    }

    pub(super) fn is_legacy(&self) -> bool {
        self.facts.era == Era::Legacy
    }

    pub(super) fn switchboard(&self) -> &Switchboard {
        &self.switchboard
    }

    pub(super) fn log_level(&self) -> &Mutex<Option<String>> {
        &self.log_level
    }

    /// Requests from now on carry this token.
    pub(super) fn authorize(&self, token: HeaderValue) {
        *self.authorization.lock() = Some(token);
    }

    /// The token that requests carry, if the connection is for one caller.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().clone()
    }

    /// Whether it has ended and must be replaced.
    pub(super) fn is_closed(&self) -> bool {
        self.switchboard.closed().is_some()
    }

    /// Marks it as ended.
    pub(super) fn close(&self, cause: UpstreamError) {
        self.switchboard.close(cause);
        if let Some((reader, _)) = self.reader.lock().take() {
            reader.abort();
        }
    }

    /// Ends a session that other nodes may have used, too, at its upstream. One that is this node's own ends with the
    /// connection.
    pub(super) async fn end_shared(&self) {
        let Wire::Http { target, session: Some(_), is_shared: true } = &self.wire else { return };
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, target.delete(self.headers(HeaderMap::new()))).await;
    }

    /// How long nobody used it.
    pub(super) fn idle(&self) -> Duration {
        let used = Duration::from_millis(self.used_ms.load(Ordering::Relaxed));
        self.made.elapsed().saturating_sub(used)
    }

    fn touch(&self) {
        self.used_ms.store(self.made.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// A fresh request id; it also serves as the call's progress token.
    pub(super) fn next_id(&self) -> RequestId {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        RequestId(RawJson::from(serde_json::Value::from(number)))
    }

    /// Sends a request.
    pub(super) async fn start(
        self: &Arc<Self>,
        id: RequestId,
        method: &str,
        params: &RawJson,
        headers: HeaderMap,
    ) -> Result<Exchange, UpstreamError> {
        self.touch();
        let body = request_message(&id, method, Some(params));
        // Stateless HTTP has nothing beside the answer to the POST itself.
        let line = match (&self.wire, self.is_legacy()) {
            (Wire::Http { .. }, false) => None,
            _ => Some(self.switchboard.register(&id)?),
        };
        let mut exchange = Exchange { connection: self.clone(), id, line, source: Source::Line, finished: false };
        match &self.wire {
            Wire::Stdio(process) => process.send(body).await?,
            Wire::Http { target, .. } => {
                let posted = target.post(body, self.headers(headers)).await;
                exchange.source = match posted {
                    Ok(Posted::Message(message, _)) => Source::Message(Some(message)),
                    Ok(Posted::Stream(stream, _)) => Source::Stream(stream),
                    Ok(Posted::Accepted) => Source::Line,
                    Err(cause) => {
                        exchange.finished = !matches!(cause, UpstreamError::Died(_));
                        return Err(cause);
                    }
                };
            }
        }
        Ok(exchange)
    }

    /// Sends a request and waits for its answer; nobody hears what is told on the way, and a
    /// question is refused.
    pub(super) async fn request(
        self: &Arc<Self>,
        method: &str,
        params: &RawJson,
        headers: HeaderMap,
    ) -> Result<RawJson, UpstreamError> {
        let mut exchange = self.start(self.next_id(), method, params, headers).await?;
        loop {
            match exchange.next().await? {
                Event::Answer(outcome) => return outcome.map_err(UpstreamError::Rpc),
                Event::Asked { id, method, .. } => self.refuse(&id, &method).await?,
                Event::Told { .. } => {}
            }
        }
    }

    /// Sends a notification.
    pub(super) async fn tell(&self, method: &str, params: Option<&RawJson>) -> Result<(), UpstreamError> {
        self.send(notification_message(method, params)).await
    }

    /// Answers a question of the server.
    pub(super) async fn respond(
        &self,
        id: &RequestId,
        outcome: Result<&RawJson, &RpcError>,
    ) -> Result<(), UpstreamError> {
        self.send(match outcome {
            Ok(result) => result_message(id, result),
            Err(error) => error_message(Some(id), error),
        })
        .await
    }

    /// Answers a question that cannot be passed on: `ping` with a result, others with an error.
    pub(super) async fn refuse(&self, id: &RequestId, method: &str) -> Result<(), UpstreamError> {
        if method == "ping" {
            return self.respond(id, Ok(&RawJson::EMPTY_OBJECT)).await;
        }
        let error = RpcError::new(RpcError::METHOD_NOT_FOUND, format!("{method} is not offered"));
        self.respond(id, Err(&error)).await
    }

    async fn send(&self, body: Bytes) -> Result<(), UpstreamError> {
        self.touch();
        match &self.wire {
            Wire::Stdio(process) => process.send(body).await,
            Wire::Http { target, .. } => match target.post(body, self.headers(HeaderMap::new())).await {
                // There is no answer to it: what a server says that took it, and in which form, decides nothing.
                Ok(_) | Err(UpstreamError::Garbage(_)) => Ok(()),
                Err(cause) => Err(cause),
            },
        }
    }

    /// The headers of this connection added to a request's own.
    fn headers(&self, mut headers: HeaderMap) -> HeaderMap {
        if let Some(version) = &self.version {
            headers.insert(PROTOCOL_VERSION, version.clone());
        }
        if let Wire::Http { session: Some(session), .. } = &self.wire
            && let Some(session) = header_value(session)
        {
            headers.insert(SESSION_ID, session);
        }
        if let Some(token) = self.authorization() {
            headers.insert(http::header::AUTHORIZATION, token);
        }
        headers
    }

    /// Opens the legacy session's own stream, once; what comes goes to the switchboard. Over stdio
    /// and in the modern era there is nothing to open.
    pub(super) fn open_stream(self: &Arc<Self>) {
        if !self.is_legacy() || matches!(self.wire, Wire::Stdio(_)) {
            return;
        }
        let mut reader = self.reader.lock();
        // A server without such a stream is not asked again with every call.
        if reader.as_ref().is_some_and(|(task, started)| !task.is_finished() || started.elapsed() < STREAM_RETRY) {
            return;
        }
        // Weak: the stream must not keep a session alive that nobody uses.
        let weak = Arc::downgrade(self);
        let headers = self.headers(HeaderMap::new());
        let Wire::Http { target, .. } = &self.wire else { return };
        let target = target.clone();
        let task = tokio::spawn(async move {
            if let Err(cause) = read_stream(&target, headers, weak).await {
                tracing::debug!(%cause, "an upstream session's own stream ended");
            }
        });
        *reader = Some((task, Instant::now()));
    }

    /// Cancels a request that is not answered yet.
    fn cancel(self: &Arc<Self>, id: &RequestId) {
        let over_http = matches!(self.wire, Wire::Http { .. });
        if over_http && !self.is_legacy() {
            // Closing the stream says it.
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut params = provost_mcp::RawObject::new();
        params.set("requestId", id.0.clone());
        params.set_text("reason", "the caller gave up");
        let (connection, params) = (self.clone(), params.finish());
        runtime.spawn(async move {
            let told = connection.tell("notifications/cancelled", Some(&params));
            if let Ok(Err(cause)) = tokio::time::timeout(CANCEL_TIMEOUT, told).await {
                tracing::debug!(%cause, "a cancellation did not reach the upstream");
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some((reader, _)) = self.reader.lock().take() {
            reader.abort();
        }
        let Wire::Http { target, session: Some(_), is_shared: false } = &self.wire else { return };
        if self.switchboard.closed().is_some() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (target, headers) = (target.clone(), self.headers(HeaderMap::new()));
            runtime.spawn(async move {
                let _ = tokio::time::timeout(CANCEL_TIMEOUT, target.delete(headers)).await;
            });
        }
    }
}

/// Ids below this are the handshake's.
const FIRST_CALL_ID: i64 = 16;
/// Of the ids in a shared session so many bits count a node's requests. With the bits that tell nodes
/// apart they are integers that every language can hold.
const OWN_IDS_BITS: u32 = 21;
/// Longest time for a message that nobody waits for.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a session's stream that could not be kept is let be.
const STREAM_RETRY: Duration = Duration::from_secs(60);
