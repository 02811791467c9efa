//! Messages both ways, many calls at once.
//!
//! A link does not look for meaning: what is sent goes out, what comes is handed over. It only knows which
//! requests are open, since over some transports each is an exchange of its own that can fail by itself.
//! A link that was lost stays lost: whoever holds it decides what may be asked again.

mod exchanges;
mod param_headers;
mod session;
mod socket;
mod wires;

use bytes::Bytes;
use provost_mcp::RequestId;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{Connector, LinkError, Outgoing, Transport};

/// Requests in flight at once over one link.
pub const MAX_IN_FLIGHT: usize = 256;
/// Messages that wait to go out.
const OUTGOING_QUEUE: usize = 64;
/// Messages that came and were not taken. Past it nothing more is read.
const INCOMING_QUEUE: usize = 256;

/// What comes over a link.
#[derive(Debug)]
pub enum Incoming {
    /// A message of the server.
    Message(Bytes),
    /// This request will get no answer; the link goes on.
    Failed {
        /// Its id.
        id: RequestId,
        /// Why.
        error: LinkError,
    },
    /// The end: no open request will get an answer.
    Closed(LinkError),
}

/// An open link.
pub struct Link {
    /// The way out.
    pub sender: LinkSender,
    /// The way in.
    pub receiver: LinkReceiver,
}

/// The way out. When the last clone is dropped the link ends, after what was sent.
#[derive(Clone, Debug)]
pub struct LinkSender(mpsc::Sender<Outgoing>);

/// The way in. To drop it ends the link at once.
#[derive(Debug)]
pub struct LinkReceiver {
    incoming: mpsc::Receiver<Incoming>,
    tasks: Vec<JoinHandle<()>>,
}

impl Link {
    /// Connects. Over HTTP that is one connection to begin with.
    pub async fn open(connector: &Connector) -> Result<Self, LinkError> {
        let (sender, outgoing) = mpsc::channel(OUTGOING_QUEUE);
        let (events, incoming) = mpsc::channel(INCOMING_QUEUE);
        let tasks = match connector.endpoint().transport() {
            Transport::WebSocket => socket::start(connector, outgoing, events).await?,
            Transport::Http | Transport::Http3 | Transport::Quic => {
                vec![exchanges::start(connector, outgoing, events).await?]
            }
        };
        Ok(Self { sender: LinkSender(sender), receiver: LinkReceiver { incoming, tasks } })
    }
}

/// Room for one message.
pub struct Room<'a>(mpsc::Permit<'a, Outgoing>);

impl Room<'_> {
    /// Sends it.
    pub fn send(self, message: Outgoing) {
        self.0.send(message);
    }
}

impl LinkSender {
    /// Sends a message, once there is room for it. Errors: the link has ended, and the message did not go out.
    pub async fn send(&self, message: Outgoing) -> Result<(), LinkError> {
        self.0.send(message).await.map_err(|_| LinkError::NotTaken("the connection was closed before".to_owned()))
    }

    /// Waits for room, without a message yet. Errors: the link has ended.
    pub async fn reserve(&self) -> Result<Room<'_>, LinkError> {
        self.0.reserve().await.map(Room).map_err(|_| LinkError::Lost("it was closed".to_owned()))
    }

    /// The same if there is room now; else the message is dropped.
    pub fn try_send(&self, message: Outgoing) {
        let _ = self.0.try_send(message);
    }
}

impl LinkReceiver {
    /// What comes next. After [`Incoming::Closed`] that is `None`.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }
}

impl Drop for LinkReceiver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
