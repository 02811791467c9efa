//! The listener of `/metrics`. It lies on an address that only scrapers should reach, and holds out where others do.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::Pages;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A client gets so long to send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// A connection ends after so long: whoever reads slowly keeps no place for ever. Scrapers connect anew.
const CONNECTION_LIMIT: Duration = Duration::from_secs(600);
/// The pause after `accept` failed: without a free file it fails at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `/metrics`, `/readyz` and `/healthz` until cancelled.
pub async fn serve(listener: TcpListener, pages: Pages, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let pages = pages.clone();
        let stop = stop.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let response = pages.respond(request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => (),
                () = stop.cancelled() => (),
                () = tokio::time::sleep(CONNECTION_LIMIT) => (),
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    use super::{super::Sample, *};

    #[tokio::test]
    async fn only_so_many_connections_are_taken_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let pages = Pages::default();
        pages.start(Arc::new(Vec::<Sample>::new), Arc::new(|| Ok(())));
        let serving = tokio::spawn(serve(listener, pages, stop.clone()));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        assert!(timeout(Duration::from_millis(200), asking.read_exact(&mut first)).await.is_err(), "it has no place");
        drop(silent.pop());
        timeout(Duration::from_secs(60), asking.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stop.cancel();
        timeout(Duration::from_secs(60), serving).await.unwrap().unwrap();
    }
}
