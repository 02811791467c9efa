//! One socket from its upgrade to its end.
//!
//! One task reads and writes; each call has a task of its own. Past the end the calls run on to
//! their records, cancelled, and their answers go nowhere.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
};

use futures::{Stream, StreamExt};
use provost_data_pipeline::Plane;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, error::ProtocolError},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    call::{InFlight, SendQueue},
    closing::Closing,
    limits::SocketLimits,
    writer::write,
};
use crate::{
    Frontend,
    frontend::Inbound,
    mcp::{connected::Connected, queue::QueueBounds},
};

/// How reading ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// This node closes; the client's frames can still be read.
    Closing,
    /// This node closes; what comes from the client cannot be read as frames any more.
    Unreadable,
    /// The client closes.
    Closed,
    /// The connection broke.
    Gone,
}

/// See the module.
pub(super) struct Connection<P> {
    pub(super) front: Arc<Frontend<P>>,
    /// What the upgrade said; each message gets a call of its own.
    pub(super) inbound: Inbound,
    pub(super) queue: Arc<SendQueue>,
    pub(super) in_flight: Arc<InFlight>,
    /// The legacy session, after `initialize`.
    pub(super) connected: Connected<P>,
    /// What concerns no single call of that session, after `notifications/initialized`.
    pub(super) listener: OnceLock<CancellationToken>,
    /// Parent of every call's cancellation.
    pub(super) gone: CancellationToken,
    /// Cancels it however this ends.
    _gone: DropGuard,
    pub(super) is_draining: bool,
    limits: SocketLimits,
    /// The last whole frame of the client's.
    heard: Instant,
    /// The last message of the client's, or the last look that saw a call in flight.
    used: Instant,
}

impl<P: Plane + 'static> Connection<P> {
    pub(super) fn new(front: Arc<Frontend<P>>, inbound: Inbound) -> Self {
        let limits = front.config.sockets;
        let gone = CancellationToken::new();
        let bounds =
            QueueBounds { max_bytes: limits.max_queued_bytes, max_notifications: limits.max_queued_notifications };
        Self {
            queue: SendQueue::new(bounds, Closing::SlowReader),
            in_flight: InFlight::new(limits.max_in_flight),
            connected: Connected::new(front.clone(), "PV-WS-SESSION-OPEN"),
            listener: OnceLock::new(),
            _gone: gone.clone().drop_guard(),
            gone,
            is_draining: false,
            limits,
            heard: Instant::now(),
            used: Instant::now(),
            front,
            inbound,
        }
    }

    /// Serves the socket to its end.
    pub(super) async fn run<S>(mut self, stream: WebSocketStream<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, mut frames) = stream.split();
        let (queue, limits) = (self.queue.clone(), self.limits);
        let mut writer = pin!(write(sink, &queue, limits.write_stall));
        let end = tokio::select! {
            end = self.read(&mut frames) => end,
            // The close frame has left, or the client does not read.
            sink = &mut writer => {
                self.gone.cancel();
                if sink.is_some() {
                    let _ = timeout(limits.close_wait, closed_by_peer(&mut frames)).await;
                }
                return;
            }
        };
        self.gone.cancel();
        match end {
            End::Gone => {}
            End::Closed => {
                let _ = timeout(limits.close_wait, closed_by_peer(&mut frames)).await;
            }
            End::Closing | End::Unreadable => {
                let Ok(Some(sink)) = timeout(limits.close_wait, writer).await else { return };
                if end == End::Closing {
                    let _ = timeout(limits.close_wait, closed_by_peer(&mut frames)).await;
                } else if let Ok(stream) = sink.reunite(frames) {
                    let _ = timeout(limits.close_wait, discard(stream.into_inner())).await;
                }
            }
        }
    }

    async fn read<F>(&mut self, frames: &mut F) -> End
    where
        F: Stream<Item = Result<Message, Error>> + Unpin,
    {
        let (front, queue, in_flight) = (self.front.clone(), self.queue.clone(), self.in_flight.clone());
        let caller = self.inbound.clone();
        let mut expired = pin!(front.until_streams_end(&caller));
        let mut ticks = interval_at(Instant::now() + self.limits.ping_every, self.limits.ping_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = queue.closed() => return End::Closing,
                () = &mut expired, if !self.is_draining => {
                    if let Some(end) = self.expire() {
                        return end;
                    }
                }
                () = in_flight.none(), if self.is_draining => queue.close(Closing::Draining),
                _ = ticks.tick() => self.tick(),
                frame = next(&queue, frames) => {
                    self.heard = Instant::now();
                    if let Some(end) = self.frame(frame) {
                        return end;
                    }
                }
            }
        }
    }

    /// The node shuts down, or the caller is not the caller any more.
    fn expire(&mut self) -> Option<End> {
        if !self.front.draining.is_cancelled() {
            self.queue.close(Closing::Credential);
            return Some(End::Closing);
        }
        // Calls in flight may end, subscriptions do so by themselves, and no new ones begin.
        self.is_draining = true;
        if let Some(listener) = self.listener.get() {
            listener.cancel();
        }
        None
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.queue.is_full() {
            // It is this node that does not read; the writer's bound holds.
            self.heard = now;
        }
        if !self.in_flight.is_empty() {
            self.used = now;
        }
        if now - self.heard >= self.limits.silence {
            self.queue.close(Closing::Silent(self.limits.silence));
        } else if now - self.used >= self.limits.idle {
            self.queue.close(Closing::Idle(self.limits.idle));
        } else {
            self.queue.ping();
        }
    }

    fn frame(&mut self, frame: Option<Result<Message, Error>>) -> Option<End> {
        let closing = match frame {
            Some(Ok(Message::Text(text))) => {
                self.used = Instant::now();
                self.message(text.into());
                return None;
            }
            // Pings are answered by the library.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return None,
            Some(Ok(Message::Close(_))) => return Some(End::Closed),
            Some(Ok(Message::Binary(_))) => {
                self.queue.close(Closing::Binary);
                return Some(End::Closing);
            }
            Some(Err(Error::Capacity(_))) => Closing::TooLarge(self.front.config.max_body_bytes),
            Some(Err(Error::Utf8(_))) => Closing::Utf8,
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => return Some(End::Gone),
            Some(Err(Error::Protocol(_) | Error::AttackAttempt)) => Closing::Protocol,
            None | Some(Err(_)) => return Some(End::Gone),
        };
        self.queue.close(closing);
        Some(End::Unreadable)
    }
}

/// The next frame of a client who reads what is sent.
async fn next<F>(queue: &SendQueue, frames: &mut F) -> Option<F::Item>
where
    F: Stream + Unpin,
{
    queue.room().await;
    frames.next().await
}

/// Reads until the client has answered the close frame, or has closed.
async fn closed_by_peer<F>(frames: &mut F)
where
    F: Stream<Item = Result<Message, Error>> + Unpin,
{
    while let Some(Ok(_)) = frames.next().await {}
}

/// Ends the sending side and reads what the client still sends: a connection that is dropped with
/// bytes unread is reset, and the client might not see why it was closed.
async fn discard<S>(mut io: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut waste = [0u8; 4096];
    let _ = io.shutdown().await;
    while io.read(&mut waste).await.is_ok_and(|n| n > 0) {}
}
