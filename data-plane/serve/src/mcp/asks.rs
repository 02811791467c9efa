//! Requests from us to a legacy client, and the answers that it posts.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use provost_mcp::{RawJson, RequestId, RpcError};
use tokio::sync::oneshot;

use crate::{seal::random_id, siblings::Tag};

/// Requests to clients that wait for an answer on one node.
const MAX_WAITING: usize = 16_384;

type Reply = Result<RawJson, RpcError>;

struct Waiting {
    session: Arc<str>,
    sender: oneshot::Sender<Reply>,
}

/// The requests that wait, by our id. Ids are random, and an answer counts only from the session
/// that was asked.
pub(crate) struct Asks {
    /// In every id, so that an answer that reaches another node finds its way.
    tag: Tag,
    waiting: Mutex<HashMap<String, Waiting>>,
}

/// Which process sent the request of this id to a client.
pub(super) fn asked_by(id: &RequestId) -> Option<Tag> {
    let text = id.as_str().strip_prefix("\"provost-")?;
    Tag::parse(text.split_once('-')?.0)
}

impl Asks {
    pub(crate) fn new(tag: Tag) -> Self {
        Self { tag, waiting: Mutex::default() }
    }

    /// Registers a request to the client of `session`; `None`: too many wait.
    pub(super) fn open(self: &Arc<Self>, session: &Arc<str>) -> Option<Ask> {
        let text = format!("provost-{}-{:032x}", self.tag, random_id().ok()?);
        let id = RequestId::from_text(&text);
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        waiting.insert(id.as_str().to_owned(), Waiting { session: session.clone(), sender });
        drop(waiting);
        Some(Ask { id, receiver, asks: self.clone() })
    }

    /// Delivers an answer; `false` if nobody waits for it.
    pub(super) fn answer(&self, session: &str, id: &RequestId, reply: Reply) -> bool {
        let mut waiting = self.waiting.lock();
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
        self.asks.waiting.lock().remove(self.id.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_the_process_that_asked() {
        let asks = Arc::new(Asks::new(Tag::random()));
        let ask = asks.open(&"s".into());
        assert_eq!(ask.and_then(|ask| asked_by(&ask.id)), Some(asks.tag));
        for foreign in ["provost", "provost-", "provost-1", "provost-0123-0", "1"] {
            assert_eq!(asked_by(&RequestId::from_text(foreign)), None, "{foreign}");
        }
    }
}
