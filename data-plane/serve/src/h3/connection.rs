//! One connection, and its requests.

use std::sync::Arc;

use bytes::Bytes;
use h3::{
    error::Code,
    server::{RequestResolver, RequestStream},
};
use http::{Request, Response};
use http_body_util::BodyExt;
use provost_data_pipeline::Plane;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::{
    backend::{Backend, Sending, Stopped},
    body::RequestBody,
};
use crate::{Frontend, Peer, ResponseBody, certificate::facts_of_quic, listen::MAX_HEADER_BYTES, quic::Credit};

/// The transport, as it stands in the record.
const TRANSPORT: &str = "h3";

/// Serves requests to the end of the connection.
pub(crate) async fn serve<P: Plane + 'static>(front: Arc<Frontend<P>>, connection: quinn::Connection) {
    let backend = Backend::new(connection.clone());
    let stops = backend.stops();
    let mut builder = h3::server::builder();
    builder.max_field_section_size(u64::from(MAX_HEADER_BYTES));
    let Ok(mut h3) = builder.build::<_, Bytes>(backend).await else { return };
    let requests = TaskTracker::new();
    let mut credit = Credit::new(&front.config.quic);
    let (mut is_draining, idle, mut used) = (false, front.config.quic.idle, Instant::now());
    loop {
        tokio::select! {
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => {
                    used = Instant::now();
                    let stopped = stops.take();
                    let request = one(front.clone(), connection.clone(), resolver, stopped);
                    requests.spawn(request);
                    credit.used(requests.len(), &connection);
                }
                // The client is done, or was never one.
                Ok(None) => break,
                Err(cause) => {
                    tracing::debug!(%cause, "a connection of HTTP/3 ended");
                    return;
                }
            },
            () = front.draining.cancelled(), if !is_draining => {
                is_draining = true;
                // The client learns which requests are still answered.
                let _ = h3.shutdown(0).await;
                requests.close();
            }
            () = requests.wait(), if is_draining => break,
            () = sleep_until(used + idle) => {
                if requests.is_empty() {
                    break;
                }
                used = Instant::now();
            }
        }
    }
    requests.close();
    requests.wait().await;
    // Dropping it closes the connection with H3_NO_ERROR.
    drop(h3);
}

/// Answers one request; a client that stops reading has it dropped.
async fn one<P: Plane + 'static>(
    front: Arc<Frontend<P>>,
    connection: quinn::Connection,
    resolver: RequestResolver<Backend, Bytes>,
    stopped: Option<Stopped>,
) {
    let limits = front.config.quic;
    let Ok(Ok((request, stream))) = timeout(limits.opening, resolver.resolve_request()).await else { return };
    let (mut send, recv) = stream.split();
    let certificate = facts_of_quic(&connection);
    let address = Some(connection.remote_address());
    let peer = Peer { address, transport: TRANSPORT, is_secure: true, certificate };
    let request: Request<RequestBody> = request.map(|()| RequestBody(recv));
    let Some(mut stopped) = stopped else { return };
    let answered = tokio::select! {
        answered = Box::pin(answer(&front, request, peer, &mut send)) => answered,
        () = &mut stopped => return send.stop_stream(Code::H3_REQUEST_CANCELLED),
        _ = connection.closed() => return,
    };
    if !answered {
        return send.stop_stream(Code::H3_REQUEST_CANCELLED);
    }
    // The connection must not be closed before the client has the whole answer.
    let _ = timeout(limits.write_stall, stopped).await;
}

/// `false`: the client did not take the whole answer.
async fn answer<P: Plane + 'static>(
    front: &Arc<Frontend<P>>,
    request: Request<RequestBody>,
    peer: Peer,
    send: &mut RequestStream<Sending<Bytes>, Bytes>,
) -> bool {
    let stall = front.config.quic.write_stall;
    let response = front.respond(request, peer).await;
    let (parts, mut body): (_, ResponseBody) = response.into_parts();
    if send.send_response(Response::from_parts(parts, ())).await.is_err() {
        return false;
    }
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        if !matches!(timeout(stall, send.send_data(data)).await, Ok(Ok(()))) {
            return false;
        }
    }
    send.finish().await.is_ok()
}
