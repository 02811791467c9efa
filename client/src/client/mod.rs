//! A client that asks and is answered, in the era that the server speaks.
//!
//! Order (specification 2026-07-28, "Backward compatibility"): ask `server/discover`; whatever a server of
//! the legacy era makes of it (an error, a status, silence), try `initialize`. A refusal of the caller is
//! no sign of an era and ends the attempt.
//!
//! A node that is restarted costs no call: what it refuses because it goes was not begun, and is sent to
//! another one, or to the same once it is back. In the legacy era over a socket or bare QUIC that is a new
//! session, as the session is the connection.

mod again;
mod connected;
mod handshake;
mod server_side;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use provost_mcp::{Era, ProtocolVersion, RawJson, RawObject, RpcError};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

pub use self::again::is_draining;
use self::connected::Connected;
use crate::{ClientError, Connector, LinkError, Transport};

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
    connectors: Vec<Connector>,
    identity: Identity,
    handler: Arc<dyn Handler>,
    facts: ServerFacts,
    current: Mutex<Current>,
}

/// Where the next request goes.
struct Current {
    /// Of the connectors.
    at: usize,
    connected: Arc<Connected>,
}

impl Client {
    /// Connects and finds out what is spoken.
    pub async fn connect(
        connector: &Connector,
        identity: Identity,
        handler: Arc<dyn Handler>,
        era: EraChoice,
    ) -> Result<Self, ClientError> {
        Self::connect_any(std::slice::from_ref(connector), identity, handler, era).await
    }

    /// The same with several addresses of one cluster, any of which will do: the first that answers. Where
    /// one goes, the next is taken.
    pub async fn connect_any(
        connectors: &[Connector],
        identity: Identity,
        handler: Arc<dyn Handler>,
        era: EraChoice,
    ) -> Result<Self, ClientError> {
        let mut last = ClientError::Link(LinkError::Answer("no address was given".to_owned()));
        for (at, connector) in connectors.iter().enumerate() {
            match Connected::open(connector, identity.clone(), handler.clone(), era).await {
                Ok(connected) => {
                    let facts = connected.facts.clone();
                    let current = Mutex::new(Current { at, connected: Arc::new(connected) });
                    return Ok(Self { connectors: connectors.to_vec(), identity, handler, facts, current });
                }
                Err(error) if again::may_pass(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// What the server said of itself when it was first connected to.
    pub fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    /// Asks and waits for the result. Past the deadline, and when the future is dropped, the request is
    /// cancelled. With a progress token the server may tell how far it is.
    ///
    /// A request that no node has begun, since the one that got it goes or is not there, is sent again over
    /// another connection, for 15 seconds at most. One of which that is not certain is never sent again.
    pub async fn request(
        &self,
        method: &str,
        params: RawObject,
        progress_token: Option<&str>,
        deadline: Option<Duration>,
    ) -> Result<RawJson, ClientError> {
        let asked = self.ask_any(method, params, progress_token);
        match deadline {
            Some(limit) => tokio::time::timeout(limit, asked).await.unwrap_or(Err(LinkError::Deadline(limit).into())),
            None => asked.await,
        }
    }

    async fn ask_any(
        &self,
        method: &str,
        params: RawObject,
        progress_token: Option<&str>,
    ) -> Result<RawJson, ClientError> {
        let mut until = None;
        let mut pause = again::PAUSE.0;
        loop {
            let connected = self.current.lock().await.connected.clone();
            let params = connected.with_meta(params.clone(), progress_token);
            let error = match connected.ask(method, &params, None).await {
                Err(error) if again::was_not_taken(&error) => error,
                other => return other,
            };
            let until = *until.get_or_insert_with(|| Instant::now() + again::RESEND_LIMIT);
            if Instant::now() >= until {
                return Err(error);
            }
            tracing::debug!(%error, method, "not taken: it is sent again");
            // One that is refused again at once waits a little longer each time.
            sleep(pause).await;
            pause = (pause * 2).min(again::PAUSE.1);
            self.replace(&connected, until).await?;
        }
    }

    /// Another connection in the place of this one, on which calls in flight go on to their answers.
    async fn replace(&self, old: &Arc<Connected>, until: Instant) -> Result<(), ClientError> {
        if let [connector] = self.connectors.as_slice()
            && matches!(connector.endpoint().transport(), Transport::Http | Transport::Http3)
        {
            // Its link connects anew by itself, and a legacy session is good at every node.
            return Ok(());
        }
        let mut current = self.current.lock().await;
        if !Arc::ptr_eq(&current.connected, old) {
            return Ok(());
        }
        let mut pause = again::PAUSE.0;
        for at in (current.at + 1..).map(|at| at % self.connectors.len().max(1)) {
            let Some(connector) = self.connectors.get(at) else { break };
            let era = EraChoice::Only(self.facts.era);
            match Connected::open(connector, self.identity.clone(), self.handler.clone(), era).await {
                Ok(connected) => {
                    *current = Current { at, connected: Arc::new(connected) };
                    break;
                }
                Err(error) if again::may_pass(&error) && Instant::now() + pause < until => {
                    tracing::debug!(%error, "no connection yet");
                    sleep(pause).await;
                    pause = (pause * 2).min(again::PAUSE.1);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
