//! The witness's HTTP side: `POST /add-checkpoint`, and nothing else.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use provost_audit_core::{MAX_REQUEST_BYTES, Refusal};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    now_s,
    state::{Witness, WitnessError},
};

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// A client gets so long to send a request's head, and then its body.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// The pause after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` resolves.
pub async fn serve(listener: TcpListener, witness: Witness, stop: impl Future<Output = ()>) {
    let witness = Arc::new(Mutex::new(witness));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(stop);
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let witness = witness.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| answer(witness.clone(), request));
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(READ_LIMIT);
            // A client that breaks off is no matter of ours.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(witness: Arc<Mutex<Witness>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/add-checkpoint" {
        return Ok(response(StatusCode::NOT_FOUND, TEXT, "the witness answers POST /add-checkpoint\n".to_owned()));
    }
    if request.method() != Method::POST {
        return Ok(response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use POST\n".to_owned()));
    }
    let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect();
    let body = match tokio::time::timeout(READ_LIMIT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Ok(response(StatusCode::BAD_REQUEST, TEXT, "the body is too long or cut\n".to_owned())),
        Err(_) => return Ok(response(StatusCode::REQUEST_TIMEOUT, TEXT, "the body did not come\n".to_owned())),
    };
    // The lock makes "compare, then persist" one step, and the fsync has a thread of its own.
    let decided = tokio::task::spawn_blocking(move || witness.lock().add_checkpoint(&body, now_s())).await;
    Ok(match decided {
        Ok(decided) => of_decision(decided),
        Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the witness failed\n".to_owned()),
    })
}

const TEXT: &str = "text/plain; charset=utf-8";
const SIZE: &str = "text/x.tlog.size";

fn of_decision(decided: Result<String, WitnessError>) -> Response<Full<Bytes>> {
    match decided {
        Ok(lines) => response(StatusCode::OK, TEXT, lines),
        Err(WitnessError::Refused(Refusal::Conflict(size))) => {
            response(StatusCode::CONFLICT, SIZE, format!("{size}\n"))
        }
        Err(WitnessError::Refused(refusal)) => {
            tracing::warn!(%refusal, status = refusal.status(), "not cosigned");
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            response(status, TEXT, format!("{refusal}\n"))
        }
        Err(error @ WitnessError::State { .. }) => {
            tracing::error!(%error, "not cosigned");
            response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the witness cannot keep its state\n".to_owned())
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
