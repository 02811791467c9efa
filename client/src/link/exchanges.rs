//! A link over transports that give each message an exchange of its own: Streamable HTTP.
//!
//! Requests run at the same time, each in a task; notifications and answers to the server go out one after
//! the other, in the order in which they came. A modern call is cancelled by ending its exchange; a legacy
//! one by a notification, after which its exchange is dropped too.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use provost_mcp::{Era, RequestId};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle, JoinSet},
    time::timeout,
};

use super::{Incoming, MAX_IN_FLIGHT, session::Session};
use crate::{
    Connector, LinkError, Outgoing,
    http::{HttpConnection, Reply},
    outgoing::OutgoingKind,
};

/// Connections kept for the next request.
const MAX_IDLE: usize = 16;
/// The longest that a notification, or an answer to the server, may take to be accepted.
const ACCEPT_LIMIT: Duration = Duration::from_secs(30);
/// Between two tries to open the stream of a legacy session.
const LISTEN_PAUSE: Duration = Duration::from_secs(2);

/// What the exchanges share.
struct Shared {
    connector: Connector,
    session: Session,
    idle: Mutex<Vec<HttpConnection>>,
    /// Open requests by id.
    open: Mutex<HashMap<String, Open>>,
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
    let first = HttpConnection::open(connector).await?;
    let shared = Arc::new(Shared {
        connector: connector.clone(),
        session: Session::default(),
        idle: Mutex::new(vec![first]),
        open: Mutex::default(),
        incoming,
    });
    Ok(tokio::spawn(send(shared, outgoing)))
}

/// Its end aborts what runs: the set is dropped with it.
async fn send(shared: Arc<Shared>, mut outgoing: mpsc::Receiver<Outgoing>) {
    let mut tasks = JoinSet::new();
    let mut is_listening = false;
    while let Some(message) = outgoing.recv().await {
        while tasks.try_join_next().is_some() {}
        match message.kind() {
            OutgoingKind::Request(id) => {
                let id = id.clone();
                begin(&shared, &mut tasks, id, message).await;
            }
            OutgoingKind::Notification | OutgoingKind::Response => {
                let cancels = message.cancels();
                let target = cancels.as_ref().and_then(|id| shared.open.lock().remove(id.as_str()));
                if target.as_ref().is_none_or(|open| open.era == Era::Legacy) {
                    shared.tell(&message).await;
                }
                if let Some(open) = target {
                    open.task.abort();
                }
                if message.method() == "notifications/initialized" && shared.session.is_open() && !is_listening {
                    is_listening = true;
                    tasks.spawn(shared.clone().listen());
                }
            }
        }
    }
    // Nobody sends any more; what was asked may still be answered, while somebody listens.
    while !shared.open.lock().is_empty() && tasks.join_next().await.is_some() {}
}

async fn begin(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, id: RequestId, message: Outgoing) {
    let key = id.as_str().to_owned();
    let era = message.era();
    let refused = {
        let mut open = shared.open.lock();
        if open.len() >= MAX_IN_FLIGHT {
            Some(LinkError::Busy(MAX_IN_FLIGHT))
        } else if open.contains_key(&key) {
            Some(LinkError::Answer("the id is in flight already".to_owned()))
        } else {
            // Under the lock: the task cannot end, and forget the id, before it is noted.
            let task = tasks.spawn(shared.clone().request(id.clone(), message));
            open.insert(key, Open { era, task });
            None
        }
    };
    if let Some(error) = refused {
        let _ = shared.incoming.send(Incoming::Failed { id, error }).await;
    }
}

impl Shared {
    async fn request(self: Arc<Self>, id: RequestId, message: Outgoing) {
        let outcome = self.exchange(&message, Some(&id)).await;
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

    /// Sends what wants no answer.
    async fn tell(&self, message: &Outgoing) {
        match timeout(ACCEPT_LIMIT, self.exchange(message, None)).await {
            Ok(Ok(reply)) if reply.status.is_success() => {}
            Ok(Ok(reply)) => tracing::warn!(status = reply.status.as_u16(), method = message.method(), "not accepted"),
            Ok(Err(error)) => tracing::warn!(%error, method = message.method(), "not delivered"),
            Err(_) => tracing::warn!(method = message.method(), "not accepted in time"),
        }
    }

    async fn exchange(&self, message: &Outgoing, id: Option<&RequestId>) -> Result<Reply, LinkError> {
        let mut connection = self.connection().await?;
        let headers = self.session.headers(message);
        let (events, mut messages) = mpsc::channel::<Bytes>(1);
        let posted = async {
            let reply = connection.post(headers, message.body().clone(), id, Some(&events)).await;
            drop(events);
            reply
        };
        let forwarded = async {
            while let Some(message) = messages.recv().await {
                let _ = self.incoming.send(Incoming::Message(message)).await;
            }
        };
        let (reply, ()) = tokio::join!(posted, forwarded);
        let reply = reply?;
        self.put_back(connection);
        Ok(reply)
    }

    /// An idle connection that is still open, else a new one.
    async fn connection(&self) -> Result<HttpConnection, LinkError> {
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(mut connection) => {
                    if connection.is_alive() {
                        return Ok(connection);
                    }
                }
                None => return HttpConnection::open(&self.connector).await,
            }
        }
    }

    fn put_back(&self, connection: HttpConnection) {
        let mut idle = self.idle.lock();
        if connection.is_open() && idle.len() < MAX_IDLE {
            idle.push(connection);
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
                let outcome = match HttpConnection::open(&self.connector).await {
                    Ok(mut connection) => connection.listen(self.session.of_stream(), &events).await,
                    Err(error) => Err(error),
                };
                match outcome {
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
