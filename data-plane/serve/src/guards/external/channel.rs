//! gRPC over the client of the data plane, so that the rules of egress hold for it.

use std::task::{Context, Poll};

use http_body_util::{BodyExt, Limited};
use provost_data_tools::egress::{CheckedUrl, EgressBody, EgressClient};
use provost_types::BoxFuture;
use tonic::{body::Body, codegen::Service};

use super::CHECKED_BYTES_MAX;

/// What a request may have beside the text.
const FRAME_MAX: usize = 64 * 1024;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// One external guard's address.
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) client: EgressClient,
    pub(super) url: CheckedUrl,
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<EgressBody>;
    type Error = Fault;
    type Future = BoxFuture<'static, Result<Self::Response, Fault>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { client, url } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = Limited::new(body, CHECKED_BYTES_MAX + FRAME_MAX).collect().await?.to_bytes();
            let url = url.with_path(parts.uri.path());
            client.exchange(&url, parts.headers, body).await.map_err(|cause| Fault::from(EgressClient::cause(cause)))
        })
    }
}
