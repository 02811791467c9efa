//! A round-robin balancer that knows nothing of MCP: each request, or each connection, goes to the next
//! node. It holds no state of sessions, looks at no health, and goes to the next node where one refuses
//! the connection.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::StatusCode,
    response::Response,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// What takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Each request goes on over a new connection to the next node.
    Requests,
    /// All requests of a connection go to the same node.
    Connections,
}

struct Inner {
    nodes: Vec<SocketAddr>,
    turns: Turns,
    /// Given with each request that has none: the conformance suite sends no token.
    token: Option<String>,
    client: reqwest::Client,
    next: AtomicUsize,
    homes: Mutex<HashMap<SocketAddr, usize>>,
    served: Vec<AtomicUsize>,
}

/// A running balancer; ends with the value.
pub struct Balancer {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Balancer {
    pub async fn start(nodes: Vec<SocketAddr>, turns: Turns, token: Option<&str>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let served = nodes.iter().map(|_| AtomicUsize::new(0)).collect();
        let token = token.map(str::to_owned);
        let (next, homes) = Default::default();
        let inner = Arc::new(Inner { nodes, turns, token, client, next, homes, served });
        let router = Router::new().fallback(forward).with_state(inner.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, inner, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests each node has answered.
    pub fn served(&self) -> Vec<usize> {
        self.inner.served.iter().map(|n| n.load(Ordering::SeqCst)).collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    fn first(&self, client: SocketAddr) -> usize {
        let turn = || self.next.fetch_add(1, Ordering::SeqCst);
        match self.turns {
            Turns::Requests => turn(),
            Turns::Connections => *self.homes.lock().unwrap().entry(client).or_insert_with(turn),
        }
    }
}

async fn forward(
    State(inner): State<Arc<Inner>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 8 << 20).await.unwrap_or_default();
    let first = inner.first(client);
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    for offset in 0..inner.nodes.len() {
        let at = (first + offset) % inner.nodes.len();
        let mut headers = parts.headers.clone();
        headers.remove("content-length");
        headers.remove("connection");
        if let Some(token) = inner.token.as_ref().filter(|_| !headers.contains_key("authorization")) {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let url = format!("http://{}{path}", inner.nodes[at]);
        let sent = inner.client.request(parts.method.clone(), url).headers(headers).body(body.clone()).send().await;
        match sent {
            Ok(answer) => {
                inner.served[at].fetch_add(1, Ordering::SeqCst);
                let mut response = Response::builder().status(answer.status());
                for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
                    response = response.header(name, value);
                }
                return response.body(Body::from_stream(answer.bytes_stream())).unwrap();
            }
            // Nothing was sent.
            Err(cause) if cause.is_connect() => {}
            Err(_) => break,
        }
    }
    Response::builder().status(StatusCode::BAD_GATEWAY).body(Body::empty()).unwrap()
}
