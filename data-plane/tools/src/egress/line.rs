//! Connections over plain HTTP/1.1 to one place, each driven by the request that it carries.
//!
//! Purpose: an upstream on this machine is asked often and answers soon. A client that keeps a task for each connection
//! pays for two changes of task a call, and for building the same request anew; here the task that waits for the
//! answer is the one that reads it, and what stays the same is made once.
//! Invariants: only addresses that the rule lets through are connected to, as for every request; a connection carries one
//! request at a time, and is used again only when its answer was read to the end; who drops a request or its answer
//! closes the connection, which tells the other side; a request is sent a second time only if nothing of it was sent.
//! Left out: TLS and HTTP/2 ([`super::EgressClient::request`]).

use std::{
    error::Error,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::{future::BoxFuture, task::AtomicWaker};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{net::TcpStream, task::coop::unconstrained, time::Instant};
use url::{Host, Position, Url};

use super::{
    AddressRefused, CheckedUrl, EgressRule, Lookup,
    client::{DIAL_TIMEOUT, MAX_IDLE_CONNECTIONS},
};

/// A connection that nobody used for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Between two looks for connections that are idle for too long, or were closed by the other side.
const SWEEP_PERIOD: Duration = Duration::from_secs(30);

/// Why a request on a line has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineFault {
    /// The name resolves to an address that may not be reached: nothing was sent.
    #[error(transparent)]
    Refused(#[from] AddressRefused),
    /// There is no connection: nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended before the answer did: the request may have been executed.
    #[error("{0}")]
    Broken(String),
}

/// One place that is reached over plain HTTP/1.1.
pub(crate) struct Line {
    host: Host<String>,
    port: u16,
    /// Path and query: as they stand in a request's first line. May hold a secret.
    target: Uri,
    /// The `Host` of requests that have none.
    authority: HeaderValue,
    rule: Arc<EgressRule>,
    lookup: Arc<dyn Lookup>,
    idle: Mutex<Idle>,
}

/// Connections that wait for a request; the one that was used last comes last.
#[derive(Default)]
struct Idle {
    wires: Vec<(Wire, Instant)>,
    is_swept: bool,
}

impl Line {
    /// To where this leads; `None`: it is no plain HTTP, or has a path that a request cannot carry as it is.
    pub(super) fn new(url: &CheckedUrl, rule: &Arc<EgressRule>, lookup: &Arc<dyn Lookup>) -> Option<Arc<Self>> {
        let url: &Url = url.as_url();
        if url.scheme() != "http" {
            return None;
        }
        let authority = &url[Position::BeforeHost..Position::AfterPort];
        Some(Arc::new(Self {
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
            target: url[Position::BeforePath..Position::AfterQuery].parse().ok()?,
            authority: HeaderValue::from_str(authority).ok()?,
            rule: rule.clone(),
            lookup: lookup.clone(),
            idle: Mutex::default(),
        }))
    }

    /// Posts a body; the answer's head, and its body as it comes. Dropped before its end it closes its connection.
    pub(crate) async fn post(
        self: &Arc<Self>,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap, LineBody), LineFault> {
        headers.entry(header::HOST).or_insert_with(|| self.authority.clone());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = headers;
        loop {
            let (mut wire, is_used) = match self.take() {
                Some(wire) => (wire, true),
                None => (self.connect().await?, false),
            };
            match wire.send(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let mut body = LineBody { line: self.clone(), wire: Some(wire), body };
                    if body.body.is_end_stream() {
                        body.give_back();
                    }
                    return Ok((head.status, head.headers, body));
                }
                // The other side closed it while it was idle.
                Err(Unanswered { unsent: Some(unsent), .. }) if is_used => request = *unsent,
                Err(Unanswered { cause, .. }) => return Err(LineFault::Broken(cause)),
            }
        }
    }

    /// Of a size and a depth of types that requests which find a connection need not carry.
    fn connect(&self) -> BoxFuture<'_, Result<Wire, LineFault>> {
        Box::pin(async move {
            let dial = async {
                let mut last = LineFault::Unreachable("it has no address".to_owned());
                for ip in self.addresses().await? {
                    match TcpStream::connect(SocketAddr::new(ip, self.port)).await {
                        Ok(stream) => return Ok(stream),
                        Err(cause) => last = LineFault::Unreachable(cause.to_string()),
                    }
                }
                Err(last)
            };
            let late = || LineFault::Unreachable(format!("no connection in {DIAL_TIMEOUT:?}"));
            let stream = tokio::time::timeout(DIAL_TIMEOUT, dial).await.map_err(|_| late())??;
            Wire::over(stream).await
        })
    }

    /// Where to connect to. A literal was checked with its URL.
    async fn addresses(&self) -> Result<Vec<IpAddr>, LineFault> {
        match &self.host {
            Host::Ipv4(ip) => Ok(vec![IpAddr::V4(*ip)]),
            Host::Ipv6(ip) => Ok(vec![IpAddr::V6(*ip)]),
            Host::Domain(name) => {
                let found = self.lookup.lookup(name.clone()).await;
                let found = found.map_err(|cause| LineFault::Unreachable(cause.to_string()))?;
                self.rule.check_resolved(name, &found)?;
                Ok(found)
            }
        }
    }

    fn take(&self) -> Option<Wire> {
        let mut idle = self.idle.lock();
        while let Some((wire, since)) = idle.wires.pop() {
            if !wire.is_over() && since.elapsed() < IDLE_TIMEOUT {
                return Some(wire);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    fn keep(self: &Arc<Self>, wire: Wire) {
        let mut idle = self.idle.lock();
        if idle.wires.len() >= MAX_IDLE_CONNECTIONS {
            return;
        }
        idle.wires.push((wire, Instant::now()));
        if idle.is_swept {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        idle.is_swept = true;
        runtime.spawn(sweep(Arc::downgrade(self)));
    }

    /// Closes what is idle for too long, and what the other side closed. Whether something is left.
    fn look_over(&self, now: Instant) -> bool {
        let mut idle = self.idle.lock();
        idle.wires.retain_mut(|(wire, since)| {
            wire.look();
            !wire.is_over() && now.saturating_duration_since(*since) < IDLE_TIMEOUT
        });
        idle.is_swept = !idle.wires.is_empty();
        idle.is_swept
    }
}

/// Looks over a line's idle connections until there are none.
async fn sweep(line: Weak<Line>) {
    loop {
        tokio::time::sleep(SWEEP_PERIOD).await;
        if !line.upgrade().is_some_and(|line| line.look_over(Instant::now())) {
            return;
        }
    }
}

/// Wakes nobody. Whatever an answer and its body wait for comes of their connection, which is driven where they are
/// polled: to be woken by it would be to be woken by oneself.
fn quiet() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// What a connection wakes: the task that waits for its answer, but not for what that task does to it itself. To take a
/// piece of a body makes room for the next one, which the connection would be woken for; it is driven then anyway.
#[derive(Default)]
struct Bell {
    task: AtomicWaker,
    /// One of [`OPEN`], [`MUTED`] and [`MISSED`].
    state: AtomicU8,
}

/// It wakes.
const OPEN: u8 = 0;
/// It wakes nobody now.
const MUTED: u8 = 1;
/// The same, and it was to wake somebody.
const MISSED: u8 = 2;

impl Bell {
    /// Does this while nobody is woken; whether somebody was to be.
    fn muted<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        self.state.store(MUTED, Ordering::SeqCst);
        let done = work();
        (done, self.state.swap(OPEN, Ordering::SeqCst) == MISSED)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let muted = self.state.compare_exchange(MUTED, MISSED, Ordering::SeqCst, Ordering::SeqCst);
        if muted == Err(OPEN) {
            self.task.wake();
        }
    }
}

/// What reads and writes a connection when it is polled.
type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// One connection.
struct Wire {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None`: it is over.
    driver: Option<Pin<Box<Driver>>>,
    bell: Arc<Bell>,
    /// Of the bell.
    waker: Waker,
}

/// A request without an answer; `unsent`: nothing of it was sent, and here it is.
struct Unanswered {
    cause: String,
    unsent: Option<Box<Request<Full<Bytes>>>>,
}

impl Wire {
    async fn over(stream: TcpStream) -> Result<Self, LineFault> {
        // Requests leave at once.
        let _ = stream.set_nodelay(true);
        let made = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = made.map_err(|cause| LineFault::Unreachable(innermost(&cause)))?;
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        Ok(Self { sender, driver: Some(Box::pin(driver)), bell, waker })
    }

    fn is_over(&self) -> bool {
        self.driver.is_none()
    }

    /// Reads and writes what can be read and written now; the task is woken when there is more.
    fn drive(&mut self, cx: &mut Context<'_>) {
        self.bell.task.register(cx.waker());
        let Self { driver, waker, .. } = self;
        advance(driver, &mut Context::from_waker(waker));
    }

    /// The same for nobody, and forgets who waited.
    fn look(&mut self) {
        drop(self.bell.task.take());
        advance(&mut self.driver, &mut quiet());
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unanswered> {
        // A task that has used up its turn is told by a channel to come again, with this waker that wakes nobody: an answer
        // that is there would be missed. The connection tells it in its own way.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(request)));
        let answered = poll_fn(|cx| {
            self.drive(cx);
            match answer.as_mut().poll(&mut quiet()) {
                Poll::Pending if self.is_over() => Poll::Ready(None),
                polled => polled.map(Some),
            }
        });
        match answered.await {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut fault)) => {
                let unsent = fault.take_message().map(Box::new);
                Err(Unanswered { cause: innermost(&fault.into_error()), unsent })
            }
            None => Err(Unanswered { cause: "the connection was closed".to_owned(), unsent: None }),
        }
    }
}

fn advance(driver: &mut Option<Pin<Box<Driver>>>, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(cx).is_ready()
    {
        // Who waits for something of it is told with this.
        *driver = None;
    }
}

/// What a body has next.
type Piece = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

/// The body of an answer, and the connection that it comes on.
pub(crate) struct LineBody {
    line: Arc<Line>,
    /// `None`: the connection is over, or carries something else by now.
    wire: Option<Wire>,
    body: Incoming,
}

impl LineBody {
    /// How many bytes are still to come, if the other side said so.
    pub(crate) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece; `None` at the end. Can be dropped and called again without loss.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, LineFault> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// What is there of the body; whether more came for the connection meanwhile.
    fn piece(&mut self) -> (Piece, bool) {
        let body = Pin::new(&mut self.body);
        match &self.wire {
            Some(wire) => wire.bell.muted(|| body.poll_frame(&mut quiet())),
            None => (body.poll_frame(&mut quiet()), false),
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LineFault>> {
        let mut is_driven = false;
        loop {
            let (piece, is_missed) = self.piece();
            match piece {
                Poll::Ready(None) => {
                    self.give_back();
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Ok(Some(data))),
                    Err(_trailers) => continue,
                },
                Poll::Ready(Some(Err(cause))) => {
                    self.wire = None;
                    return Poll::Ready(Err(LineFault::Broken(innermost(&cause))));
                }
                Poll::Pending => {}
            }
            let Some(wire) = &mut self.wire else {
                return Poll::Ready(Err(LineFault::Broken("the connection was closed".to_owned())));
            };
            if is_driven {
                // Something came between the two looks.
                if is_missed {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            is_driven = true;
            wire.drive(cx);
            if wire.is_over() {
                self.wire = None;
            }
        }
    }

    /// The answer is at its end. A connection that does not take another request now takes none later.
    fn give_back(&mut self) {
        let Some(mut wire) = self.wire.take() else { return };
        wire.look();
        if !wire.is_over() && wire.sender.is_ready() {
            self.line.keep(wire);
        }
    }
}

/// The innermost cause.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
