//! Who a message on a shared connection belongs to.
//!
//! Purpose: on stdio, and on a legacy session's own stream, the answers, notifications and
//! requests of all running calls come in one sequence; this is where each goes.
//! Invariants: an answer reaches exactly the call with its id; progress the call with its token
//! (ids serve as tokens); a question of the server goes to the youngest running call, since legacy
//! servers do not say which call they ask for; a log message goes to a call only if there is one
//! alone, else to who listens on the connection.

use std::collections::HashMap;

use parking_lot::Mutex;
use provost_mcp::{Envelope, RawJson, RawObject, RequestId, RpcError};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::connection::Event;
use crate::UpstreamError;

/// Notifications and questions waiting for one call; more are dropped.
const CALL_QUEUE: usize = 256;
/// The member of `_meta` that says which `subscriptions/listen` an event belongs to.
pub(super) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// Notifications waiting for one listener; a listener that is slower loses the oldest.
const BROADCAST_QUEUE: usize = 256;

/// A notification between calls.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) method: String,
    pub(super) params: Option<RawJson>,
}

struct Slot {
    order: u64,
    events: mpsc::Sender<Event>,
    answer: Option<oneshot::Sender<Result<RawJson, RpcError>>>,
}

/// A running call's end of the switchboard.
pub(super) struct Line {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) answer: oneshot::Receiver<Result<RawJson, RpcError>>,
}

#[derive(Default)]
struct State {
    slots: HashMap<String, Slot>,
    next_order: u64,
    closed: Option<UpstreamError>,
}

/// The running calls of one connection.
pub(super) struct Switchboard {
    state: Mutex<State>,
    told: broadcast::Sender<Told>,
    ended: CancellationToken,
}

impl Switchboard {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), told: broadcast::channel(BROADCAST_QUEUE).0, ended: CancellationToken::new() }
    }

    /// Registers a call before its request is sent. Fails once the connection has ended.
    pub(super) fn register(&self, id: &RequestId) -> Result<Line, UpstreamError> {
        let (events, events_end) = mpsc::channel(CALL_QUEUE);
        let (answer, answer_end) = oneshot::channel();
        let mut state = self.state.lock();
        if let Some(cause) = &state.closed {
            return Err(cause.clone());
        }
        state.next_order += 1;
        let slot = Slot { order: state.next_order, events, answer: Some(answer) };
        state.slots.insert(id.as_str().to_owned(), slot);
        Ok(Line { events: events_end, answer: answer_end })
    }

    /// The call is over.
    pub(super) fn forget(&self, id: &RequestId) {
        self.state.lock().slots.remove(id.as_str());
    }

    /// Ends the connection: every call learns why.
    pub(super) fn close(&self, cause: UpstreamError) {
        let mut state = self.state.lock();
        state.closed.get_or_insert(cause);
        state.slots.clear();
        self.ended.cancel();
    }

    /// Cancelled when the connection ends.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Why the connection ended, if it did.
    pub(super) fn closed(&self) -> Option<UpstreamError> {
        self.state.lock().closed.clone()
    }

    /// What is said between calls.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
    }

    /// Takes one message. What is returned must be answered here and now: a question that no call
    /// can pass on.
    pub(super) fn deliver(&self, message: Envelope) -> Option<(RequestId, RpcError)> {
        match message {
            Envelope::Response { id: Some(id), outcome } => {
                self.answer(&id, outcome);
                None
            }
            Envelope::Response { id: None, outcome } => {
                tracing::warn!(?outcome, "the upstream could not read one of our messages");
                None
            }
            Envelope::Notification { method, params } => {
                self.notification(method, params);
                None
            }
            Envelope::Request { id, method, params } => self.ask(Event::Asked { id, method, params }),
        }
    }

    fn answer(&self, id: &RequestId, outcome: Result<RawJson, RpcError>) {
        let waiting = self.state.lock().slots.get_mut(id.as_str()).and_then(|s| s.answer.take());
        match waiting {
            // The caller may have gone in this very moment.
            Some(waiting) => drop(waiting.send(outcome)),
            None => tracing::debug!(id = id.as_str(), "an answer that nobody waits for"),
        }
    }

    fn notification(&self, method: String, params: Option<RawJson>) {
        let object = params.as_ref().and_then(|p| RawObject::parse(p).ok()).unwrap_or_default();
        // Progress has the call's token, a subscription's events its id; both are the request's id.
        let owner = match method.as_str() {
            "notifications/progress" => Some(object.get("progressToken")),
            "notifications/message" => None,
            _ => object.get_object("_meta").and_then(|m| m.get(SUBSCRIPTION_ID)).map(Some),
        };
        {
            let state = self.state.lock();
            let slot = match &owner {
                Some(id) => id.as_ref().and_then(|id| state.slots.get(id.as_str())),
                None if state.slots.len() == 1 && method == "notifications/message" => state.slots.values().next(),
                None => None,
            };
            if let Some(slot) = slot {
                // A full queue loses a notification, never an answer.
                let _ = slot.events.try_send(Event::Told { method, params });
                return;
            }
        }
        if owner.is_none() {
            // Without listeners there is nobody to tell.
            let _ = self.told.send(Told { method, params });
        }
    }

    fn ask(&self, event: Event) -> Option<(RequestId, RpcError)> {
        let state = self.state.lock();
        let youngest = state.slots.values().max_by_key(|s| s.order);
        let refused = match youngest {
            Some(slot) => slot.events.try_send(event).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(event),
        };
        match refused {
            Some(Event::Asked { id, .. }) => {
                let error = RpcError::new(RpcError::INTERNAL, "no call is running that could be asked");
                Some((id, error))
            }
            _ => None,
        }
    }
}
