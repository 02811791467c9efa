//! The client: reqwest with a resolver that checks.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use provost_types::BoxFuture;
use reqwest::{
    Client, ClientBuilder, Method, RequestBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
};
use rustls::client::ResolvesClientCert;
use secrecy::SecretString;

use super::{AddressRefused, CheckedUrl, ClientUnmade, EgressRule, line::Line, tls};

/// Longest time for a TCP and TLS handshake.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections kept to one host.
pub(super) const MAX_IDLE_CONNECTIONS: usize = 64;

/// What an answer of [`EgressClient::exchange`] carries.
pub type EgressBody = reqwest::Body;

/// Asks a name server.
pub trait Lookup: Send + Sync {
    /// All addresses of a name.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The name servers of this machine.
struct System;

impl Lookup for System {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            // As a task: a thread that asks may be made for this, with the priority of who makes it, and a plugin's call that
            // computes for long has a low one.
            let asked = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                Ok::<Vec<IpAddr>, io::Error>(found.map(|address| address.ip()).collect())
            });
            asked.await.map_err(io::Error::other)?
        })
    }
}

/// Sends requests where its rule lets it. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct EgressClient {
    http: Client,
    rule: Arc<EgressRule>,
    lookup: Arc<dyn Lookup>,
}

impl EgressClient {
    /// A client with connections of its own.
    pub fn new(rule: EgressRule) -> Result<Self, ClientUnmade> {
        Self::with_lookup(rule, Arc::new(System))
    }

    /// One that speaks HTTP/2 alone, for gRPC. `certificate`: PEM, what it shows of itself and its private key.
    pub fn http2(rule: EgressRule, certificate: Option<&SecretString>) -> Result<Self, ClientUnmade> {
        let with = |http: ClientBuilder| http.http2_prior_knowledge().http2_adaptive_window(true);
        let shown = certificate.map(tls::client_certificate).transpose()?;
        Self::build(rule, Arc::new(System), (&[b"h2"], shown), with)
    }

    /// The same with other name servers.
    pub fn with_lookup(rule: EgressRule, lookup: Arc<dyn Lookup>) -> Result<Self, ClientUnmade> {
        Self::build(rule, lookup, (&[b"h2", b"http/1.1"], None), |http| http)
    }

    fn build(
        rule: EgressRule,
        lookup: Arc<dyn Lookup>,
        (protocols, shown): (&[&[u8]], Option<Arc<dyn ResolvesClientCert>>),
        with: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, ClientUnmade> {
        let rule = Arc::new(rule);
        // Whoever installed a provider first wins; all of ours is aws-lc-rs.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut tls = tls::client_config().map_err(|cause| ClientUnmade(cause.to_string()))?;
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        if let Some(shown) = shown {
            tls.client_auth_cert_resolver = shown;
        }
        let http = with(Client::builder().tls_backend_preconfigured(tls))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(CheckedResolver { rule: rule.clone(), lookup: lookup.clone() })
            .connect_timeout(DIAL_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            .build()
            .map_err(|cause| ClientUnmade(cause.to_string()))?;
        Ok(Self { http, rule, lookup })
    }

    /// Checks a URL without resolving it.
    pub fn check(&self, url: &str) -> Result<CheckedUrl, AddressRefused> {
        self.rule.check(url)
    }

    /// A request to a URL that was checked (by this client's rule, or one that is stricter).
    pub fn request(&self, method: Method, url: &CheckedUrl) -> RequestBuilder {
        self.http.request(method, url.as_url().clone())
    }

    /// Connections of its own to a place that is reached over plain HTTP, and that is asked often; `None`: it is not.
    pub(crate) fn line(&self, url: &CheckedUrl) -> Option<Arc<Line>> {
        Line::new(url, &self.rule, &self.lookup)
    }

    /// Posts a body and hands over the answer as it comes, trailers too.
    pub async fn exchange(
        &self,
        url: &CheckedUrl,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<http::Response<EgressBody>, reqwest::Error> {
        self.request(Method::POST, url).headers(headers).body(body).send().await.map(http::Response::from)
    }

    /// Why the request was not sent, if its name resolved to an address that is refused.
    pub fn refusal(error: &reqwest::Error) -> Option<AddressRefused> {
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            if let Some(refused) = inner.downcast_ref::<AddressRefused>() {
                return Some(refused.clone());
            }
            source = inner.source();
        }
        None
    }

    /// The innermost cause, which names neither the URL nor what its query carries.
    pub fn cause(error: reqwest::Error) -> String {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = inner.to_string();
            source = inner.source();
        }
        text
    }
}

/// Resolves names to checked addresses only.
struct CheckedResolver {
    rule: Arc<EgressRule>,
    lookup: Arc<dyn Lookup>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (rule, name) = (self.rule.clone(), name.as_str().to_owned());
        let found = self.lookup.lookup(name.clone());
        Box::pin(async move {
            let found = found.await?;
            rule.check_resolved(&name, &found)?;
            Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers differently each time it is asked.
    struct Scripted(Vec<Vec<IpAddr>>, AtomicUsize);

    impl Lookup for Scripted {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let turn = self.1.fetch_add(1, Ordering::SeqCst);
            let answer = self.0[turn.min(self.0.len() - 1)].clone();
            Box::pin(async move { Ok(answer) })
        }
    }

    fn resolver(answers: &[&[&str]]) -> CheckedResolver {
        let answers = answers.iter().map(|a| a.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        let lookup = Arc::new(Scripted(answers, AtomicUsize::new(0)));
        CheckedResolver { rule: Arc::new(EgressRule::public()), lookup }
    }

    #[tokio::test]
    async fn a_name_that_turns_private_is_refused_when_it_does() {
        let resolver = resolver(&[&["1.1.1.1"], &["169.254.169.254"], &["1.1.1.1", "10.0.0.1"], &["1.0.0.1"]]);
        let mut verdicts = Vec::new();
        for _ in 0..4 {
            let resolved = resolver.resolve("rebind.example".parse().unwrap()).await;
            verdicts.push(resolved.map(|addresses| addresses.map(|a| a.ip().to_string()).collect::<Vec<_>>()).ok());
        }
        let taken = |ip: &str| Some(vec![ip.to_owned()]);
        assert_eq!(verdicts, [taken("1.1.1.1"), None, None, taken("1.0.0.1")]);
    }

    #[tokio::test]
    async fn a_refused_name_is_told_apart_from_one_that_cannot_be_reached() {
        let lookup = Arc::new(Scripted(vec![vec!["10.0.0.1".parse().unwrap()]], AtomicUsize::new(0)));
        let client = EgressClient::with_lookup(EgressRule::public(), lookup).unwrap();
        let url = client.check("https://private.example/mcp?key=hidden").unwrap();
        let error = client.request(Method::GET, &url).send().await.unwrap_err();
        let refused = EgressClient::refusal(&error).unwrap().to_string();
        assert!(refused.starts_with("private.example resolves to 10.0.0.1"), "{refused}");
        assert!(!EgressClient::cause(error).contains("hidden"));
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_nothing_follows_it() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await.unwrap();
            let answer = format!("HTTP/1.1 307 T\r\nlocation: http://{address}/next\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            // A client that follows it comes back on this connection or on another one.
            tokio::select! {
                again = stream.read(&mut buffer) => again.unwrap_or(0),
                _ = listener.accept() => 1,
            }
        });
        let client = EgressClient::new(EgressRule::public()).unwrap();
        let url = client.check(&format!("http://{address}/first")).unwrap();
        assert_eq!(client.request(Method::GET, &url).send().await.unwrap().status(), 307);
        drop(client);
        assert_eq!(served.await.unwrap(), 0, "something followed");
    }
}
