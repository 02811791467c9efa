//! The gRPC form of the node's operations. Every call is authenticated by an interceptor before
//! it reaches a method, and a method without a caller refuses.
//!
//! `calls` is the table of calls; what one needs beyond a line or two is in `cluster` and
//! `streams`, and the two forms of each message are matched in `convert`.

mod calls;
mod cluster;
mod convert;
mod streams;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::Stream;
use provost_wire::{
    admin::admin_server::AdminServer, governance::governance_server::GovernanceServer,
    packages::packages_server::PackagesServer, tls,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
};
use tonic::{
    Request, Status,
    service::{InterceptorLayer, Routes},
    transport::{
        Server,
        server::{Connected, TcpConnectInfo, TcpIncoming},
    },
};

use crate::{
    AdminToken, Caller, ControlError, ControlNode, ErrorKind, Logins, NoLogins, NoSubscribers, Subscribers,
    governance::GovernanceService, identity::Certifier, packages::PackagesService,
};

/// Bytes of one request.
const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Requests at once on one connection.
const MAX_STREAMS: u32 = 64;
/// Pings find connections that are gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The longest time until a call begins to answer.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// The admin service of a node, before it is served.
pub struct AdminApi {
    node: ControlNode,
    admins: Vec<AdminToken>,
    subscribers: Arc<dyn Subscribers>,
    certifier: Option<Arc<Certifier>>,
    beside: Routes,
    logins: Arc<dyn Logins>,
}

impl AdminApi {
    /// The service for holders of these tokens and for administrators of tenants.
    pub fn new(node: &ControlNode, admins: Vec<AdminToken>) -> Self {
        let beside = Routes::default();
        Self {
            node: node.clone(),
            admins,
            subscribers: Arc::new(NoSubscribers),
            certifier: None,
            beside,
            logins: Arc::new(NoLogins),
        }
    }

    /// Also serves these, to the same callers: each request carries its [`Caller`].
    pub fn with_routes(self, beside: Routes) -> Self {
        Self { beside, ..self }
    }

    /// Also tells who was let in and who was not.
    pub fn with_logins(self, logins: Arc<dyn Logins>) -> Self {
        Self { logins, ..self }
    }

    /// Also tells who takes configuration from this node.
    pub fn with_subscribers(self, subscribers: Arc<dyn Subscribers>) -> Self {
        Self { subscribers, ..self }
    }

    /// Also makes join tokens and changes the CA.
    pub fn with_certifier(self, certifier: Arc<Certifier>) -> Self {
        Self { certifier: Some(certifier), ..self }
    }

    /// Serves plain HTTP/2 until `stop` resolves; calls under way are finished first.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), ControlError> {
        self.serve_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)), stop).await
    }

    /// Serves connections that were accepted elsewhere, such as those of TLS.
    pub async fn serve_incoming<I, IO>(self, incoming: I, stop: impl Future<Output = ()>) -> Result<(), ControlError>
    where
        I: Stream<Item = io::Result<IO>>,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let authenticator = self.node.authenticator(self.admins);
        let logins = self.logins;
        let authenticate = move |mut request: Request<()>| {
            let header = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
            let peer = peer(&request);
            let caller = authenticator
                .authenticate(header, peer)
                .inspect(|caller| logins.accepted(caller))
                .inspect_err(|error| logins.refused(error.code(), peer.map(|p| p.to_string()).as_deref()))?;
            request.extensions_mut().insert(caller);
            Ok::<_, Status>(request)
        };
        let (stopping, stopped) = watch::channel(());
        let governance = GovernanceServer::new(GovernanceService { node: self.node.clone() });
        let packages = PackagesServer::new(PackagesService::new(self.node.clone(), self.subscribers.clone()));
        let service = Service { node: self.node, subscribers: self.subscribers, certifier: self.certifier, stopped };
        let service = AdminServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
        let routes = self.beside.add_service(service).add_service(governance).add_service(packages);
        Server::builder()
            .layer(InterceptorLayer::new(authenticate))
            .timeout(CALL_LIMIT)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, async move {
                stop.await;
                // Open streams would hold the connections for ever.
                drop(stopping);
            })
            .await
            .map_err(ControlError::internal)
    }
}

impl ControlNode {
    /// Serves the admin API alone: see [`AdminApi`].
    pub async fn serve(
        &self,
        listener: TcpListener,
        admins: Vec<AdminToken>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ControlError> {
        AdminApi::new(self, admins).serve(listener, stop).await
    }
}

fn peer(request: &Request<()>) -> Option<SocketAddr> {
    let plain = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    plain.or_else(|| tls::remote_of(request))
}

struct Service {
    node: ControlNode,
    subscribers: Arc<dyn Subscribers>,
    certifier: Option<Arc<Certifier>>,
    /// Closes when the server stops.
    stopped: watch::Receiver<()>,
}

/// Who sent a request, as the interceptor authenticated it.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        let text = "the request was not authenticated";
        ControlError::new(ErrorKind::Unauthenticated, "PV-ADMIN-NO-TOKEN", text, "").into()
    })
}
