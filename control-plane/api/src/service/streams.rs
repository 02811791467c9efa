//! Answers that go on: watches and backups. Each ends when the server stops.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use provost_types::Revision;
use provost_wire::admin::{self as wire, watch_response::Event};
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Status};

use super::{Service, convert};
use crate::{Caller, ControlError, WatchEvent, WatchedChange, watch};

/// Text in one message of the present state; a resource of its own is never divided.
const INITIAL_BYTES: usize = 1 << 20;

/// What a streaming call answers with.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// Cuts a stream off when the server stops.
    fn until_stopped<T: 'static>(&self, answers: impl Stream<Item = Result<T, Status>> + Send + 'static) -> Answers<T> {
        let mut stopped = self.stopped.clone();
        Box::pin(answers.take_until(async move { while stopped.changed().await.is_ok() {} }))
    }

    pub(super) fn revisions(&self) -> Answers<wire::WatchRevisionResponse> {
        let revisions = WatchStream::new(self.node.snapshots());
        self.until_stopped(revisions.map(|s| Ok(wire::WatchRevisionResponse { revision: s.revision.0 })))
    }

    pub(super) async fn changes(
        &self,
        caller: &Caller,
        wanted: wire::WatchRequest,
    ) -> Result<Answers<wire::WatchResponse>, Status> {
        let filter = convert::filter(&wanted.kind, &wanted.tenant, &wanted.name)?;
        let events = self.node.watch(caller, filter, Revision(wanted.from_revision)).await.map_err(watch_status)?;
        let answers = events.flat_map(|event| {
            let messages = match event {
                Ok(WatchEvent::Bookmark(revision)) => {
                    vec![Ok(message(Event::Bookmark(wire::WatchBookmark { revision: revision.0 })))]
                }
                Ok(WatchEvent::Change(change)) => {
                    changed(&change).into_iter().map(|c| Ok(message(Event::Change(c)))).collect()
                }
                Err(error) => vec![Err(watch_status(error))],
            };
            stream::iter(messages)
        });
        Ok(self.until_stopped(answers))
    }

    pub(super) async fn backup_parts(&self, caller: &Caller) -> Result<Answers<wire::BackupPart>, Status> {
        let parts = self.node.backup(caller).await?;
        Ok(self.until_stopped(parts.map(|part| part.map(|data| wire::BackupPart { data }).map_err(Status::from))))
    }
}

fn message(event: Event) -> wire::WatchResponse {
    wire::WatchResponse { event: Some(event) }
}

/// One message a revision; the present state, which may be of any size, in several.
fn changed(change: &WatchedChange) -> Vec<wire::WatchChange> {
    let empty = || wire::WatchChange { revision: change.revision.0, initial: change.initial, ..Default::default() };
    let mut messages = vec![empty()];
    let mut bytes = 0;
    for view in change.puts.iter().map(|r| convert::view(r)) {
        let size = view.json.len() + view.yaml.len();
        if change.initial && bytes > 0 && bytes + size > INITIAL_BYTES {
            messages.push(empty());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = messages.last_mut() {
            last.puts.push(view);
        }
    }
    if let Some(last) = messages.last_mut() {
        last.deletes = change.deletes.iter().map(|k| k.to_string()).collect();
    }
    messages
}

/// A place in the history that is gone has a gRPC code of its own, so that clients begin anew.
fn watch_status(error: ControlError) -> Status {
    match error.code() {
        watch::COMPACTED | watch::SLOW => error.failure.into_status(Code::OutOfRange),
        _ => error.into(),
    }
}
