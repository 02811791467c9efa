//! A link over transports that give each message an exchange of its own.
//!
//! Requests run at the same time, each in a task; notifications and answers to the server go out one after
//! the other, in the order in which they came. A modern call is cancelled by ending its exchange; a legacy
//! one over HTTP by a notification, after which its exchange is dropped too.

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use provost_mcp::{Envelope, Era, JsonLimits, RequestId};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    Incoming, MAX_IN_FLIGHT,
    param_headers::{MAX_PAGES, Page, ParamHeaders, is_mismatch},
    session::Session,
    wires::{Exchange, Wires},
};
use crate::{Connector, LinkError, Outgoing, http::Reply, outgoing::OutgoingKind};

/// The longest that a notification, or an answer to the server, may take to be accepted.
const ACCEPT_LIMIT: Duration = Duration::from_secs(30);
/// Between two tries to open the stream of a legacy session.
const LISTEN_PAUSE: Duration = Duration::from_secs(2);
/// Answers to the server that wait for their stream.
const REPLIES: usize = 8;

/// What the exchanges share.
struct Shared {
    wires: Wires,
    session: Session,
    param_headers: ParamHeaders,
    /// Open requests by id.
    open: Mutex<HashMap<String, Open>>,
    /// Questions of the server that must be answered on the stream on which they came.
    asked: Mutex<HashMap<String, mpsc::Sender<Bytes>>>,
    incoming: mpsc::Sender<Incoming>,
}

struct Open {
    era: Era,
    task: AbortHandle,
}

/// Connects once, to say early what does not work, and starts the task that sends.
pub(super) async fn start(
    connector: &Connector,
    outgoing: mpsc::Receiver<Outgoing>,
    incoming: mpsc::Sender<Incoming>,
) -> Result<JoinHandle<()>, LinkError> {
    let shared = Arc::new(Shared {
        wires: Wires::open(connector).await?,
        session: Session::default(),
        param_headers: ParamHeaders::default(),
        open: Mutex::default(),
        asked: Mutex::default(),
        incoming,
    });
    Ok(tokio::spawn(send(shared, outgoing)))
}

/// Its end aborts what runs: the set is dropped with it.
async fn send(shared: Arc<Shared>, mut outgoing: mpsc::Receiver<Outgoing>) {
    let mut tasks = JoinSet::new();
    let mut is_listening = false;
    let mut closed = pin!(shared.wires.closed());
    let end = loop {
        let message = tokio::select! {
            message = outgoing.recv() => message,
            error = &mut closed => break Some(error),
        };
        let Some(message) = message else { break None };
        while tasks.try_join_next().is_some() {}
        match message.kind() {
            OutgoingKind::Request(id) => {
                let id = id.clone();
                begin(&shared, &mut tasks, id, message).await;
            }
            OutgoingKind::Response if shared.wires.is_quic() => shared.reply(&message).await,
            OutgoingKind::Notification | OutgoingKind::Response => {
                let target = message.cancels().and_then(|id| shared.open.lock().remove(id.as_str()));
                let is_initialized = message.method() == "notifications/initialized";
                if shared.wires.is_quic() && is_initialized {
                    // Its stream stays open, for what concerns no single call.
                    tasks.spawn(shared.clone().stay(message));
                } else if target.as_ref().is_none_or(|open| open.era == Era::Legacy && !shared.wires.is_quic()) {
                    shared.tell(&message).await;
                }
                if let Some(open) = target {
                    open.task.abort();
                }
                if is_initialized && shared.session.is_open() && !is_listening {
                    is_listening = true;
                    tasks.spawn(shared.clone().listen());
                }
            }
        }
    };
    // Nothing goes out any more. What was asked may still be answered, while somebody listens; on a connection that
    // has ended the answers that came before its end are still to be read, and a request that has one was executed:
    // only those that find the end instead of an answer end like the connection.
    while !shared.open.lock().is_empty() && tasks.join_next().await.is_some() {}
    if let Some(error) = end {
        let _ = shared.incoming.send(Incoming::Closed(error)).await;
    }
}

async fn begin(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, id: RequestId, message: Outgoing) {
    let key = id.as_str().to_owned();
    let era = message.era();
    let refused = {
        let mut open = shared.open.lock();
        let is_full = open.len() >= MAX_IN_FLIGHT;
        match open.entry(key) {
            _ if is_full => Some(LinkError::Busy(MAX_IN_FLIGHT)),
            Entry::Occupied(_) => Some(LinkError::Answer("the id is in flight already".to_owned())),
            Entry::Vacant(free) => {
                // Under the lock: the task cannot end, and forget the id, before it is noted.
                let task = tasks.spawn(shared.clone().request(id.clone(), message));
                free.insert(Open { era, task });
                None
            }
        }
    };
    if let Some(error) = refused {
        let _ = shared.incoming.send(Incoming::Failed { id, error }).await;
    }
}

impl Shared {
    async fn request(self: Arc<Self>, id: RequestId, message: Outgoing) {
        let mut outcome = self.exchange(&message, Some(&id)).await;
        let is_refused = matches!(&outcome, Ok(Reply { answer: Some(answer), .. }) if is_mismatch(answer));
        if is_refused && self.learn_headers(&message).await {
            outcome = self.exchange(&message, Some(&id)).await;
        }
        if self.open.lock().remove(id.as_str()).is_none() {
            // Cancelled in this moment: the client hears no more of it.
            return;
        }
        let event = match outcome {
            Ok(Reply { status, headers, answer: Some(answer) }) => {
                if message.method() == "initialize" && status.is_success() {
                    self.session.open(&headers, &answer);
                }
                Incoming::Message(answer)
            }
            Ok(Reply { status, .. }) => Incoming::Failed {
                id,
                error: LinkError::Refused { status: status.as_u16(), text: "without an answer".to_owned() },
            },
            Err(error) => Incoming::Failed { id, error },
        };
        let _ = self.incoming.send(event).await;
    }

    /// Reads the list of tools for what a call must say in headers. `true`: another try makes sense.
    async fn learn_headers(&self, message: &Outgoing) -> bool {
        self.param_headers.forget(message);
        let mut cursor = None;
        for page in 0..MAX_PAGES {
            let Some((id, list)) = ParamHeaders::list(message, cursor.take(), page) else { return false };
            let Ok(Reply { answer: Some(answer), .. }) = self.exchange(&list, Some(&id)).await else { return false };
            let page = self.param_headers.learn(&answer);
            if self.param_headers.knows(message) {
                return true;
            }
            match page {
                Page::More(next) => cursor = Some(next),
                Page::Last => return false,
            }
        }
        false
    }

    /// Sends what wants no answer.
    async fn tell(&self, message: &Outgoing) {
        let method = message.method();
        match timeout(ACCEPT_LIMIT, self.exchange(message, None)).await {
            Ok(Ok(reply)) if reply.status.is_success() => {}
            Ok(Ok(reply)) => tracing::warn!(status = reply.status.as_u16(), method, "not accepted"),
            Ok(Err(error)) => tracing::warn!(%error, method, "not delivered"),
            Err(_) => tracing::warn!(method, "not accepted in time"),
        }
    }

    /// The same for a message whose stream stays open.
    async fn stay(self: Arc<Self>, message: Outgoing) {
        if let Err(error) = self.exchange(&message, None).await {
            tracing::debug!(%error, "the session's stream ended");
        }
    }

    /// Hands an answer to the stream on which the server asked. One that comes too late is dropped.
    async fn reply(&self, message: &Outgoing) {
        let Ok(Envelope::Response { id: Some(id), .. }) =
            Envelope::parse(message.body().clone(), &JsonLimits::RESPONSE)
        else {
            return;
        };
        let stream = self.asked.lock().remove(id.as_str());
        if let Some(stream) = stream {
            let _ = stream.send(message.body().clone()).await;
        }
    }

    async fn exchange(&self, message: &Outgoing, id: Option<&RequestId>) -> Result<Reply, LinkError> {
        let (events, mut messages) = mpsc::channel::<Bytes>(1);
        // Only the legacy era has questions in the middle of a call.
        let is_asked = self.wires.is_quic() && id.is_some() && message.era() == Era::Legacy;
        let (reply, replies) = mpsc::channel(REPLIES);
        let exchanged = async {
            let mut headers = self.session.headers(message);
            headers.extend(self.param_headers.of(message));
            let exchange = Exchange {
                headers,
                body: message.body().clone(),
                id,
                events: &events,
                replies: is_asked.then_some(replies),
            };
            let outcome = self.wires.exchange(exchange).await;
            drop(events);
            outcome
        };
        let forwarded = async {
            while let Some(message) = messages.recv().await {
                if is_asked {
                    self.note_question(&message, &reply);
                }
                let _ = self.incoming.send(Incoming::Message(message)).await;
            }
        };
        let (outcome, ()) = tokio::join!(exchanged, forwarded);
        if is_asked {
            self.asked.lock().retain(|_, stream| !stream.same_channel(&reply));
        }
        outcome
    }

    fn note_question(&self, message: &Bytes, reply: &mpsc::Sender<Bytes>) {
        if let Ok(Envelope::Request { id, .. }) = Envelope::parse(message.clone(), &JsonLimits::RESPONSE) {
            let mut asked = self.asked.lock();
            // What a cancelled request leaves.
            asked.retain(|_, stream| !stream.is_closed());
            asked.insert(id.as_str().to_owned(), reply.clone());
        }
    }

    /// Reads what a legacy session's server says outside of calls, as long as it offers that.
    async fn listen(self: Arc<Self>) {
        let (events, mut messages) = mpsc::channel::<Bytes>(1);
        let forwarded = async {
            while let Some(message) = messages.recv().await {
                let _ = self.incoming.send(Incoming::Message(message)).await;
            }
        };
        let listening = async {
            loop {
                match self.wires.listen(self.session.of_stream(), &events).await {
                    Ok(reply) if reply.status != StatusCode::OK => break,
                    Err(LinkError::Refused { .. }) => break,
                    Ok(_) | Err(_) => tokio::time::sleep(LISTEN_PAUSE).await,
                }
            }
            drop(events);
        };
        tokio::join!(listening, forwarded);
    }
}
