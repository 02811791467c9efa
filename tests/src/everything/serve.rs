//! Serving it.

use std::net::SocketAddr;

use axum::serve::ListenerExt;
use rmcp::{
    ServiceExt,
    transport::{
        StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio_util::sync::CancellationToken;

use super::Everything;

/// A running HTTP server; dropping it ends it.
pub struct HttpServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl HttpServer {
    /// The endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Waits until it ends.
    pub async fn finished(mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

/// Serves on `address` under `/mcp`.
pub async fn serve_http(server: Everything, address: SocketAddr) -> anyhow::Result<HttpServer> {
    let stop = CancellationToken::new();
    let config = StreamableHttpServerConfig::default()
        .with_cancellation_token(stop.child_token())
        .with_allowed_origins(["http://localhost:*", "http://127.0.0.1:*"]);
    let service =
        StreamableHttpService::new(move || Ok(server.session()), LocalSessionManager::default().into(), config);
    let router = axum::Router::new().nest_service("/mcp", service);
    let listener = tokio::net::TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    // Small answers leave at once: with Nagle's algorithm each would wait for a delayed ACK.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let task = tokio::spawn(async move {
        if let Err(cause) = axum::serve(listener, router).await {
            tracing::error!(%cause, "the fixture's server ended");
        }
    });
    Ok(HttpServer { address, stop, task })
}

/// Serves one client on stdin and stdout until it goes.
pub async fn serve_stdio(server: Everything) -> anyhow::Result<()> {
    let running = server.serve(rmcp::transport::stdio()).await?;
    running.waiting().await?;
    Ok(())
}
