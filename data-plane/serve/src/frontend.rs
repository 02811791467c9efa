//! The front end: what all requests of one node share, and what is known of one request.

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use http::{HeaderMap, header};
use provost_data_pipeline::{
    Call, Caller, CertificateFacts, ClientFacts, Credential, Operation, Plane, Rejection, Request, Route, TraceFacts,
};
use provost_mcp::{ProtocolVersion, RawJson, TraceParent, meta::MAX_META_TEXT_BYTES, trace};
use provost_types::CallId;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    FrontendConfig, Readiness, ToolSchemas,
    connect::{Consents, Tickets},
    http::Doorkeeper,
    mcp::{Asks, SessionDesk, SessionSealer, Sessions, StateSealer},
    openai::Recordings,
    seal::{SealFailed, random_ids},
    siblings::Siblings,
};

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The peer's address.
    pub address: Option<SocketAddr>,
    /// `http`, `ws`, …: as it stands in the record.
    pub transport: &'static str,
    /// Under TLS: decides `http` or `https` in URLs of ours.
    pub is_secure: bool,
    /// The client's certificate, verified in a handshake that is complete.
    pub certificate: Option<Arc<CertificateFacts>>,
}

/// MCP and OpenAI-compatible HTTP in front of a [`Plane`].
pub struct Frontend<P> {
    pub(crate) plane: Arc<P>,
    pub(crate) config: FrontendConfig,
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) session_ids: SessionSealer,
    pub(crate) states: StateSealer,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) asks: Arc<Asks>,
    /// The other nodes.
    pub(crate) siblings: Arc<Siblings>,
    pub(crate) server_info: RawJson,
    pub(crate) schemas: Option<Arc<dyn ToolSchemas>>,
    /// Plugins that act in their users' names.
    pub(crate) consents: Option<Arc<dyn Consents>>,
    pub(crate) tickets: Tickets,
    pub(crate) readiness: Option<Readiness>,
    /// Every call in flight, with or without a client.
    pub(crate) calls: TaskTracker,
    /// One permit for each WebSocket that may still be opened.
    pub(crate) sockets: Arc<Semaphore>,
    /// Places for recordings.
    pub(crate) recordings: Arc<Recordings>,
    /// Cancelled when the node shuts down: streams without an end of their own end.
    pub(crate) draining: CancellationToken,
}

impl<P: Plane + 'static> Frontend<P> {
    /// A front end. Errors: the machine's cryptography is unusable.
    pub fn new(plane: Arc<P>, config: FrontendConfig) -> Result<Self, SealFailed> {
        let siblings = Siblings::new("");
        Ok(Self {
            plane,
            doorkeeper: Doorkeeper::new(&config.allowed_hosts, &config.allowed_origins),
            session_ids: SessionSealer::new(config.seal_keys.clone()),
            states: StateSealer::new(config.seal_keys.clone()),
            sessions: Arc::new(Sessions::new(siblings.tag())),
            asks: Arc::new(Asks::new(siblings.tag())),
            siblings,
            server_info: config.server_info(),
            schemas: None,
            consents: None,
            tickets: Tickets::new(&config.seal_keys),
            readiness: None,
            calls: TaskTracker::new(),
            sockets: Arc::new(Semaphore::new(config.sockets.max_connections)),
            recordings: Arc::default(),
            draining: CancellationToken::new(),
            config,
        })
    }

    /// Checks `Mcp-Param-…` headers against the schemas that are known.
    #[must_use]
    pub fn with_schemas(mut self, schemas: Arc<dyn ToolSchemas>) -> Self {
        self.schemas = Some(schemas);
        self
    }

    /// Leads users to where they let plugins act in their names.
    #[must_use]
    pub fn with_consents(mut self, consents: Arc<dyn Consents>) -> Self {
        self.consents = Some(consents);
        self
    }

    /// What other nodes may ask of the sessions here.
    pub(crate) fn desk(&self) -> SessionDesk {
        SessionDesk { sessions: self.sessions.clone(), asks: self.asks.clone() }
    }

    /// Shares legacy sessions with other nodes.
    #[must_use]
    pub fn with_siblings(mut self, siblings: Arc<Siblings>) -> Self {
        self.sessions = Arc::new(Sessions::new(siblings.tag()));
        self.asks = Arc::new(Asks::new(siblings.tag()));
        siblings.attach(self.desk(), self.draining.clone());
        self.siblings = siblings;
        self
    }

    /// Ends what these plugins have for a legacy session when its client ends it. After [`Frontend::with_siblings`].
    #[must_use]
    pub fn with_toolbox(self, toolbox: Arc<provost_data_tools::Toolbox>) -> Self {
        self.siblings.attach_toolbox(toolbox);
        self
    }

    /// What `/readyz` asks.
    #[must_use]
    pub fn with_readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = Some(readiness);
        self
    }

    /// Unix seconds.
    pub(crate) fn now_s(&self) -> u64 {
        self.plane.now_ns() / 1_000_000_000
    }

    /// Who calls, outside of a call: for what is bound to the caller before and after it.
    pub(crate) fn caller_of(&self, inbound: &Inbound) -> Result<Arc<Caller>, Rejection> {
        self.plane.authenticate(&self.plane.snapshot(), &Call::received(inbound.probe()))
    }

    /// Scheme and authority under which the node was addressed.
    pub(crate) fn base_url(&self, authority: &str, peer: &Peer) -> String {
        match &self.config.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => [if peer.is_secure { "https://" } else { "http://" }, authority].concat(),
        }
    }

    /// What is known of a request before its body is read.
    pub(crate) fn inbound(
        &self,
        headers: HeaderMap,
        base_url: String,
        path: String,
        route: Route,
        peer: Peer,
    ) -> Result<Inbound, SealFailed> {
        let arrived_ns = self.plane.now_ns();
        Ok(Inbound {
            credential: credential(&headers, &peer),
            headers,
            route,
            path,
            base_url,
            peer,
            arrived_ns,
            call_id: call_id(arrived_ns)?,
            is_mirrored: true,
        })
    }

    /// One message of a socket as a request of its own: it has its own call, and what the upgrade
    /// said of its caller and its trace.
    pub(crate) fn message_of(&self, socket: &Inbound) -> Result<Inbound, SealFailed> {
        let arrived_ns = self.plane.now_ns();
        Ok(Inbound { arrived_ns, call_id: call_id(arrived_ns)?, ..socket.clone() })
    }
}

/// The header that names the workflow which a call belongs to.
pub(crate) const WORKFLOW: &str = "x-provost-workflow";
/// W3C Trace Context.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Beside it.
const TRACESTATE: &str = "tracestate";

/// One request before its body is read.
#[derive(Clone)]
pub(crate) struct Inbound {
    pub(crate) headers: HeaderMap,
    pub(crate) credential: Credential,
    pub(crate) route: Route,
    pub(crate) path: String,
    /// Scheme and authority under which the node was addressed.
    pub(crate) base_url: String,
    pub(crate) peer: Peer,
    pub(crate) arrived_ns: u64,
    pub(crate) call_id: CallId,
    /// The headers mirror the message, and are checked against it (Streamable HTTP). A message on
    /// a socket has none.
    pub(crate) is_mirrored: bool,
}

impl Inbound {
    /// What stays of an upgrade for the messages of its socket: the caller, where from, the trace.
    pub(crate) fn into_socket(mut self) -> Self {
        let mut kept = HeaderMap::new();
        for name in [TRACEPARENT, TRACESTATE, WORKFLOW] {
            if let Some(value) = self.headers.get(name) {
                kept.insert(name, value.clone());
            }
        }
        self.headers = kept;
        self.is_mirrored = false;
        self
    }

    pub(crate) fn address(&self) -> Option<String> {
        self.peer.address.map(|a| a.ip().to_string())
    }

    /// RFC 9728, section 3.1: the well-known path stands before the resource's path.
    pub(crate) fn metadata_url(&self) -> String {
        [self.base_url.as_str(), "/.well-known/oauth-protected-resource", self.path.as_str()].concat()
    }

    /// A request that asks for nothing: for what is to be known of its caller outside of a call.
    pub(crate) fn probe(&self) -> Request {
        Request {
            call_id: self.call_id,
            arrived_ns: self.arrived_ns,
            credential: self.credential.clone(),
            route: self.route.clone(),
            operation: Operation::Discover,
            params: RawJson::EMPTY_OBJECT,
            client: ClientFacts {
                protocol_version: ProtocolVersion::LATEST,
                info: None,
                capabilities: RawJson::EMPTY_OBJECT,
                session: None,
                address: self.address(),
                transport: self.peer.transport,
            },
            trace: TraceFacts::default(),
            sound: None,
            within: None,
        }
    }

    pub(crate) fn trace(&self) -> TraceFacts {
        let text = |name: &str| {
            let value = self.headers.get(name)?.to_str().ok()?;
            (value.len() <= MAX_META_TEXT_BYTES).then(|| value.to_owned())
        };
        // As in `_meta`: what is none counts as missing.
        let parent = text(TRACEPARENT).and_then(|text| TraceParent::parse(&text));
        let traceparent = parent.map(|parent| parent.to_string());
        // Several headers of it are one list; lists that long are rare, and the rest is not needed to join the trace.
        let state = traceparent.as_ref().and_then(|_| self.headers.get(TRACESTATE)?.to_str().ok());
        let tracestate = state.filter(|state| trace::is_state(state)).map(str::to_owned);
        TraceFacts { request_id: None, traceparent, tracestate, workflow: text(WORKFLOW) }
    }
}

/// The bearer token. Anything else than one well-formed bearer is no credential; what an anonymous
/// caller may do is the node's decision. A certificate counts where there is no such header at all: who sends
/// a token that is not good is not somebody else instead.
fn credential(headers: &HeaderMap, peer: &Peer) -> Credential {
    if let (Some(certificate), false) = (&peer.certificate, headers.contains_key(header::AUTHORIZATION)) {
        return Credential::Certificate(certificate.clone());
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Credential::Anonymous };
    let Ok(text) = value.to_str() else { return Credential::Anonymous };
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Credential::Bearer(token.trim().into()),
        _ => Credential::Anonymous,
    }
}

thread_local! {
    /// Random numbers for calls to come. They tell calls apart, and are no secret.
    static DRAWN: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

/// 128 random bits that this thread had drawn before.
fn drawn_id() -> Result<u128, SealFailed> {
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.is_empty() {
            drawn.extend(random_ids()?);
        }
        drawn.pop().ok_or(SealFailed)
    })
}

/// RFC 9562, section 5.7: 48 bits of milliseconds, version 7, variant, the rest random.
pub(crate) fn call_id(now_ns: u64) -> Result<CallId, SealFailed> {
    let millis = u128::from(now_ns / 1_000_000) & 0xFFFF_FFFF_FFFF;
    let random = drawn_id()? & 0x0000_0000_0000_0FFF_3FFF_FFFF_FFFF_FFFF;
    Ok(CallId((millis << 80) | (0x7 << 76) | (0b10 << 62) | random))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_calls_have_their_time_and_are_never_the_same() {
        let now_ns = 1_700_000_000_123_456_789;
        let draw = move || (0..100).map(|_| call_id(now_ns).unwrap().0).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let ids: Vec<u128> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        for id in &ids {
            assert_eq!((id >> 80, (id >> 76) & 0xF, (id >> 62) & 0b11), (1_700_000_000_123, 7, 0b10), "{id:032x}");
        }
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
