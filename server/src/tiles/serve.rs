//! The listener: routes, tokens, bounded work.

use std::{
    collections::HashMap,
    convert::Infallible,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use provost_audit_core::{CLUSTER_DIR, LogId, TENANTS_DIR, TileName};
use provost_audit_verify::{
    CHECKPOINT_FILE, COSIGNED_FILE, KEY_FILE, LogLayout, LogTiles, ProveError, TilesError, list_logs,
    prove_consistency, prove_inclusion,
};
use provost_wire::tls::{self, Identity};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};

use super::{files, readers::Rights};

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 256;
/// Requests that read files at once; more wait. A tile of a higher level hashes 65,536 leaves.
const MAX_READING: usize = 4;
/// A client gets so long to send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// A connection of HTTP/2 is told to end after so long, whether it asks for something or not.
const H2_LIFE: Duration = Duration::from_secs(600);
/// What it asked for until then may take so long.
const H2_END: Duration = Duration::from_secs(60);
/// Requests at once in one connection of HTTP/2.
const MAX_H2_STREAMS: u32 = 16;
/// The pause after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
const IMMUTABLE: &str = "private, max-age=31536000, immutable";
const FRESH: &str = "private, no-cache";

/// What is served.
pub struct Tiles {
    dir: PathBuf,
    readers: Option<PathBuf>,
    reading: Semaphore,
    connections: Arc<Semaphore>,
}

impl Tiles {
    /// The logs of an audit directory, to the readers that the file lists.
    pub fn new(dir: &Path, readers: Option<PathBuf>) -> Arc<Self> {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Arc::new(Self { dir: dir.to_owned(), readers, reading: Semaphore::new(MAX_READING), connections })
    }

    /// Serves for ever: plain on loopback, else TLS with the node's certificate.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, identity: Option<Arc<Identity>>) {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "audit tiles are served");
        }
        let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        match identity.filter(|_| !loopback) {
            Some(identity) => {
                let mut incoming = tls::incoming(listener, identity, tls::Limits::default(), None);
                while let Some(Ok(stream)) = incoming.next().await {
                    let is_http2 = stream.is_http2();
                    self.clone().connection(stream, is_http2).await;
                }
            }
            None => loop {
                match listener.accept().await {
                    Ok((stream, _)) => self.clone().connection(stream, false).await,
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            },
        }
    }

    async fn connection(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http2: bool) {
        let Ok(place) = self.connections.clone().acquire_owned().await else { return };
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let tiles = self.clone();
                async move { Ok::<_, Infallible>(tiles.answer(request).await) }
            });
            // A client that breaks off is no matter of ours.
            if !is_http2 {
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
                return;
            }
            let mut server = http2::Builder::new(TokioExecutor::new());
            server.timer(TokioTimer::new()).max_concurrent_streams(MAX_H2_STREAMS);
            let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                _ = &mut connection => return,
                () = tokio::time::sleep(H2_LIFE) => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(H2_END, connection).await;
        });
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        let get = request.method() == Method::GET;
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let Ok(_turn) = self.reading.acquire().await else { return failed() };
        let tiles = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let rights = Rights::of(tiles.readers.as_deref(), &token);
            if rights.is_empty() {
                return Err(Refused::Unauthorized);
            }
            if get { tiles.read(&rights, &path, &query) } else { Err(Refused::Method) }
        });
        match read.await {
            Ok(Ok(found)) => found.response(),
            Ok(Err(refused)) => refused.response(),
            Err(_) => failed(),
        }
    }

    fn read(&self, rights: &Rights, path: &str, query: &str) -> Result<Found, Refused> {
        if path == "/logs" {
            return self.logs(rights);
        }
        let (log, rest) = log_of(path).ok_or(Refused::NotFound)?;
        // The same answer for a log that is not there and for one that is not theirs.
        let there = rights.may_read(&log) && list_logs(&self.dir).is_ok_and(|logs| logs.contains(&log));
        if !there {
            return Err(Refused::NotFound);
        }
        let layout = LogLayout::new(self.dir.join(log.folder()));
        match rest {
            CHECKPOINT_FILE | COSIGNED_FILE | KEY_FILE => {
                let bytes = std::fs::read(layout.dir.join(rest)).map_err(|_| Refused::NotFound)?;
                Ok(Found { kind: TEXT, cache: FRESH, bytes })
            }
            "prove/inclusion" | "prove/consistency" => {
                let number = numbers(query)?;
                let wanted = |name: &str| number.get(name).copied();
                let proof = match rest {
                    "prove/inclusion" => {
                        let index = wanted("index").ok_or(Refused::Request("give index=N, and size=N"))?;
                        prove_inclusion(&layout, index, wanted("size")).map(|proof| proof.to_text())
                    }
                    _ => {
                        let old = wanted("old").ok_or(Refused::Request("give old=N, and new=N"))?;
                        prove_consistency(&layout, old, wanted("new")).map(|proof| proof.to_text())
                    }
                };
                Ok(Found { kind: TEXT, cache: FRESH, bytes: proof?.into_bytes() })
            }
            "files" => {
                let list = files::list(&layout).map_err(|e| Refused::Failed(e.to_string()))?;
                Ok(Found { kind: TEXT, cache: FRESH, bytes: list.into_bytes() })
            }
            tile => match tile.strip_prefix("files/") {
                Some(name) => {
                    let offset = numbers(query)?.get("offset").copied().unwrap_or(0);
                    let part = files::part(&layout, name, offset).map_err(|e| Refused::Failed(e.to_string()))?;
                    Ok(Found { kind: BYTES, cache: FRESH, bytes: part.ok_or(Refused::NotFound)? })
                }
                None => {
                    let name = TileName::parse(tile).ok_or(Refused::NotFound)?;
                    let bytes = LogTiles::open(layout)?.tile(&name)?.ok_or(Refused::NotFound)?;
                    Ok(Found { kind: BYTES, cache: IMMUTABLE, bytes })
                }
            },
        }
    }

    /// The folders of the logs that may be read, one a line.
    fn logs(&self, rights: &Rights) -> Result<Found, Refused> {
        let logs = list_logs(&self.dir).map_err(|e| Refused::Failed(e.to_string()))?;
        let logs = logs.iter().filter(|log| rights.may_read(log));
        let bytes = logs.map(|log| format!("{}\n", log.folder().display())).collect::<String>().into_bytes();
        Ok(Found { kind: TEXT, cache: FRESH, bytes })
    }
}

/// The log that a path is of, and the path below it.
fn log_of(path: &str) -> Option<(LogId, &str)> {
    let path = path.strip_prefix('/')?;
    if let Some(rest) = path.strip_prefix(CLUSTER_DIR).and_then(|rest| rest.strip_prefix('/')) {
        return Some((LogId::CLUSTER, rest));
    }
    let (name, rest) = path.strip_prefix(TENANTS_DIR)?.strip_prefix('/')?.split_once('/')?;
    Some((LogId(Some(provost_types::Name::new(name).ok()?)), rest))
}

fn numbers(query: &str) -> Result<HashMap<String, u64>, Refused> {
    let pair = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        let value = value.parse().map_err(|_| Refused::Request("a parameter is no number"))?;
        Ok((name.into_owned(), value))
    };
    url::form_urlencoded::parse(query.as_bytes()).map(pair).collect()
}

struct Found {
    kind: &'static str,
    cache: &'static str,
    bytes: Vec<u8>,
}

impl Found {
    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.bytes)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(self.cache));
        response
    }
}

enum Refused {
    Unauthorized,
    Method,
    NotFound,
    Request(&'static str),
    /// Ours to look into; the reader learns no more.
    Failed(String),
}

impl Refused {
    fn response(self) -> Response<Full<Bytes>> {
        let (status, text) = match self {
            Refused::Unauthorized => (StatusCode::UNAUTHORIZED, "PV-AUDIT-READER: a token for this log is needed"),
            Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, "use GET"),
            Refused::NotFound => (StatusCode::NOT_FOUND, "there is no such thing here"),
            Refused::Request(text) => (StatusCode::BAD_REQUEST, text),
            Refused::Failed(why) => {
                tracing::error!(code = "PV-AUDIT-TILES", why, "a tile cannot be served");
                return failed();
            }
        };
        let mut response = plain(status, text);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<TilesError> for Refused {
    fn from(error: TilesError) -> Self {
        match error {
            TilesError::NoCheckpoint(_) => Refused::NotFound,
            error => Refused::Failed(error.to_string()),
        }
    }
}

impl From<ProveError> for Refused {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::NotSigned { .. } => Refused::NotFound,
            error => Refused::Failed(error.to_string()),
        }
    }
}

fn failed() -> Response<Full<Bytes>> {
    plain(StatusCode::INTERNAL_SERVER_ERROR, "PV-AUDIT-TILES: the log cannot be read; its operator knows why")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_log() {
        let found = |path| log_of(path).map(|(log, rest)| (log.tenant().to_owned(), rest.to_owned()));
        assert_eq!(found("/cluster/checkpoint"), Some((String::new(), "checkpoint".to_owned())));
        assert_eq!(found("/tenants/acme/tile/0/000"), Some(("acme".to_owned(), "tile/0/000".to_owned())));
        for nothing in ["", "/", "cluster/checkpoint", "/clusterx/y", "/tenants/", "/tenants/../x", "/tenants/a b/x"] {
            assert_eq!(found(nothing), None, "{nothing}");
        }
    }
}
