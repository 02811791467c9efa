//! What other nodes are told of legacy sessions, and streams that they hold.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use provost_mcp::{LogLevel, RawJson, RequestId, RpcError};
use provost_types::PrincipalRef;
use provost_wire::sibling::{
    ClientAnswer, LevelSet, ReplayRequest, SessionEnded, TellRequest, client_answer::Outcome, tell_request::What,
};
use tokio::sync::mpsc;

use super::{Sibling, Siblings, Tag, convert};

/// One sibling gets so long to take what it is told.
const TELL_LIMIT: Duration = Duration::from_secs(1);
/// The longest wait for a stream of another node to be found.
const REPLAY_LIMIT: Duration = Duration::from_secs(2);
/// Frames of such a stream that wait to be sent.
const RELAYED_FRAMES: usize = 16;

/// Something of a session that may concern any node.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// The client cancels this request.
    Cancelled(RequestId),
    /// From here on it wants log messages.
    Level(PrincipalRef, LogLevel),
    /// It ended the session.
    Ended,
    /// Its user has been where this elicitation sent them.
    Connected(String),
}

impl Told {
    fn to_wire(&self) -> What {
        match self {
            Self::Cancelled(id) => What::Cancelled(id.as_str().to_owned()),
            Self::Level(principal, level) => What::Level(LevelSet {
                tenant: principal.tenant.to_string(),
                principal: principal.name.to_string(),
                level: level.as_str().to_owned(),
            }),
            Self::Ended => What::Ended(SessionEnded {}),
            Self::Connected(elicitation) => What::Connected(elicitation.clone()),
        }
    }
}

/// Whether the node took it.
async fn tell(node: &Sibling, session: &str, told: &Told) -> bool {
    let told = TellRequest { session: session.to_owned(), what: Some(told.to_wire()) };
    match tokio::time::timeout(TELL_LIMIT, node.client().tell(told)).await {
        Ok(Ok(_)) => true,
        Ok(Err(status)) => {
            node.failed(&status);
            false
        }
        Err(_) => {
            tracing::debug!(node = node.name(), "a node did not take what it was told of a session");
            false
        }
    }
}

impl Siblings {
    /// Tells every node that lives; waits a bounded time for all of them. A node that does not hear it
    /// serves the session as if nothing had been said; of the end of one it is told when it is there again.
    pub(crate) async fn tell_all(&self, session: &str, told: &Told) {
        let nodes = self.nodes.load_full();
        let is_end = matches!(told, Told::Ended);
        join_all(nodes.iter().map(|node| async move {
            let has_heard = node.is_alive() && tell(node, session, told).await;
            if is_end && !has_heard {
                self.unheard.note(node.name(), session, Instant::now());
            }
        }))
        .await;
    }

    /// Tells nodes that are there again which sessions ended meanwhile. What a node does not take in a bounded time
    /// waits for the next round: greetings must not wait for it.
    pub(super) async fn tell_what_was_missed(&self) {
        join_all(self.alive().iter().map(|node| async move {
            let began = Instant::now();
            let mut missed = self.unheard.take(node.name(), began).into_iter();
            let mut has_heard = true;
            while has_heard && began.elapsed() < TELL_LIMIT {
                let Some(session) = missed.next() else { return };
                has_heard = tell(node, &session, &Told::Ended).await;
                if !has_heard {
                    self.unheard.note(node.name(), &session, began);
                }
            }
            missed.for_each(|session| self.unheard.note(node.name(), &session, began));
        }))
        .await;
    }

    /// Takes a client's answer to the process that asked; whether somebody waited for it.
    pub(crate) async fn answer(
        &self,
        asked_by: Tag,
        session: &str,
        id: &RequestId,
        outcome: &Result<RawJson, RpcError>,
    ) -> bool {
        let Some(node) = self.find(asked_by).await else { return false };
        let outcome = match outcome {
            Ok(result) => Outcome::Result(result.bytes()),
            Err(error) => Outcome::Failure(convert::failure(error)),
        };
        let answer = ClientAnswer { id: id.as_str().to_owned(), outcome: Some(outcome) };
        let told = TellRequest { session: session.to_owned(), what: Some(What::Answer(answer)) };
        match tokio::time::timeout(TELL_LIMIT, node.client().tell(told)).await {
            Ok(Ok(heard)) => heard.into_inner().known,
            Ok(Err(status)) => {
                node.failed(&status);
                false
            }
            Err(_) => false,
        }
    }

    /// What a stream that another process holds says after an event; `None`: it is not there any more.
    pub(crate) async fn replay(
        self: &Arc<Self>,
        held_by: Tag,
        session: &str,
        stream: u64,
        after: u64,
    ) -> Option<mpsc::Receiver<Bytes>> {
        let node = self.find(held_by).await?;
        let request = ReplayRequest { session: session.to_owned(), stream, after };
        let mut client = node.client();
        let mut events = match tokio::time::timeout(REPLAY_LIMIT, client.replay(request)).await {
            Ok(Ok(events)) => events.into_inner(),
            Ok(Err(status)) => {
                node.failed(&status);
                return None;
            }
            Err(_) => return None,
        };
        let (frames, relayed) = mpsc::channel(RELAYED_FRAMES);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.message() => event,
                    // The client is gone: so is the reader there, with this stream.
                    () = frames.closed() => return,
                };
                let Ok(Some(event)) = event else { return };
                if frames.send(event.frame).await.is_err() {
                    return;
                }
            }
        });
        Some(relayed)
    }
}
