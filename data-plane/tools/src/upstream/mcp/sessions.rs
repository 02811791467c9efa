//! Legacy sessions with an HTTP upstream that every node can take up.
//!
//! The node where a caller's things live opens its session, one at a time, and lets all others know its
//! id; they take it up by that. A node that becomes that place asks the others first. So an upstream
//! session lives as long as any node that has used it, and no longer than its upstream keeps it.
//!
//! Of several endpoints a session lives at the one that gave its id, for every node. It is given up when that one is
//! not reached or left out; the caller then gets a new one elsewhere, as when an upstream forgets a session.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_mcp::RawJson;

use super::{
    super::{
        audience::{Audience, is_of_session},
        connection::Connection,
        endpoints::{Endpoints, Turn},
        handshake,
    },
    McpUpstream, Target,
};
use crate::{
    UpstreamError,
    resilience::{Tries, Verdict, of_failure},
    siblings::{Kin, SessionOwner, SharedSession},
};

/// Sessions of other nodes that are remembered, of one plugin.
const MAX_KNOWN: usize = 1_024;
/// For so long.
const KNOWN_TTL: Duration = Duration::from_secs(3_600);
/// Nodes that are asked in turn.
const MAX_TRIES: usize = 3;

/// A session that a client has ended is waited for while calls run in it, at most so long.
const IN_USE_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const IN_USE_PAUSE: Duration = Duration::from_millis(200);

/// Who is asked for a session before it is opened here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// The node where the caller's things live, if that is another one.
    Owner,
    /// Nobody opens it for this node: it was asked to.
    Nobody,
}

/// What is known of sessions beside the connections of this node.
#[derive(Default)]
pub(super) struct KnownSessions {
    /// That other nodes opened.
    known: Mutex<HashMap<SessionOwner, (SharedSession, Instant)>>,
    /// The last one of each owner that was gone when a node used it.
    gone: Mutex<HashMap<SessionOwner, String>>,
}

impl KnownSessions {
    fn note(&self, owner: SessionOwner, session: SharedSession) {
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, (_, since)| since.elapsed() < KNOWN_TTL);
        }
        if known.len() >= MAX_KNOWN {
            let oldest = known.iter().min_by_key(|(_, (_, since))| *since).map(|(owner, _)| owner.clone());
            if let Some(oldest) = oldest {
                known.remove(&oldest);
            }
        }
        known.insert(owner, (session, Instant::now()));
    }

    fn get(&self, owner: &SessionOwner) -> Option<SharedSession> {
        let known = self.known.lock();
        known.get(owner).filter(|(_, since)| since.elapsed() < KNOWN_TTL).map(|(session, _)| session.clone())
    }

    fn is_gone(&self, owner: &SessionOwner, id: &str) {
        self.known.lock().retain(|known, (session, _)| known != owner || session.id != id);
        let mut gone = self.gone.lock();
        if gone.len() >= MAX_KNOWN {
            gone.clear();
        }
        gone.insert(owner.clone(), id.to_owned());
    }

    /// Takes out those of a caller's session.
    fn take_of(&self, session: &str) -> Vec<SharedSession> {
        self.gone.lock().retain(|owner, _| !is_of_session(&owner.caller, session));
        let mut known = self.known.lock();
        let over: Vec<SessionOwner> = known.keys().filter(|o| is_of_session(&o.caller, session)).cloned().collect();
        over.iter().filter_map(|owner| known.remove(owner)).map(|(session, _)| session).collect()
    }
}

impl McpUpstream {
    /// Forgets a session that the upstream does not know any more.
    pub(super) fn session_gone(&self, audience: &Audience, connection: &Arc<Connection>) {
        self.legacy.forget(audience, connection);
        if let Some(id) = connection.session_id() {
            self.sessions.is_gone(&audience.owner(), id);
        }
    }

    /// A connection in the caller's session, which may have been opened by another node.
    pub(super) async fn shared_session(
        &self,
        kin: &Kin,
        endpoints: &Endpoints,
        at: usize,
        audience: &Audience,
        capabilities: &RawJson,
        asking: Asking,
    ) -> Result<Arc<Connection>, UpstreamError> {
        let owner = audience.owner();
        let target = endpoints.target(at);
        // Kept: a try that fails must not bring it back from a node that does not know yet.
        let gone = self.sessions.gone.lock().get(&owner).cloned();
        for _ in 0..MAX_TRIES {
            let Some(node) = kin.owner(&owner.caller).filter(|_| asking == Asking::Owner) else { break };
            match kin.nodes.session(&node, &kin.plugin, &owner, gone.as_deref()).await {
                Ok(Some(session)) => return Ok(Connection::resumed(endpoints.target(session.endpoint), session)),
                Ok(None) => return handshake::initialize_http(target, capabilities, true).await,
                Err(cause) => {
                    tracing::info!(plugin = self.plugin, ?node, %cause, "an upstream session is asked elsewhere")
                }
            }
        }
        let known = match self.sessions.get(&owner) {
            Some(known) => Some(known),
            None => kin.nodes.known_session(&kin.plugin, &owner).await,
        };
        if let Some(session) = known.filter(|session| Some(session.id.as_str()) != gone.as_deref()) {
            return Ok(Connection::resumed(endpoints.target(session.endpoint), session));
        }
        let connection = handshake::initialize_http(target, capabilities, true).await?;
        if let Some(session) = connection.share() {
            kin.nodes.share_session(&kin.plugin, &owner, &session).await;
        }
        Ok(connection)
    }

    /// Who a caller's connection is for, at several endpoints: where nothing is kept in sessions any endpoint does;
    /// else there is one session, wherever it lives, and it is given up when its endpoint is out.
    pub(super) fn session_home(&self, audience: Audience, turn: &mut Turn<'_>) -> Audience {
        let Some(endpoints) = self.several() else { return audience };
        if self.is_stateless.load(Ordering::Relaxed) {
            return audience.at(turn.at());
        }
        if let Some(present) = self.legacy.present(&audience).filter(|c| endpoints.is_out(c.endpoint())) {
            tracing::info!(
                plugin = self.plugin,
                endpoint = present.endpoint(),
                "an upstream session ends with its endpoint"
            );
            self.session_gone(&audience, &present);
        }
        audience
    }

    /// A client has ended its session: what this plugin has for it goes. `tells`: its upstream sessions end too,
    /// whichever node opened them, and whether that is there or not. The upstream's answer is not waited for.
    pub(crate) fn end_session(&self, session: &str, tells: bool) {
        let connections = self.legacy.take_of(session);
        self.modern.take_of(session);
        let mut known = self.sessions.take_of(session);
        known.retain(|known| connections.iter().all(|(_, c)| c.session_id() != Some(known.id.as_str())));
        let Target::Http(endpoints) = &self.target else { return };
        if !tells {
            return;
        }
        let resumed = known.into_iter().map(|known| Connection::resumed(endpoints.target(known.endpoint), known));
        let ending: Vec<_> = connections.into_iter().map(|(_, connection)| connection).chain(resumed).collect();
        if ending.is_empty() {
            return;
        }
        tokio::spawn(async move {
            for connection in ending {
                // A call that was begun goes on to its end, though its client has gone.
                let since = Instant::now();
                while Arc::strong_count(&connection) > 1 && since.elapsed() < IN_USE_LIMIT {
                    tokio::time::sleep(IN_USE_PAUSE).await;
                }
                connection.end_shared().await;
            }
        });
    }

    /// What another node opened.
    pub(crate) fn note_session(&self, owner: SessionOwner, session: SharedSession) {
        self.sessions.note(owner, session);
    }

    /// The owner's session as far as this node knows it; opens none.
    pub(crate) fn known_session(&self, owner: &SessionOwner) -> Option<SharedSession> {
        let connection = self.legacy.present(&Audience::from(owner.clone()));
        connection.and_then(|connection| connection.share()).or_else(|| self.sessions.get(owner))
    }

    /// The owner's session, for another node; opened if there is none. `None`: it has no id.
    pub(crate) async fn session_for(
        &self,
        owner: &SessionOwner,
        gone: Option<&str>,
    ) -> Result<Option<SharedSession>, UpstreamError> {
        let audience = Audience::from(owner.clone());
        if let Some(gone) = gone {
            let present = self.legacy.present(&audience);
            if let Some(connection) = present.filter(|connection| connection.session_id() == Some(gone)) {
                self.session_gone(&audience, &connection);
            }
            self.sessions.is_gone(owner, gone);
        }
        let tries = Tries::new(true);
        loop {
            let mut turn = self.turn(&tries);
            let audience = self.session_home(audience.clone(), &mut turn);
            match self.connect_legacy(&audience, Asking::Nobody, None, turn.at()).await {
                Ok(connection) => return Ok(connection.share()),
                Err(cause) => {
                    turn.settle(of_failure(&cause, true));
                    if of_failure(&cause, true) != Verdict::Bad || !self.has_other(&tries) {
                        return Err(cause);
                    }
                }
            }
        }
    }

    /// Where legacy HTTP sessions are shared.
    pub(super) fn sharing(&self, audience: &Audience) -> Option<(&Kin, &Endpoints)> {
        match (&self.kin, &self.target) {
            (Some(kin), Target::Http(endpoints)) if !audience.is_catalogue() => Some((kin, endpoints)),
            _ => None,
        }
    }
}
