//! Quinn behind the traits of `h3`.
//!
//! Beside what the traits ask for it tells when a client stops reading a stream ([`Stops`]): `h3`
//! notices that only with the next write, which may be 15 s later. And it refuses the streams that come
//! after GOAWAY ([`Refusing`]) before `h3` sees them: `h3` would take the first of them, and close the
//! connection with the next, so that its client could not know which of the two it was.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures::{Stream, stream::unfold};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use parking_lot::Mutex;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

type Streams<T> = Pin<Box<dyn Stream<Item = Result<T, ConnectionError>> + Send + Sync>>;
/// Resolves once the client stops reading a stream, or the stream is over.
pub(super) type Stopped = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The stop signal of the stream that was accepted last.
#[derive(Clone, Default)]
pub(super) struct Stops(Arc<Mutex<Option<Stopped>>>);

impl Stops {
    /// Takes it.
    pub(super) fn take(&self) -> Option<Stopped> {
        self.0.lock().take()
    }
}

/// From its beginning on, no stream of the client's is taken.
#[derive(Clone, Default)]
pub(super) struct Refusing(Arc<AtomicBool>);

impl Refusing {
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection.
pub(super) struct Backend {
    opener: Opener,
    bidirectional: Streams<(quinn::SendStream, quinn::RecvStream)>,
    unidirectional: Streams<quinn::RecvStream>,
    stops: Stops,
    refusing: Refusing,
}

impl Backend {
    pub(super) fn new(connection: quinn::Connection) -> Self {
        let (bi, uni) = (connection.clone(), connection.clone());
        Self {
            bidirectional: Box::pin(unfold(bi, |c| async { Some((c.accept_bi().await, c)) })),
            unidirectional: Box::pin(unfold(uni, |c| async { Some((c.accept_uni().await, c)) })),
            opener: Opener { connection, opening: None },
            stops: Stops::default(),
            refusing: Refusing::default(),
        }
    }

    pub(super) fn refusing(&self) -> Refusing {
        self.refusing.clone()
    }

    pub(super) fn stops(&self) -> Stops {
        self.stops.clone()
    }
}

/// What a stream that never ends says when it does.
fn no_more() -> ConnectionErrorIncoming {
    ConnectionErrorIncoming::InternalError("no more streams".to_owned())
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

/// Every id of QUIC is one of h3's; the types do not know that.
fn stream_id(id: quinn::StreamId) -> Result<StreamId, ConnectionErrorIncoming> {
    StreamId::try_from(u64::from(id)).map_err(|_| ConnectionErrorIncoming::InternalError("a stream's id".to_owned()))
}

impl<B: Buf> quic::Connection<B> for Backend {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        let accepted = ready!(self.unidirectional.as_mut().poll_next(cx)).ok_or_else(no_more)?;
        Poll::Ready(accepted.map_err(connection_error).and_then(Receiving::new))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both<B>, ConnectionErrorIncoming>> {
        let (send, recv) = loop {
            let accepted = ready!(self.bidirectional.as_mut().poll_next(cx)).ok_or_else(no_more)?;
            let (mut send, mut recv) = accepted.map_err(connection_error)?;
            if !self.refusing.0.load(Ordering::Relaxed) {
                break (send, recv);
            }
            // RFC 9114, section 4.1.1: nothing of it was processed, and the client may send it elsewhere.
            let code = varint(Code::H3_REQUEST_REJECTED.value());
            let _ = recv.stop(code);
            let _ = send.reset(code);
        };
        let stopped = send.stopped();
        *self.stops.0.lock() = Some(Box::pin(async move {
            let _ = stopped.await;
        }));
        Poll::Ready(Ok(Both { send: Sending::new(send)?, recv: Receiving::new(recv)? }))
    }

    fn opener(&self) -> Opener {
        Opener { connection: self.opener.connection.clone(), opening: None }
    }
}

impl<B: Buf> quic::OpenStreams<B> for Backend {
    type BidiStream = Both<B>;
    type SendStream = Sending<B>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both<B>, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending<B>, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.connection.close(varint(code.value()), reason);
    }
}

/// Opens the server's own streams, which are unidirectional.
pub(super) struct Opener {
    connection: quinn::Connection,
    opening: Option<Streams<quinn::SendStream>>,
}

impl<B: Buf> quic::OpenStreams<B> for Opener {
    type BidiStream = Both<B>;
    type SendStream = Sending<B>;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both<B>, StreamErrorIncoming>> {
        // RFC 9114, section 6.1: there are none of the server's.
        let why = "a server opens no bidirectional stream".to_owned();
        let connection_error = ConnectionErrorIncoming::InternalError(why);
        Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending<B>, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self
            .opening
            .get_or_insert_with(|| Box::pin(unfold(connection.clone(), |c| async { Some((c.open_uni().await, c)) })));
        let opened = ready!(opening.as_mut().poll_next(cx)).ok_or_else(no_more);
        let opened = opened.and_then(|opened| opened.map_err(connection_error)).and_then(Sending::new);
        Poll::Ready(opened.map_err(|e| StreamErrorIncoming::ConnectionErrorIncoming { connection_error: e }))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(varint(code.value()), reason);
    }
}

/// Both directions of a request.
pub(super) struct Both<B: Buf> {
    send: Sending<B>,
    recv: Receiving,
}

impl<B: Buf> quic::BidiStream<B> for Both<B> {
    type SendStream = Sending<B>;
    type RecvStream = Receiving;

    fn split(self) -> (Sending<B>, Receiving) {
        (self.send, self.recv)
    }
}

impl<B: Buf> quic::SendStream<B> for Both<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl<B: Buf> quic::RecvStream for Both<B> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

/// The sending direction of a stream.
pub(super) struct Sending<B: Buf> {
    id: StreamId,
    stream: quinn::SendStream,
    writing: Option<WriteBuf<B>>,
}

impl<B: Buf> Sending<B> {
    fn new(stream: quinn::SendStream) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self { id: stream_id(stream.id())?, stream, writing: None })
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

impl<B: Buf> quic::SendStream<B> for Sending<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(write_error)?;
                data.advance(written);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let why = "more data before the last was written".to_owned();
            let connection_error = ConnectionErrorIncoming::InternalError(why);
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, reset_code: u64) {
        let _ = self.stream.reset(varint(reset_code));
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

/// The receiving direction of a stream.
pub(super) struct Receiving {
    id: StreamId,
    stream: quinn::RecvStream,
}

impl Receiving {
    fn new(stream: quinn::RecvStream) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self { id: stream_id(stream.id())?, stream })
    }
}

/// The longest piece that is taken at once.
const PIECE_BYTES: usize = 64 * 1024;

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        // Reading a piece keeps nothing between polls: it may be begun anew with each.
        let read = std::pin::pin!(self.stream.read_chunk(PIECE_BYTES, true));
        Poll::Ready(match ready!(read.poll(cx)) {
            Ok(piece) => Ok(piece.map(|p| p.bytes)),
            Err(ReadError::Reset(code)) => Err(StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }),
            Err(ReadError::ConnectionLost(error)) => Err(lost(error)),
            Err(other) => Err(StreamErrorIncoming::Unknown(Box::new(other))),
        })
    }

    fn stop_sending(&mut self, error_code: u64) {
        let _ = self.stream.stop(varint(error_code));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}
