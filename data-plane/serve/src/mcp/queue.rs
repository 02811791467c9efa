//! What waits to be sent on one socket, or on one stream of QUIC, in order.
//!
//! Calls write and never wait; the writer takes. Notifications have a bound, beyond which the
//! queue is closed: to leave some out without a word would be worse. Answers are bounded by the
//! calls in flight and by reading: while much is queued, nothing is read, so no new calls begin.
//! `C` is how the transport ends.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// One frame to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing<C> {
    /// A JSON-RPC message.
    Text { message: Bytes, is_notification: bool },
    /// A keep-alive.
    Ping,
    /// The last frame.
    Close(C),
}

struct State<C> {
    frames: VecDeque<Outgoing<C>>,
    bytes: usize,
    notifications: usize,
    notification_bytes: usize,
    closed: bool,
}

impl<C> Default for State<C> {
    fn default() -> Self {
        Self { frames: VecDeque::new(), bytes: 0, notifications: 0, notification_bytes: 0, closed: false }
    }
}

/// What may be queued.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueBounds {
    /// Of notifications before the client is let go; of anything before nothing more is read.
    pub(super) max_bytes: usize,
    pub(super) max_notifications: usize,
}

/// See the module.
pub(super) struct SendQueue<C> {
    state: Mutex<State<C>>,
    bounds: QueueBounds,
    /// The end for a client that does not read.
    slow_reader: C,
    filled: Notify,
    emptied: Notify,
    ended: Notify,
}

impl<C: Copy + PartialEq> SendQueue<C> {
    pub(super) fn new(bounds: QueueBounds, slow_reader: C) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            bounds,
            slow_reader,
            filled: Notify::new(),
            emptied: Notify::new(),
            ended: Notify::new(),
        })
    }

    /// Queues a notification, or a request of ours.
    pub(super) fn notify(&self, message: &Bytes) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        // Beside the newest: one that is larger than the bound still goes to a client that reads.
        if state.notification_bytes > self.bounds.max_bytes || state.notifications >= self.bounds.max_notifications {
            // What the client has not read by now it will not read in time either.
            *state = State::default();
            drop(state);
            self.close(self.slow_reader);
            return;
        }
        state.notifications += 1;
        state.notification_bytes += message.len();
        state.bytes += message.len();
        state.frames.push_back(Outgoing::Text { message: message.clone(), is_notification: true });
        drop(state);
        self.filled.notify_one();
    }

    /// Queues an answer.
    pub(super) fn answer(&self, message: Bytes) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.bytes += message.len();
        state.frames.push_back(Outgoing::Text { message, is_notification: false });
        drop(state);
        self.filled.notify_one();
    }

    /// Queues a keep-alive.
    pub(super) fn ping(&self) {
        let mut state = self.state.lock();
        // One that has not left yet does for both.
        if !state.closed && !state.frames.contains(&Outgoing::Ping) {
            state.frames.push_back(Outgoing::Ping);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Ends the queue: what is in it goes out, then the close frame. The first reason counts.
    pub(super) fn close(&self, closing: C) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        state.frames.push_back(Outgoing::Close(closing));
        drop(state);
        self.filled.notify_one();
        self.ended.notify_one();
    }

    /// Resolves once the queue was closed. For one waiter.
    pub(super) async fn closed(&self) {
        loop {
            if self.state.lock().closed {
                return;
            }
            self.ended.notified().await;
        }
    }

    /// Whether so much is queued that nothing should be read.
    pub(super) fn is_full(&self) -> bool {
        self.state.lock().bytes > self.bounds.max_bytes
    }

    /// Resolves once there is room. For one waiter.
    pub(super) async fn room(&self) {
        while self.is_full() {
            self.emptied.notified().await;
        }
    }

    /// The next frame, if there is one now.
    pub(super) fn try_next(&self) -> Option<Outgoing<C>> {
        let mut state = self.state.lock();
        let next = state.frames.pop_front()?;
        if let Outgoing::Text { message, is_notification } = &next {
            state.bytes -= message.len();
            if *is_notification {
                state.notifications -= 1;
                state.notification_bytes -= message.len();
            }
        }
        drop(state);
        self.emptied.notify_one();
        Some(next)
    }

    /// The next frame. For one waiter.
    pub(super) async fn next(&self) -> Outgoing<C> {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Closing {
        SlowReader,
        Draining,
        Other,
    }

    fn queue() -> Arc<SendQueue<Closing>> {
        SendQueue::new(QueueBounds { max_bytes: 100, max_notifications: 3 }, Closing::SlowReader)
    }

    fn drain(queue: &SendQueue<Closing>) -> Vec<Outgoing<Closing>> {
        std::iter::from_fn(|| queue.try_next()).collect()
    }

    #[test]
    fn notifications_beyond_the_bound_end_the_socket_and_answers_do_not() {
        for (sizes, expect_closed) in [
            (vec![1, 1, 1], false),
            (vec![1, 1, 1, 1], true),
            // Beside the newest.
            (vec![1_000], false),
            (vec![101, 1], true),
            (vec![100, 1], false),
        ] {
            let queue = queue();
            for size in &sizes {
                queue.notify(&Bytes::from(vec![b'x'; *size]));
            }
            let out = drain(&queue);
            assert_eq!(out == [Outgoing::Close(Closing::SlowReader)], expect_closed, "{sizes:?}: {out:?}");
        }
        let queue = queue();
        for _ in 0..10 {
            queue.answer(Bytes::from_static(&[b'x'; 100]));
        }
        assert!(queue.is_full());
        assert_eq!(drain(&queue).len(), 10);
        assert!(!queue.is_full());
    }

    #[test]
    fn what_was_queued_goes_out_before_the_close_frame_and_nothing_after_it() {
        let queue = queue();
        queue.answer(Bytes::from_static(b"1"));
        queue.ping();
        queue.ping();
        queue.close(Closing::Draining);
        queue.close(Closing::Other);
        queue.answer(Bytes::from_static(b"2"));
        queue.notify(&Bytes::from_static(b"3"));
        queue.ping();
        let first = Outgoing::Text { message: Bytes::from_static(b"1"), is_notification: false };
        assert_eq!(drain(&queue), [first, Outgoing::Ping, Outgoing::Close(Closing::Draining)]);
    }
}
