//! What is open between the client and the cluster, and what a new connection must be told.
//!
//! Pure: it takes what passed and says what follows. Requests are known by the client's ids, requests of
//! the server by the server's. A legacy session over a socket is the connection; when that is lost the book
//! knows how to make another one that is like it.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use provost_client::{LinkError, Outgoing, OutgoingKind, is_draining};
use provost_mcp::{Envelope, JsonLimits, RawJson, RawObject, RequestId, notification_message};
use serde_json::json;

use super::reply;

/// Requests that change nothing and cost little: asked again on a new connection, unseen by the client.
const REPEATABLE: [&str; 7] = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
];

/// How often a request is sent again: each time a node has said that it goes.
const MAX_REPEATS: u32 = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Book {
    /// Requests of the client without an answer.
    open: HashMap<String, Outgoing>,
    /// How often requests were sent again since a node that goes had not begun them.
    repeated: HashMap<String, u32>,
    /// Requests of the server without an answer.
    asked: HashSet<String>,
    session: Session,
    /// The bridge's own requests, by id.
    own: HashMap<String, Own>,
    made: u64,
}

/// A legacy session, as far as it must be made again.
#[derive(Debug, Default)]
struct Session {
    initialize: Option<RawJson>,
    is_initialized: bool,
    log_level: Option<RawJson>,
    subscriptions: BTreeMap<String, RawJson>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Initialize,
    Other,
}

/// What to do with a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// The client gets it.
    Pass(Bytes),
    /// The node goes and has not begun this request: it is sent again, on another connection.
    Refused(Box<Outgoing>),
    /// It was for the bridge.
    Swallowed,
    /// The session was made again: the client's messages may go out, after these.
    Restored,
}

/// What follows from the loss of a connection.
#[derive(Debug, Default)]
pub struct Loss {
    /// Messages for the client: errors, and cancellations of what the server had asked.
    pub answers: Vec<Bytes>,
    /// Requests to send again.
    pub again: Vec<Outgoing>,
}

impl Book {
    /// Notes a message that goes out now. `false`: it answers a question of a connection that is gone, and
    /// must not go out.
    pub fn goes_out(&mut self, message: &Outgoing) -> bool {
        match message.kind() {
            OutgoingKind::Request(id) => {
                if self.own.contains_key(id.as_str()) {
                    return true;
                }
                self.note_session(message);
                self.open.insert(id.as_str().to_owned(), message.clone());
                true
            }
            OutgoingKind::Notification => {
                if message.method() == "notifications/initialized" {
                    self.session.is_initialized = true;
                }
                if let Some(id) = message.cancels() {
                    // Neither era answers a request that was cancelled.
                    self.open.remove(id.as_str());
                }
                true
            }
            OutgoingKind::Response => match Envelope::parse(message.body().clone(), &JsonLimits::RESPONSE) {
                Ok(Envelope::Response { id: Some(id), .. }) => self.asked.remove(id.as_str()),
                _ => false,
            },
        }
    }

    fn note_session(&mut self, message: &Outgoing) {
        let params = || message.params().cloned().unwrap_or(RawJson::EMPTY_OBJECT);
        let uri = || message.params().and_then(|p| RawObject::parse(p).ok()).and_then(|p| p.get_text("uri"));
        match message.method() {
            "initialize" => self.session = Session { initialize: Some(params()), ..Session::default() },
            "logging/setLevel" => self.session.log_level = Some(params()),
            "resources/subscribe" => {
                if let Some(uri) = uri() {
                    self.session.subscriptions.insert(uri, params());
                }
            }
            "resources/unsubscribe" => {
                if let Some(uri) = uri() {
                    self.session.subscriptions.remove(&uri);
                }
            }
            _ => {}
        }
    }

    /// Takes a message of the server.
    pub fn came(&mut self, bytes: Bytes) -> Came {
        match Envelope::parse(bytes.clone(), &JsonLimits::RESPONSE) {
            Ok(Envelope::Response { id: Some(id), outcome }) => match self.own.remove(id.as_str()) {
                Some(own) => {
                    if let Err(error) = outcome {
                        tracing::warn!(code = error.code, message = error.message, "a session could not be restored");
                    }
                    if own == Own::Initialize { Came::Restored } else { Came::Swallowed }
                }
                None => match (outcome, self.open.remove(id.as_str())) {
                    (Err(error), Some(message)) if is_draining(&error) && self.may_repeat(&id) => {
                        Came::Refused(Box::new(message))
                    }
                    _ => {
                        self.repeated.remove(id.as_str());
                        Came::Pass(bytes)
                    }
                },
            },
            Ok(Envelope::Request { id, .. }) => {
                self.asked.insert(id.as_str().to_owned());
                Came::Pass(bytes)
            }
            Ok(Envelope::Response { id: None, .. } | Envelope::Notification { .. }) => Came::Pass(bytes),
            Err(fault) => {
                tracing::warn!(%fault, "the server sent what is no message");
                Came::Swallowed
            }
        }
    }

    /// Counts the times that a request is sent again. `false`: it was often enough.
    fn may_repeat(&mut self, id: &RequestId) -> bool {
        let times = self.repeated.entry(id.as_str().to_owned()).or_default();
        *times += 1;
        *times <= MAX_REPEATS
    }

    /// A request failed by itself and was not begun, since the node goes or is not back yet: it is sent again.
    /// With it comes how often it was.
    pub fn taken_back(&mut self, id: &RequestId, error: &LinkError) -> Option<(Outgoing, u32)> {
        let was_not_begun = matches!(error, LinkError::NotTaken(_) | LinkError::Unreachable { .. });
        if !was_not_begun || !self.open.contains_key(id.as_str()) || !self.may_repeat(id) {
            return None;
        }
        let times = self.repeated.get(id.as_str()).copied().unwrap_or_default();
        self.open.remove(id.as_str()).map(|message| (message, times))
    }

    /// A request failed by itself: the answer, unless nobody waits for one.
    pub fn failed(&mut self, id: &RequestId, error: &LinkError) -> Option<Bytes> {
        let message = self.open.remove(id.as_str())?;
        self.repeated.remove(id.as_str());
        Some(match reply::was_not_sent(error) {
            true => reply::not_sent(id, error),
            false => reply::lost(&message, id, error),
        })
    }

    /// The connection was lost, with everything on it.
    pub fn lost(&mut self, error: &LinkError) -> Loss {
        let mut loss = Loss::default();
        self.own.clear();
        for message in std::mem::take(&mut self.open).into_values() {
            let Some(id) = message.id().cloned() else { continue };
            // A node that goes has answered all that it had begun.
            let was_not_begun = matches!(error, LinkError::NotTaken(_)) && self.may_repeat(&id);
            if was_not_begun || REPEATABLE.contains(&message.method()) {
                if message.method() == "initialize" {
                    // It makes its session itself.
                    self.session = Session::default();
                }
                loss.again.push(message);
            } else {
                self.repeated.remove(id.as_str());
                loss.answers.push(reply::lost(&message, &id, error));
            }
        }
        for id in std::mem::take(&mut self.asked) {
            let params = format!("{{\"requestId\":{id},\"reason\":\"the connection was lost\"}}");
            let params = RawJson::from_checked(params.into());
            loss.answers.push(notification_message("notifications/cancelled", Some(&params)));
        }
        loss
    }

    /// The first message of a new connection, if there was a session: nothing else may go out before it
    /// was answered ([`Came::Restored`]).
    pub fn restore(&mut self) -> Option<Outgoing> {
        let params = self.session.initialize.clone().filter(|_| self.session.is_initialized)?;
        Some(self.own_request(Own::Initialize, "initialize", &params))
    }

    /// What follows that answer.
    pub fn restored(&mut self) -> Vec<Outgoing> {
        let mut messages = vec![Outgoing::notification("notifications/initialized", None)];
        if let Some(params) = self.session.log_level.clone() {
            messages.push(self.own_request(Own::Other, "logging/setLevel", &params));
        }
        for params in self.session.subscriptions.clone().into_values() {
            messages.push(self.own_request(Own::Other, "resources/subscribe", &params));
        }
        messages
    }

    fn own_request(&mut self, own: Own, method: &str, params: &RawJson) -> Outgoing {
        self.made += 1;
        let id = RequestId(RawJson::from(json!(format!("provost-bridge-{}", self.made))));
        self.own.insert(id.as_str().to_owned(), own);
        Outgoing::request(&id, method, params)
    }

    /// Requests that end only when they are cancelled; from now on nobody waits for them.
    pub fn end_subscriptions(&mut self) -> Vec<Outgoing> {
        let endless: Vec<_> = self.open.values().filter(|m| m.method() == "subscriptions/listen").cloned().collect();
        let ids = endless.iter().filter_map(Outgoing::id).cloned();
        ids.map(|id| Outgoing::cancelled(&id, "the client has gone")).collect()
    }

    /// Whether the client waits for nothing.
    pub fn is_clear(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests;
