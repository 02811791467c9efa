//! One connection and what is known of the server at its other end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use provost_mcp::{Era, ProtocolVersion, RawJson, RawObject, RequestId, meta::key};
use tokio::task::JoinHandle;

use super::{EraChoice, Handler, Identity, ServerFacts, server_side};
use crate::{ClientError, Connector, Link, LinkError, LinkSender, Outgoing, pending::Pending};

/// See the module. To drop it closes the connection.
pub(super) struct Connected {
    pub(super) identity: Identity,
    pub(super) facts: ServerFacts,
    pub(super) link: LinkSender,
    pending: Arc<Pending>,
    reader: JoinHandle<()>,
}

impl Connected {
    /// Connects and finds out what is spoken.
    pub(super) async fn open(
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
        let mut connected = Self { identity, facts, link: sender, pending, reader };
        connected.facts = connected.negotiate(era, connector.connect_timeout()).await?;
        Ok(connected)
    }

    /// `_meta` of the era.
    pub(super) fn with_meta(&self, mut params: RawObject, progress_token: Option<&str>) -> RawJson {
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

    pub(super) fn client_info(&self) -> RawJson {
        let mut info = RawObject::new();
        info.set_text("name", self.identity.name);
        info.set_text("version", self.identity.version);
        info.finish()
    }

    /// Asks once. Past the limit, and when the future is dropped, the request is cancelled.
    pub(super) async fn ask(
        &self,
        method: &str,
        params: &RawJson,
        limit: Option<Duration>,
    ) -> Result<RawJson, ClientError> {
        let (id, answer) = self.pending.register().map_err(|error| match error {
            LinkError::Busy(_) | LinkError::NotTaken(_) => error,
            // The connection ended before: nothing of this request went out.
            other => LinkError::NotTaken(other.to_string()),
        })?;
        let guard = CancelOnDrop { id: &id, connected: self, is_armed: AtomicBool::new(true) };
        self.link.send(Outgoing::request(&id, method, params)).await?;
        let answered = match limit {
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
    connected: &'a Connected,
    is_armed: AtomicBool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.is_armed.load(Ordering::Relaxed) && self.connected.pending.forget(self.id) {
            self.connected.link.try_send(Outgoing::cancelled(self.id, "the caller stopped waiting"));
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
