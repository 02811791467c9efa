//! One connection, and its requests.
//!
//! The end, when the node goes, leaves no request in doubt. GOAWAY names the first that is not served; what comes
//! after it is rejected one by one, for as long as a request may cross the GOAWAY. Then the connection is closed
//! with a reason that says that every request that was taken was answered, if that is so: what has no answer
//! then was not begun. If we crash in between, or the drain ends first, the client learns nothing and must
//! take what is open for what may have run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h3::{
    error::Code,
    server::{RequestResolver, RequestStream},
};
use http::{Request, Response};
use http_body_util::BodyExt;
use provost_data_pipeline::Plane;
use quinn::VarInt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::{
    backend::{Backend, Sending, Stopped},
    body::RequestBody,
};
use crate::{Frontend, Peer, ResponseBody, certificate::facts_of_quic, listen::MAX_HEADER_BYTES, quic::Credit};

/// The transport, as it stands in the record.
const TRANSPORT: &str = "h3";
/// How long a connection stays open after its GOAWAY, at least, for requests that were sent before that came.
const CROSSING: Duration = Duration::from_millis(500);
/// H3_NO_ERROR (RFC 9114, section 8.1), the code of this end.
const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// The reason of an end that leaves nothing open. Clients know it by its beginning.
const ALL_ANSWERED: &[u8] = b"PV-QUIC-DRAINING: the node shuts down, and has answered all that it took; connect again";

/// Serves requests to the end of the connection.
pub(crate) async fn serve<P: Plane + 'static>(front: Arc<Frontend<P>>, connection: quinn::Connection) {
    let backend = Backend::new(connection.clone());
    let (stops, refusing) = (backend.stops(), backend.refusing());
    let mut builder = h3::server::builder();
    builder.max_field_section_size(u64::from(MAX_HEADER_BYTES));
    let Ok(mut h3) = builder.build::<_, Bytes>(backend).await else { return };
    let requests = TaskTracker::new();
    let mut credit = Credit::new(&front.config.quic);
    let (idle, mut used) = (front.config.quic.idle, Instant::now());
    // Until when requests may cross the GOAWAY, once it was sent.
    let mut crossing = None;
    let is_in_doubt = Arc::<AtomicBool>::default();
    loop {
        tokio::select! {
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => {
                    used = Instant::now();
                    let stopped = stops.take();
                    let request = one(front.clone(), connection.clone(), resolver, stopped);
                    let is_in_doubt = is_in_doubt.clone();
                    requests.spawn(async move {
                        if request.await == Answered::Unknown {
                            is_in_doubt.store(true, Ordering::Relaxed);
                        }
                    });
                    credit.used(requests.len(), &connection);
                }
                // The client is done, or was never one.
                Ok(None) => break,
                Err(cause) => {
                    tracing::debug!(%cause, "a connection of HTTP/3 ended");
                    return;
                }
            },
            () = front.draining.cancelled(), if crossing.is_none() => {
                let most = Duration::from_millis(front.config.drain_ms / 2);
                crossing = Some(Instant::now() + CROSSING.min(most));
                refusing.begin();
                // The first that is not served: the one after the last that was taken.
                let _ = h3.shutdown(1).await;
                requests.close();
            }
            () = ended(&requests, crossing), if crossing.is_some() => {
                if !is_in_doubt.load(Ordering::Relaxed) {
                    connection.close(NO_ERROR, ALL_ANSWERED);
                }
                break;
            }
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
    // Dropping it closes the connection with H3_NO_ERROR, if it is not closed yet.
    drop(h3);
}

/// Waits until all requests are over and none can cross the GOAWAY any more.
async fn ended(requests: &TaskTracker, crossing: Option<Instant>) {
    requests.wait().await;
    if let Some(crossing) = crossing {
        sleep_until(crossing).await;
    }
}

/// What is known of the answer to a request that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    /// The client has it, does not want it, or sent no whole request.
    Known,
    /// It was not seen to arrive.
    Unknown,
}

/// Answers one request; a client that stops reading has it dropped.
async fn one<P: Plane + 'static>(
    front: Arc<Frontend<P>>,
    connection: quinn::Connection,
    resolver: RequestResolver<Backend, Bytes>,
    stopped: Option<Stopped>,
) -> Answered {
    let limits = front.config.quic;
    let Ok(Ok((request, stream))) = timeout(limits.opening, resolver.resolve_request()).await else {
        return Answered::Known;
    };
    let (mut send, recv) = stream.split();
    let certificate = facts_of_quic(&connection);
    let address = Some(connection.remote_address());
    let peer = Peer { address, transport: TRANSPORT, is_secure: true, certificate };
    let request: Request<RequestBody> = request.map(|()| RequestBody(recv));
    let Some(mut stopped) = stopped else { return Answered::Known };
    let answered = tokio::select! {
        answered = Box::pin(answer(&front, request, peer, &mut send)) => answered,
        () = &mut stopped => {
            send.stop_stream(Code::H3_REQUEST_CANCELLED);
            return Answered::Known;
        }
        _ = connection.closed() => return Answered::Unknown,
    };
    if !answered {
        send.stop_stream(Code::H3_REQUEST_CANCELLED);
        return Answered::Unknown;
    }
    // The connection must not be closed before the client has the whole answer.
    match timeout(limits.write_stall, stopped).await {
        Ok(()) => Answered::Known,
        Err(_) => Answered::Unknown,
    }
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
