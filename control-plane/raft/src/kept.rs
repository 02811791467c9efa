//! A write that keeps its place to its end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use crate::{GroupError, Proposed, admission::Place};

/// What became of the write.
type Outcome = Result<Proposed, GroupError>;

/// A write and its place, which is taken until the write has ended even if whoever waits goes away: callers that
/// give up and ask again would otherwise fill the log of a leader that cannot commit.
pub(crate) struct Kept(Option<(BoxFuture<'static, Outcome>, Arc<Place>)>);

impl Kept {
    pub(crate) fn new(write: impl Future<Output = Outcome> + Send + 'static, place: Arc<Place>) -> Self {
        Self(Some((Box::pin(write), place)))
    }
}

impl Future for Kept {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        // Nobody asks again after the end.
        let Some((write, _)) = &mut self.0 else { return Poll::Ready(Err(GroupError::OutcomeUnknown)) };
        let outcome = ready!(write.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Where no runtime is left, nothing is taken any more.
        if let (Some((write, place)), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                // Nobody is left to be told.
                let _ = write.await;
                drop(place);
            });
        }
    }
}
