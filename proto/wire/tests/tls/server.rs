//! A server that says who called it, and an echo stream.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use provost_wire::{
    node::{
        CertifyAgentsRequest, CertifyAgentsResponse, PeerRequest, PeerResponse, RenewRequest, RenewResponse,
        StandingRequest, StandingResponse,
        identity_client::IdentityClient,
        identity_server::{Identity as IdentityApi, IdentityServer},
        peer_server::{Peer, PeerServer},
    },
    tls::{Admit, Connections, Identity, Limits, incoming, peer_of},
};
use tokio::{net::TcpListener, task::AbortHandle};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

struct Says;

#[tonic::async_trait]
impl IdentityApi for Says {
    /// The caller's name in `certificate`.
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let certificate = peer_of(&request).map_or("nobody".to_owned(), |n| n.to_string());
        Ok(Response::new(RenewResponse { certificate, ..Default::default() }))
    }

    async fn standing(&self, _: Request<StandingRequest>) -> Result<Response<StandingResponse>, Status> {
        Ok(Response::new(StandingResponse::default()))
    }

    async fn certify_agents(
        &self,
        _: Request<CertifyAgentsRequest>,
    ) -> Result<Response<CertifyAgentsResponse>, Status> {
        Ok(Response::new(CertifyAgentsResponse::default()))
    }
}

#[tonic::async_trait]
impl Peer for Says {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<PeerResponse, Status>> + Send>>;
    async fn exchange(
        &self,
        request: Request<Streaming<PeerRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let echo = request.into_inner().map(|r| {
            let r = r?;
            Ok(PeerResponse { id: r.id, body: r.body, failure: None })
        });
        Ok(Response::new(Box::pin(echo)))
    }
}

pub struct Running {
    pub address: String,
    pub connections: Connections,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn start(identity: Arc<Identity>) -> Running {
    start_with(identity, Limits::default(), None).await
}

pub async fn start_with(identity: Arc<Identity>, limits: Limits, admit: Option<Admit>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = incoming(listener, identity, limits, admit);
    let connections = incoming.connections();
    let serving = Server::builder()
        .add_service(IdentityServer::new(Says))
        .add_service(PeerServer::new(Says))
        .serve_with_incoming(incoming);
    Running { address, connections, task: tokio::spawn(serving).abort_handle() }
}

/// Whom the server takes the caller for.
pub async fn who_am_i(channel: Channel) -> Result<String, Status> {
    let answer = IdentityClient::new(channel).renew(RenewRequest::default()).await?;
    Ok(answer.into_inner().certificate)
}
