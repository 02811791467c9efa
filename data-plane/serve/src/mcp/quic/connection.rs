//! One connection from its handshake to its end.
//!
//! One task takes streams; each stream has a task of its own, and so has each call. Past the end
//! the calls run on to their records, cancelled, and their answers go nowhere.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::header::AUTHORIZATION;
use provost_data_pipeline::Plane;
use quinn::ZeroRttAccepted;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ending::Closing, head::Head, limits::QuicLimits, lines::LineBounds};
use crate::{
    Frontend, Peer,
    certificate::facts_of_quic,
    frontend::Inbound,
    mcp::{connected::Connected, queue::QueueBounds},
    quic::Credit,
    seal::SealFailed,
};

/// Between the last acknowledgement of an answer and the end of a draining connection.
const READING: Duration = Duration::from_millis(200);

/// The transport, as it stands in the record.
const TRANSPORT: &str = "quic";

/// See the module.
pub(crate) struct Connection<P> {
    pub(super) front: Arc<Frontend<P>>,
    pub(super) limits: QuicLimits,
    /// The legacy session, after `initialize`.
    pub(super) connected: Connected<P>,
    /// Parent of every call's cancellation.
    pub(super) gone: CancellationToken,
    /// Cancelled once the handshake is complete: what came before can be a replay.
    pub(super) confirmed: CancellationToken,
    connection: quinn::Connection,
    /// Clients may show certificates.
    takes_certificates: bool,
    /// The name under which the client addressed the node.
    authority: String,
    streams: TaskTracker,
    /// The end of a stream was not seen to arrive: its client may not know that its call was executed.
    pub(super) is_in_doubt: AtomicBool,
    large_lines: Semaphore,
}

impl<P: Plane + 'static> Connection<P> {
    pub(crate) fn new(
        front: Arc<Frontend<P>>,
        connection: quinn::Connection,
        authority: String,
        takes_certificates: bool,
    ) -> Arc<Self> {
        let limits = front.config.quic;
        Arc::new(Self {
            connected: Connected::new(front.clone(), "PV-QUIC-SESSION-OPEN"),
            gone: CancellationToken::new(),
            confirmed: CancellationToken::new(),
            streams: TaskTracker::new(),
            is_in_doubt: AtomicBool::new(false),
            large_lines: Semaphore::new(limits.max_large_lines),
            limits,
            front,
            connection,
            takes_certificates,
            authority,
        })
    }

    /// Cancelled once the handshake is complete.
    pub(crate) fn confirmed(&self) -> CancellationToken {
        self.confirmed.clone()
    }

    /// Waits until every stream has ended and its client has had time to read what it acknowledged: not every
    /// implementation of QUIC hands over what it holds when the connection closes.
    async fn answers_read(&self) {
        self.streams.wait().await;
        tokio::time::sleep(READING).await;
    }

    /// Serves streams to the end of the connection.
    pub(crate) async fn run(self: Arc<Self>, handshake: ZeroRttAccepted) {
        let _gone = self.gone.clone().drop_guard();
        let began = Instant::now();
        let mut handshake = pin!(handshake);
        let mut is_draining = false;
        let mut used = began;
        let mut credit = Credit::new(&self.limits);
        loop {
            let is_confirmed = self.confirmed.is_cancelled();
            tokio::select! {
                accepted = self.connection.accept_bi() => {
                    let Ok((send, recv)) = accepted else { return };
                    used = Instant::now();
                    self.streams.spawn(self.clone().serve(send, recv));
                    credit.used(self.streams.len(), &self.connection);
                }
                opened = self.connection.accept_uni() => {
                    if opened.is_ok() {
                        Closing::Protocol.close(&self.connection);
                    }
                    return;
                }
                _ = &mut handshake, if !is_confirmed => self.confirmed.cancel(),
                () = sleep_until(began + self.limits.handshake), if !is_confirmed => {
                    return Closing::Handshake.close(&self.connection);
                }
                () = self.front.draining.cancelled(), if !is_draining => {
                    // Calls in flight may end, subscriptions do so by themselves, and no new ones begin.
                    is_draining = true;
                    self.streams.close();
                }
                () = self.answers_read(), if is_draining => {
                    let closing = match self.is_in_doubt.load(Ordering::Relaxed) {
                        false => Closing::Draining,
                        true => Closing::Doubt,
                    };
                    return closing.close(&self.connection);
                }
                () = sleep_until(used + self.limits.idle) => {
                    if self.streams.is_empty() {
                        return Closing::Idle(self.limits.idle).close(&self.connection);
                    }
                    used = Instant::now();
                }
            }
        }
    }

    /// Waits for what authenticates the caller of a stream: without a token that may be the certificate, which
    /// counts once the handshake is complete.
    pub(super) async fn until_authenticated(&self, head: &Head) {
        if self.takes_certificates && !head.headers.contains_key(AUTHORIZATION) {
            self.confirmed.cancelled().await;
        }
    }

    /// What is known of a stream once its head was read.
    pub(super) fn inbound(&self, head: Head) -> Result<Inbound, SealFailed> {
        // The address of this moment: a client may move.
        let address = Some(self.connection.remote_address());
        // Early data can be a replay: nobody is authenticated by it.
        let certificate = self.confirmed.is_cancelled().then(|| facts_of_quic(&self.connection)).flatten();
        let peer = Peer { address, transport: TRANSPORT, is_secure: true, certificate };
        let base_url = self.front.base_url(&self.authority, &peer);
        let inbound = self.front.inbound(head.headers, base_url, head.path, head.route, peer)?;
        Ok(inbound.into_socket())
    }

    pub(super) fn line_bounds(&self) -> LineBounds<'_> {
        LineBounds {
            small_bytes: self.limits.small_line_bytes,
            large: &self.large_lines,
            patience: self.limits.opening,
        }
    }

    pub(super) fn queue_bounds(&self) -> QueueBounds {
        QueueBounds { max_bytes: self.limits.max_queued_bytes, max_notifications: self.limits.max_queued_notifications }
    }
}
