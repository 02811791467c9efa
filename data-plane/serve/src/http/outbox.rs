//! What goes back to a client: one answer, or a stream of events that ends in it.
//!
//! Purpose: the running call writes, the connection reads, neither waits for the other. The choice
//! between plain JSON and server-sent events falls when the first event is written: a call that
//! has nothing to say before its answer gives plain JSON.
//! Invariants: memory per stream is bounded; whoever writes never blocks; at most one reader; the
//! answer is always the last event. Left out: what the events say.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::ResponseBody;
use crate::siblings::Tag;

/// Events kept for a reader (or for a client that comes back).
const MAX_KEPT_EVENTS: usize = 1_024;
/// Bytes kept, beside the newest event.
const MAX_KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Silence after which a comment shows that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What legacy clients are told to wait before they come back, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// How a call ends, in both forms.
#[derive(Debug)]
pub(crate) struct Final {
    /// Status of the plain form.
    pub(crate) status: StatusCode,
    /// Further headers of the plain form.
    pub(crate) headers: HeaderMap,
    /// Body of the plain form.
    pub(crate) body: Bytes,
    /// The last events of the other form; none: the body is the last one.
    pub(crate) events: Vec<Bytes>,
    /// Give the other form even if nothing was written before.
    pub(crate) prefers_events: bool,
}

impl Final {
    /// The same JSON in both forms.
    pub(crate) fn json(status: StatusCode, body: Bytes) -> Self {
        Self { status, headers: HeaderMap::new(), events: Vec::new(), body, prefers_events: false }
    }

    /// The last events of the other form.
    fn last_events(&self) -> &[Bytes] {
        if self.events.is_empty() { std::slice::from_ref(&self.body) } else { &self.events }
    }

    /// The plain form.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let mut response = super::json(self.status, self.body);
        response.headers_mut().extend(self.headers);
        response
    }
}

/// What kind of stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutboxKind {
    /// Read once; who goes away is gone.
    Once,
    /// Events carry ids under this stream number and stay for a client that comes back, to whichever
    /// node: the tag says which process has them. `primed`: an empty event with an id and `retry` opens
    /// the stream (MCP 2025-11-25).
    Resumable { stream: u64, primed: bool, tag: Tag },
}

struct Event {
    number: u64,
    frame: Bytes,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    kept_bytes: usize,
    /// The number of the next event; event 0 is the priming one.
    next: u64,
    /// Events below this were handed to a reader.
    read_to: u64,
    /// Counts readers; only the newest reads.
    reader: u64,
    reader_attached: bool,
    finished: bool,
    /// The reader did not keep up.
    overrun: bool,
    end: Option<Final>,
    waker: Option<Waker>,
}

/// See the module.
pub(crate) struct Outbox {
    kind: OutboxKind,
    state: Mutex<State>,
}

/// What the connection should send.
pub(crate) enum Ready {
    /// The answer came first.
    Plain(Box<Final>),
    /// An event came first.
    Events,
}

impl Outbox {
    pub(crate) fn new(kind: OutboxKind) -> Arc<Self> {
        let state = State { next: 1, read_to: 1, ..State::default() };
        Arc::new(Self { kind, state: Mutex::new(state) })
    }

    /// Adds an event whose data is one JSON text (or `[DONE]`).
    pub(crate) fn push(&self, data: &Bytes) {
        let mut state = self.state.lock();
        if !state.finished {
            self.append(&mut state, data);
        }
        wake(state);
    }

    /// Ends the stream with the call's answer. Later calls do nothing.
    pub(crate) fn finish(&self, end: Final) {
        let mut state = self.state.lock();
        if !state.finished {
            state.finished = true;
            if state.next == 1 && state.reader == 0 && !end.prefers_events {
                state.end = Some(end);
            } else {
                for data in end.last_events() {
                    self.append(&mut state, data);
                }
            }
        }
        wake(state);
    }

    /// Ends the stream without an answer.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.finished = true;
        wake(state);
    }

    fn append(&self, state: &mut State, data: &Bytes) {
        let number = state.next;
        state.next += 1;
        let frame = self.frame(number, data);
        state.kept_bytes += frame.len();
        state.events.push_back(Event { number, frame });
        let once = self.kind == OutboxKind::Once;
        while state.events.len() > MAX_KEPT_EVENTS || (state.kept_bytes > MAX_KEPT_BYTES && state.events.len() > 1) {
            let Some(lost) = state.events.pop_front() else { break };
            state.kept_bytes -= lost.frame.len();
            if lost.number >= state.read_to && (once || state.reader_attached) {
                // The reader lost an unread event: its stream ends; a resumable one can be
                // taken up again from what is kept.
                state.overrun = true;
            }
        }
    }

    fn frame(&self, number: u64, data: &Bytes) -> Bytes {
        let mut out = BytesMut::with_capacity(data.len() + 48);
        if let OutboxKind::Resumable { stream, tag, .. } = self.kind {
            out.put_slice(format!("id: {stream}-{number}-{tag}\n").as_bytes());
        }
        out.put_slice(b"data: ");
        // Line breaks in JSON are only ever space between tokens.
        match memchr_newline(data) {
            false => out.put_slice(data),
            true => out.extend(data.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b })),
        }
        out.put_slice(b"\n\n");
        out.freeze()
    }

    /// Waits until it is clear which form the answer takes.
    pub(crate) async fn ready(&self) -> Ready {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if let Some(end) = state.end.take() {
                return Poll::Ready(Ready::Plain(Box::new(end)));
            }
            if !state.events.is_empty() || state.finished {
                return Poll::Ready(Ready::Events);
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Puts an answer back that [`Outbox::ready`] took, to be read as an event after all.
    pub(crate) fn reopen(&self, end: Final) {
        self.state.lock().end = Some(end);
    }

    /// Bytes kept now.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.state.lock().kept_bytes
    }

    /// Whether a reader is attached.
    pub(crate) fn is_read(&self) -> bool {
        self.state.lock().reader_attached
    }

    /// Whether all was said.
    pub(crate) fn is_finished(&self) -> bool {
        self.state.lock().finished
    }

    /// Starts reading after event `after` (0: from the first kept). A reader before this one ends.
    pub(crate) fn read(self: &Arc<Self>, after: u64) -> SseBody {
        let mut state = self.state.lock();
        state.reader += 1;
        state.reader_attached = true;
        state.overrun = false;
        // An answer that was waiting for its plain form and finds a stream instead.
        if let Some(end) = state.end.take() {
            for data in end.last_events() {
                self.append(&mut state, data);
            }
        }
        let reader = state.reader;
        let cursor = after + 1;
        state.read_to = state.read_to.max(cursor);
        wake(state);
        let prelude = match self.kind {
            OutboxKind::Resumable { stream, primed: true, tag } if after == 0 => {
                Some(Bytes::from(format!("id: {stream}-0-{tag}\nretry: {RETRY_MS}\ndata: \n\n")))
            }
            _ => None,
        };
        SseBody { outbox: self.clone(), reader, cursor, prelude, keep_alive: None, on_end: None }
    }

    fn poll_next(&self, reader: u64, cursor: &mut u64, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.state.lock();
        if state.reader != reader || state.overrun {
            return Poll::Ready(None);
        }
        let found = state.events.iter().find(|e| e.number >= *cursor).map(|e| (e.number, e.frame.clone()));
        if let Some((number, frame)) = found {
            *cursor = number + 1;
            state.read_to = state.read_to.max(*cursor);
            if self.kind == OutboxKind::Once {
                while state.events.front().is_some_and(|e| e.number < *cursor) {
                    if let Some(read) = state.events.pop_front() {
                        state.kept_bytes -= read.frame.len();
                    }
                }
            }
            return Poll::Ready(Some(frame));
        }
        if state.finished {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn memchr_newline(data: &[u8]) -> bool {
    data.iter().any(|b| matches!(b, b'\n' | b'\r'))
}

/// Wakes the reader after the lock is free.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The reading end, as a response body.
pub struct SseBody {
    outbox: Arc<Outbox>,
    reader: u64,
    cursor: u64,
    prelude: Option<Bytes>,
    keep_alive: Option<Pin<Box<Interval>>>,
    on_end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl SseBody {
    /// Runs when the connection lets go of the stream, read to its end or not.
    pub(crate) fn on_end(mut self, f: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(f));
        self
    }

    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(prelude) = self.prelude.take() {
            return Poll::Ready(Some(prelude));
        }
        if let Poll::Ready(event) = self.outbox.poll_next(self.reader, &mut self.cursor, cx) {
            if let Some(interval) = &mut self.keep_alive {
                interval.reset();
            }
            return Poll::Ready(event);
        }
        let interval = self.keep_alive.get_or_insert_with(|| {
            let mut interval = interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Box::pin(interval)
        });
        match interval.poll_tick(cx) {
            Poll::Ready(_) => Poll::Ready(Some(Bytes::from_static(b": alive\n\n"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for SseBody {
    fn drop(&mut self) {
        let mut state = self.outbox.state.lock();
        if state.reader == self.reader {
            state.reader_attached = false;
        }
        drop(state);
        if let Some(f) = self.on_end.take() {
            f();
        }
    }
}

/// The response around a stream of events.
pub(crate) fn sse_response(body: SseBody) -> Response<ResponseBody> {
    event_stream(ResponseBody::Events(Box::new(body)))
}

/// The same around events of whatever origin.
pub(crate) fn event_stream(body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies that collect responses would hold the events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Cancels when it is dropped before [`CancelOnDrop::disarm`].
pub(crate) struct CancelOnDrop(Option<CancellationToken>);

impl CancelOnDrop {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self(Some(token))
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(token) = self.0.take() {
            token.cancel();
        }
    }
}
