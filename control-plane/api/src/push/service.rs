//! The gRPC service: who may subscribe, hello, and the task that reads what a node says.

use std::sync::Arc;

use futures::{StreamExt, stream};
use provost_types::BoxStream;
use provost_wire::{
    node::{Hello, PushDown, PushUp, push_server::Push, push_up::Up},
    understands,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::{
    HELLO_LIMIT, SILENT_LIMIT,
    batch::Point,
    hub::Inner,
    messages::Refusal,
    stream::Down,
    subscriber::{End, Subscription},
};

/// Serves `Push` from a hub.
#[derive(Clone)]
pub struct PushService {
    pub(crate) hub: Arc<Inner>,
}

#[tonic::async_trait]
impl Push for PushService {
    type SubscribeStream = BoxStream<'static, Result<PushDown, Status>>;

    async fn subscribe(&self, request: Request<Streaming<PushUp>>) -> Result<Response<Self::SubscribeStream>, Status> {
        let Some((node, role)) = (self.hub.authorise)(request.extensions()) else {
            return Err(Status::unauthenticated("PV-PUSH-CERTIFICATE: only nodes of the cluster may subscribe"));
        };
        let mut up = request.into_inner();
        let hello = match timeout(HELLO_LIMIT, up.message()).await {
            Ok(Ok(Some(PushUp { up: Some(Up::Hello(hello)) }))) => hello,
            Ok(Err(status)) => return Err(status),
            _ => return Ok(refuse(&node, &Refusal::Hello)),
        };
        match self.open(node.clone(), role, &hello, up) {
            Ok(down) => Ok(Response::new(down.into_stream().boxed())),
            Err(refusal) => Ok(refuse(&node, &refusal)),
        }
    }
}

impl PushService {
    fn open(&self, node: String, role: String, hello: &Hello, up: Streaming<PushUp>) -> Result<Down, Refusal> {
        if !understands(hello.wire_version) {
            return Err(Refusal::Version(hello.wire_version));
        }
        if hello.node != node {
            return Err(Refusal::Identity { certificate: node, hello: hello.node.clone() });
        }
        let at = (!hello.hash.is_empty()).then(|| Point { revision: hello.revision, hash: hello.hash.clone() });
        let subscription = Arc::new(Subscription::new(node, role, hello));
        self.hub.registry.add(subscription.clone())?;
        let reader = tokio::spawn(read(up, subscription.clone())).abort_handle();
        Ok(Down::new(self.hub.clone(), subscription, at, reader))
    }
}

fn refuse(node: &str, refusal: &Refusal) -> Response<BoxStream<'static, Result<PushDown, Status>>> {
    tracing::warn!(code = refusal.code(), node, "a subscription was refused: {refusal}");
    let message = refusal.message();
    Response::new(stream::once(async move { Ok(message) }).boxed())
}

/// Until the node leaves or falls silent; then the down side ends too.
async fn read(mut up: Streaming<PushUp>, subscription: Arc<Subscription>) {
    let end = loop {
        match timeout(SILENT_LIMIT, up.message()).await {
            Ok(Ok(Some(message))) => subscription.heard(message),
            Ok(Ok(None) | Err(_)) => break End::Left,
            Err(_) => break End::Refused(Refusal::Silent),
        }
    };
    subscription.end(end);
}
