//! The down side of one stream: states as they come, bookmarks in between.
//!
//! It is polled only when the transport has room, so a slow node holds nothing but its place. What
//! it has missed by then is taken from the ring, or as a whole state when the ring has moved on.

use std::sync::Arc;

use futures::{Stream, stream};
use provost_wire::node::{self, PushDown};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Interval, MissedTickBehavior, interval},
};
use tonic::Status;

use super::{
    BOOKMARK_EVERY,
    batch::{Batch, Point},
    hub::Inner,
    messages::bookmark,
    subscriber::{End, Subscription},
};

/// One stream's place.
pub(crate) struct Down {
    hub: Arc<Inner>,
    subscription: Arc<Subscription>,
    /// Reads what the node says; ends with this.
    reader: AbortHandle,
    /// What the node has; `None`: nothing that is known here.
    at: Option<Point>,
    /// Being sent, and which part is next.
    sending: Option<(Arc<Batch>, usize)>,
    /// Up to which revision a node goes back to what is being sent.
    back_from: Option<u64>,
    woken: watch::Receiver<u64>,
    ended: watch::Receiver<Option<End>>,
    bookmarks: Interval,
    finished: bool,
}

impl Down {
    pub(crate) fn new(
        hub: Arc<Inner>,
        subscription: Arc<Subscription>,
        at: Option<Point>,
        reader: AbortHandle,
    ) -> Self {
        let (woken, ended) = (hub.woken.subscribe(), subscription.ended());
        let mut bookmarks = interval(BOOKMARK_EVERY);
        // A node that reads late needs one bookmark, not all that it missed.
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (sending, back_from) = (None, None);
        Self { hub, subscription, reader, at, sending, back_from, woken, ended, bookmarks, finished: false }
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<PushDown, Status>> + Send {
        stream::unfold(self, |mut down| async move { Some((Ok(down.next().await?), down)) })
    }

    async fn next(&mut self) -> Option<PushDown> {
        loop {
            if self.finished {
                return None;
            }
            let ended = self.ended.borrow_and_update().clone();
            if let Some(end) = ended {
                self.finished = true;
                return match end {
                    End::Left => None,
                    End::Refused(refusal) => Some(refusal.message()),
                };
            }
            if let Some(part) = self.next_part() {
                return Some(part);
            }
            // Marked as seen before looking: what comes after the look wakes again.
            self.woken.mark_unchanged();
            let place = self.hub.place(&self.subscription);
            if let Some(batch) = place.track.next(self.at.as_ref(), place.back) {
                self.sending = Some((batch, 0));
                self.back_from = place.back;
                continue;
            }
            tokio::select! {
                // The ends of both channels are in `hub` and `subscription`: they are open.
                _ = self.ended.changed() => {}
                _ = self.woken.changed() => {}
                _ = self.bookmarks.tick() => {
                    return Some(bookmark(place.track.head_revision(), (self.hub.confirmed_ns)()));
                }
            }
        }
    }

    fn next_part(&mut self) -> Option<PushDown> {
        let (batch, index) = self.sending.as_mut()?;
        let mut part = batch.parts.get(*index).cloned();
        if let (Some(PushDown { down: Some(node::push_down::Down::Whole(whole)) }), Some(back)) =
            (&mut part, self.back_from)
        {
            whole.back_from = back;
        }
        *index += 1;
        if *index >= batch.parts.len() {
            let to = batch.to.clone();
            self.subscription.sent(to.revision);
            self.at = Some(to);
            self.sending = None;
        }
        part
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        self.reader.abort();
        self.hub.registry.remove(&self.subscription);
    }
}
