//! Requests from us to a legacy client, and the answers that it posts.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use provost_mcp::{RawJson, RequestId, RpcError};
use tokio::sync::oneshot;

use crate::seal::random_id;

/// Requests to clients that wait for an answer on one node.
const MAX_WAITING: usize = 16_384;

type Reply = Result<RawJson, RpcError>;

struct Waiting {
    session: Arc<str>,
    sender: oneshot::Sender<Reply>,
}

/// The requests that wait, by our id. Ids are random, and an answer counts only from the session
/// that was asked.
#[derive(Default)]
pub(crate) struct Asks(Mutex<HashMap<String, Waiting>>);

impl Asks {
    /// Registers a request to the client of `session`; `None`: too many wait.
    pub(super) fn open(self: &Arc<Self>, session: &Arc<str>) -> Option<Ask> {
        let text = format!("provost-{:032x}", random_id().ok()?);
        let id = RequestId::from_text(&text);
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.0.lock();
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        waiting.insert(id.as_str().to_owned(), Waiting { session: session.clone(), sender });
        drop(waiting);
        Some(Ask { id, receiver, asks: self.clone() })
    }

    /// Delivers an answer; `false` if nobody waits for it.
    pub(super) fn answer(&self, session: &str, id: &RequestId, reply: Reply) -> bool {
        let mut waiting = self.0.lock();
        if waiting.get(id.as_str()).is_none_or(|w| &*w.session != session) {
            return false;
        }
        let found = waiting.remove(id.as_str());
        drop(waiting);
        found.is_some_and(|w| w.sender.send(reply).is_ok())
    }
}

/// One request that waits; dropping it forgets it.
pub(super) struct Ask {
    pub(super) id: RequestId,
    receiver: oneshot::Receiver<Reply>,
    asks: Arc<Asks>,
}

impl Ask {
    /// The client's answer; `None` if the node gave it up.
    pub(super) async fn answered(&mut self) -> Option<Reply> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.asks.0.lock().remove(self.id.as_str());
    }
}
