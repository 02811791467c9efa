//! What other nodes are told of legacy sessions, and streams that they hold.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use provost_mcp::{LogLevel, RawJson, RequestId, RpcError};
use provost_types::PrincipalRef;
use provost_wire::sibling::{
    ClientAnswer, LevelSet, ReplayRequest, SessionEnded, TellRequest, client_answer::Outcome, tell_request::What,
};
use tokio::sync::mpsc;

use super::{Siblings, Tag, convert};

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

impl Siblings {
    /// Tells every node that lives; waits a bounded time for all of them. A node that does not hear it
    /// serves the session as if nothing had been said.
    pub(crate) async fn tell_all(&self, session: &str, told: &Told) {
        let told = TellRequest { session: session.to_owned(), what: Some(told.to_wire()) };
        join_all(self.alive().into_iter().map(|node| {
            let told = told.clone();
            async move {
                match tokio::time::timeout(TELL_LIMIT, node.client().tell(told)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(status)) => node.failed(&status),
                    Err(_) => tracing::debug!(node = node.name(), "a node did not take what it was told of a session"),
                }
            }
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
