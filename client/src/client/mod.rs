//! A client that asks and is answered, in the era that the server speaks.
//!
//! Order (specification 2026-07-28, "Backward compatibility"): ask `server/discover`; whatever a server of
//! the legacy era makes of it (an error, a status, silence), try `initialize`. A refusal of the caller is
//! no sign of an era and ends the attempt.

mod handshake;
mod server_side;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use provost_mcp::{Era, ProtocolVersion, RawJson, RawObject, RequestId, RpcError, meta::key};
use tokio::task::JoinHandle;

use crate::{ClientError, Connector, Link, LinkError, LinkSender, Outgoing, pending::Pending};

/// Which era to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EraChoice {
    /// What the server speaks, the modern one if it speaks both.
    Auto,
    /// This one.
    Only(Era),
}

/// How a client introduces itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it can do for the server, an object.
    pub capabilities: RawJson,
}

/// What the server says of itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// The era that is spoken.
    pub era: Era,
    /// The revision that is spoken.
    pub version: ProtocolVersion,
    /// What it can do, an object.
    pub capabilities: RawJson,
}

/// What a client does with what the server begins.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request of the server (legacy era).
    fn request(&self, method: String, params: Option<RawJson>) -> BoxFuture<'static, Result<RawJson, RpcError>>;
    /// Takes a notification. Must return soon: the next message waits.
    fn notification(&self, method: &str, params: Option<&RawJson>);
}

/// A client that serves no request and takes no notice.
pub struct NoHandler;

impl Handler for NoHandler {
    fn request(&self, method: String, _: Option<RawJson>) -> BoxFuture<'static, Result<RawJson, RpcError>> {
        let error = RpcError::new(RpcError::METHOD_NOT_FOUND, format!("this client does not serve {method}"));
        Box::pin(async move { Err(error) })
    }

    fn notification(&self, _: &str, _: Option<&RawJson>) {}
}

/// See the module. To drop it closes the connection.
pub struct Client {
    identity: Identity,
    facts: ServerFacts,
    link: LinkSender,
    pending: Arc<Pending>,
    reader: JoinHandle<()>,
}

impl Client {
    /// Connects and finds out what is spoken.
    pub async fn connect(
        connector: &Connector,
        identity: Identity,
        handler: Arc<dyn Handler>,
        era: EraChoice,
    ) -> Result<Self, ClientError> {
        let Link { sender, receiver } = Link::open(connector).await?;
        let pending = Arc::new(Pending::default());
        let reader = tokio::spawn(server_side::read(receiver, sender.clone(), pending.clone(), handler));
        let facts =
            ServerFacts { era: Era::Modern, version: ProtocolVersion::LATEST, capabilities: RawJson::EMPTY_OBJECT };
        let mut client = Self { identity, facts, link: sender, pending, reader };
        client.facts = client.negotiate(era, connector.connect_timeout()).await?;
        Ok(client)
    }

    /// What the server says of itself.
    pub fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    /// Asks and waits for the result. Past the deadline, and when the future is dropped, the request is
    /// cancelled. With a progress token the server may tell how far it is.
    pub async fn request(
        &self,
        method: &str,
        params: RawObject,
        progress_token: Option<&str>,
        deadline: Option<Duration>,
    ) -> Result<RawJson, ClientError> {
        let params = self.with_meta(params, progress_token);
        self.ask(method, &params, deadline).await
    }

    /// `_meta` of the era.
    fn with_meta(&self, mut params: RawObject, progress_token: Option<&str>) -> RawJson {
        let mut meta = params.get_object("_meta").unwrap_or_default();
        if self.facts.era == Era::Modern {
            meta.set_text(key::PROTOCOL_VERSION, self.facts.version.as_str());
            meta.set(key::CLIENT_INFO, self.client_info());
            meta.set(key::CLIENT_CAPABILITIES, self.identity.capabilities.clone());
        }
        if let Some(token) = progress_token {
            meta.set_text(key::PROGRESS_TOKEN, token);
        }
        if !meta.is_empty() {
            params.set("_meta", meta.finish());
        }
        params.finish()
    }

    fn client_info(&self) -> RawJson {
        let mut info = RawObject::new();
        info.set_text("name", self.identity.name);
        info.set_text("version", self.identity.version);
        info.finish()
    }

    async fn ask(&self, method: &str, params: &RawJson, deadline: Option<Duration>) -> Result<RawJson, ClientError> {
        let (id, answer) = self.pending.register()?;
        let guard = CancelOnDrop { id: &id, client: self, is_armed: AtomicBool::new(true) };
        self.link.send(Outgoing::request(&id, method, params)).await?;
        let answered = match deadline {
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| LinkError::Deadline(limit))?,
            None => answer.await,
        };
        guard.is_armed.store(false, Ordering::Relaxed);
        answered.unwrap_or_else(|_| Err(LinkError::Lost("it was closed".to_owned()).into()))
    }
}

/// Tells the server that nobody waits any more.
struct CancelOnDrop<'a> {
    id: &'a RequestId,
    client: &'a Client,
    is_armed: AtomicBool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.is_armed.load(Ordering::Relaxed) && self.client.pending.forget(self.id) {
            self.client.link.try_send(Outgoing::cancelled(self.id, "the caller stopped waiting"));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
