//! What comes from the server: answers, notifications, and requests of its own.

use std::sync::Arc;

use provost_mcp::{Envelope, JsonLimits, RpcError};
use tokio::{sync::Semaphore, task::JoinSet};

use super::Handler;
use crate::{Incoming, LinkError, LinkReceiver, LinkSender, Outgoing, pending::Pending};

/// Requests of the server that are served at once.
const MAX_SERVED: usize = 16;

/// Reads to the end, which fails what still waits.
pub(super) async fn read(mut link: LinkReceiver, sender: LinkSender, pending: Arc<Pending>, handler: Arc<dyn Handler>) {
    let room = Arc::new(Semaphore::new(MAX_SERVED));
    let mut served = JoinSet::new();
    let mut end = LinkError::Lost("it was closed".to_owned());
    while let Some(incoming) = link.next().await {
        while served.try_join_next().is_some() {}
        let bytes = match incoming {
            Incoming::Message(bytes) => bytes,
            Incoming::Failed { id, error } => {
                pending.fail(&id, error);
                continue;
            }
            Incoming::Closed(error) => {
                end = error;
                break;
            }
        };
        match Envelope::parse(bytes, &JsonLimits::RESPONSE) {
            Ok(Envelope::Response { id: Some(id), outcome }) => pending.answer(&id, outcome),
            Ok(Envelope::Response { id: None, outcome }) => {
                tracing::warn!(?outcome, "the server could not read a message");
            }
            Ok(Envelope::Notification { method, params }) => handler.notification(&method, params.as_ref()),
            Ok(Envelope::Request { id, method, params }) => {
                let Ok(permit) = room.clone().try_acquire_owned() else {
                    let error = RpcError::new(RpcError::INTERNAL, "too many requests at once");
                    sender.try_send(Outgoing::response(&id, Err(error)));
                    continue;
                };
                let (sender, answer) = (sender.clone(), handler.request(method, params));
                served.spawn(async move {
                    let outcome = answer.await;
                    let _ = sender.send(Outgoing::response(&id, outcome)).await;
                    drop(permit);
                });
            }
            Err(fault) => tracing::warn!(%fault, "the server sent what is no message"),
        }
    }
    pending.end(&end);
}
