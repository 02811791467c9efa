//! Which callers share a legacy connection, and the bounded pool of such connections.
//!
//! A legacy session declares the client's capabilities once and may be asked questions, so:
//! - HTTP: one session for each caller (its own session, else its principal) and capability set.
//! - stdio: one process for each caller that can be asked; all others share the catalogue's.
//! - The catalogue's connection declares every capability, since servers hide tools from clients
//!   that lack one; it lists, and never passes a question on.
//!
//! Invariants: one handshake at a time for one audience, however many calls wait for it; the pool
//! is bounded, and idle members go first; an audience whose process keeps ending is started with
//! growing pauses.

use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_data_pipeline::ClientFacts;
use provost_mcp::{RawJson, RawObject};
use provost_types::PrincipalRef;

use super::connection::Connection;
use crate::{Limits, UpstreamError, siblings::SessionOwner};

/// Capabilities through which a server may ask the client.
const ASKABLE: [&str; 3] = ["elicitation", "sampling", "roots"];
/// The first pause after a failed start.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause that a call waits through.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A connection that lived so long did not fail to start.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// Who shares a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Audience {
    caller: String,
    capabilities: String,
    /// One connection at each endpoint; `None`: one for all, wherever its session lives.
    endpoint: Option<usize>,
}

impl Audience {
    /// Whoever lists.
    pub(super) fn catalogue() -> Self {
        Self { caller: String::new(), capabilities: String::new(), endpoint: None }
    }

    /// One caller's, with one token of theirs: for what is stateless, and still not for others.
    pub(super) fn behalf(key: String) -> Self {
        Self { caller: format!("b:{key}"), capabilities: String::new(), endpoint: None }
    }

    /// The caller's own, or over stdio the shared one for callers that cannot be asked.
    pub(super) fn of(client: &ClientFacts, principal: &PrincipalRef, over_stdio: bool) -> Self {
        if over_stdio && !Self::can_be_asked(client) {
            return Self::catalogue();
        }
        let caller = caller_key(client, principal);
        Self { caller, capabilities: client.capabilities.as_str().to_owned(), endpoint: None }
    }

    /// The same at this endpoint only.
    pub(super) fn at(self, endpoint: usize) -> Self {
        Self { endpoint: Some(endpoint), ..self }
    }

    /// Whether an upstream may ask the client something.
    pub(super) fn can_be_asked(client: &ClientFacts) -> bool {
        let declared = RawObject::parse(&client.capabilities).unwrap_or_default();
        ASKABLE.iter().any(|name| declared.has(name))
    }

    /// As other nodes name it.
    pub(super) fn owner(&self) -> SessionOwner {
        SessionOwner { caller: self.caller.clone(), capabilities: self.capabilities.clone() }
    }

    pub(super) fn is_catalogue(&self) -> bool {
        self.caller.is_empty()
    }

    /// What to declare upstream; extensions are of the modern era.
    pub(super) fn capabilities(&self, full: RawJson) -> RawJson {
        let declared = if self.is_catalogue() { full } else { RawJson::from_checked(self.capabilities.clone().into()) };
        let mut object = RawObject::parse(&declared).unwrap_or_default();
        object.remove("extensions");
        object.finish()
    }
}

impl From<SessionOwner> for Audience {
    fn from(SessionOwner { caller, capabilities }: SessionOwner) -> Self {
        Self { caller, capabilities, endpoint: None }
    }
}

/// Whose calls belong together: a legacy client's session, else the principal.
pub(super) fn caller_key(client: &ClientFacts, principal: &PrincipalRef) -> String {
    match &client.session {
        Some(session) => format!("s:{principal}:{session}"),
        // Every call of a modern client: joined and not formatted.
        None => ["p:", principal.tenant.as_str(), "/", principal.name.as_str()].concat(),
    }
}

/// Whether a caller is of this legacy session, whose key no other one has.
pub(super) fn is_of_session(caller: &str, session: &str) -> bool {
    let rest = caller.strip_prefix("s:").and_then(|rest| rest.strip_suffix(session));
    !session.is_empty() && rest.is_some_and(|rest| rest.ends_with(':'))
}

#[derive(Default)]
struct Member {
    connection: Option<Arc<Connection>>,
    connected_at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    last_failure: Option<(Instant, UpstreamError)>,
}

impl Member {
    fn failed(&mut self, cause: UpstreamError) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some((Instant::now(), cause));
    }

    /// Takes out a connection that has ended.
    fn discard_ended(&mut self) {
        let Some(cause) = self.connection.as_ref().and_then(|c| c.switchboard().closed()) else {
            return;
        };
        self.connection = None;
        if self.connected_at.is_some_and(|at| at.elapsed() >= STABLE_AFTER) {
            self.failures = 0;
        }
        self.failed(cause);
    }
}

type Slot = Arc<tokio::sync::Mutex<Member>>;

/// The legacy connections of one plugin.
pub(super) struct Pool {
    members: Mutex<HashMap<Audience, Slot>>,
    max_members: usize,
    idle_ttl: Duration,
    backoff_max: Duration,
    /// Processes are dear to start; HTTP sessions are not.
    backs_off: bool,
}

impl Pool {
    pub(super) fn new(limits: &Limits, over_stdio: bool) -> Self {
        Self {
            members: Mutex::default(),
            max_members: if over_stdio { limits.max_processes } else { limits.max_sessions },
            idle_ttl: limits.idle_ttl,
            backoff_max: limits.restart_backoff_max,
            backs_off: over_stdio,
        }
    }

    /// The audience's connection, made by `connect` if there is none.
    pub(super) async fn get<F>(
        &self,
        audience: &Audience,
        connect: impl FnOnce() -> F,
    ) -> Result<Arc<Connection>, UpstreamError>
    where
        F: Future<Output = Result<Arc<Connection>, UpstreamError>>,
    {
        let slot = self.slot(audience)?;
        let waiting_since = Instant::now();
        let mut member = slot.lock().await;
        // Whoever waited through a failed handshake shares its failure.
        if let (None, Some((at, cause))) = (&member.connection, &member.last_failure)
            && *at > waiting_since
        {
            return Err(cause.clone());
        }
        member.discard_ended();
        if let Some(connection) = &member.connection {
            return Ok(connection.clone());
        }
        self.pause(&member).await?;
        match connect().await {
            Ok(connection) => {
                member.connection = Some(connection.clone());
                member.connected_at = Some(Instant::now());
                Ok(connection)
            }
            Err(cause) => {
                member.failed(cause.clone());
                Err(cause)
            }
        }
    }

    /// The pause before a process is started again: 100 ms after the second failure in a row, then
    /// doubling. A caller waits through a short one; a long one is an error at once.
    async fn pause(&self, member: &Member) -> Result<(), UpstreamError> {
        let Some((at, cause)) = member.last_failure.as_ref().filter(|_| self.backs_off && member.failures > 1) else {
            return Ok(());
        };
        let doubled = FIRST_BACKOFF.saturating_mul(1 << (member.failures - 2).min(16));
        let pause = doubled.min(self.backoff_max).saturating_sub(at.elapsed());
        if pause > LONGEST_WAIT {
            return Err(cause.clone());
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The audience's connection, if there is one and nobody is just making or ending it.
    pub(super) fn present(&self, audience: &Audience) -> Option<Arc<Connection>> {
        let slot = self.members.lock().get(audience)?.clone();
        let member = slot.try_lock().ok()?;
        member.connection.clone().filter(|connection| !connection.is_closed())
    }

    fn slot(&self, audience: &Audience) -> Result<Slot, UpstreamError> {
        let mut members = self.members.lock();
        if let Some(slot) = members.get(audience) {
            return Ok(slot.clone());
        }
        if members.len() >= self.max_members {
            self.evict(&mut members);
        }
        if members.len() >= self.max_members {
            return Err(UpstreamError::Busy(format!("{} callers hold a session of it", self.max_members)));
        }
        Ok(members.entry(audience.clone()).or_default().clone())
    }

    /// Makes room: the longest idle member that nobody uses.
    fn evict(&self, members: &mut HashMap<Audience, Slot>) {
        let idlest = members
            .iter()
            .filter(|(audience, _)| !audience.is_catalogue())
            .filter_map(|(audience, slot)| Some((audience, unused_for(slot)?)))
            .max_by_key(|(_, idle)| *idle)
            .map(|(audience, _)| audience.clone());
        if let Some(audience) = idlest {
            members.remove(&audience);
        }
    }

    /// Closes what was idle too long. Called now and then.
    pub(super) fn sweep(&self) {
        self.members.lock().retain(|audience, slot| {
            audience.is_catalogue() || unused_for(slot).is_none_or(|idle| idle < self.idle_ttl)
        });
    }

    /// Takes out what a caller's session has: it is over. Calls that still run go on to their ends.
    pub(super) fn take_of(&self, session: &str) -> Vec<(Audience, Arc<Connection>)> {
        let mut members = self.members.lock();
        let over: Vec<Audience> = members.keys().filter(|a| is_of_session(&a.caller, session)).cloned().collect();
        let taken = over.into_iter().filter_map(|audience| Some((members.remove(&audience)?, audience)));
        let connection = |slot: Slot| slot.try_lock().ok().and_then(|member| member.connection.clone());
        taken.filter_map(|(slot, audience)| Some((audience, connection(slot)?))).collect()
    }

    /// Takes the member out if it still holds this connection: its session is gone.
    pub(super) fn forget(&self, audience: &Audience, gone: &Arc<Connection>) {
        gone.close(UpstreamError::SessionGone);
        let mut members = self.members.lock();
        let same = members
            .get(audience)
            .and_then(|slot| slot.try_lock().ok())
            .is_some_and(|m| m.connection.as_ref().is_some_and(|c| Arc::ptr_eq(c, gone)));
        if same {
            members.remove(audience);
        }
    }
}

/// How long the member is idle; `None` while it is used (a call or a listener holds it).
fn unused_for(slot: &Slot) -> Option<Duration> {
    let member = slot.try_lock().ok()?;
    match &member.connection {
        None => Some(Duration::MAX),
        Some(connection) if Arc::strong_count(connection) == 1 => Some(connection.idle()),
        Some(_) => None,
    }
}
