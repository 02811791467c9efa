//! What this node knows of legacy sessions beyond their ids: open streams, calls in flight, the
//! log level. All of it can be lost; the client then gets fewer notifications, never a wrong one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use provost_mcp::LogLevel;
use provost_types::PrincipalRef;
use tokio_util::sync::CancellationToken;

use super::outlet::Outlet;
use crate::{
    http::{Outbox, OutboxKind},
    siblings::Tag,
};

/// Sessions of one principal with state on one node; the oldest loses its state.
const MAX_SESSIONS_PER_PRINCIPAL: usize = 1_024;
/// Sessions with state on one node.
const MAX_SESSIONS: usize = 65_536;
/// Ended sessions that are remembered, so that their ids stay refused.
const MAX_ENDED: usize = 65_536;
/// Streams kept for a session whose client may come back for the rest.
const MAX_STREAMS: usize = 32;
/// Bytes kept in them; streams that are over go first.
const MAX_STREAM_BYTES: usize = 8 * 1024 * 1024;
/// A session that was idle this long loses its state here, in seconds.
const IDLE_S: u64 = 3_600;
/// How often idle sessions are looked for, in seconds.
const SWEEP_EVERY_S: u64 = 60;
/// Calls in flight in one session.
pub(super) const MAX_RUNNING: usize = 256;
/// GET streams open at once in one session.
pub(super) const MAX_LISTENERS: usize = 4;

/// Sessions of connections that are noted before those that are over are looked for.
const MIN_HELD: usize = 64;

/// A stream of a session.
pub(super) struct Stream {
    pub(super) number: u64,
    pub(super) outbox: Arc<Outbox>,
    /// Behind a GET (else behind a POST).
    pub(super) is_listener: bool,
}

/// State of one session on this node.
pub(super) struct LocalSession {
    pub(super) principal: PrincipalRef,
    pub(super) level: Mutex<Option<LogLevel>>,
    /// Cancelled when the session ends.
    pub(super) ended: CancellationToken,
    running: Mutex<HashMap<String, CancellationToken>>,
    streams: Mutex<(u64, VecDeque<Stream>)>,
    /// Of a session that is a connection: where it hears what concerns no call.
    listener: Mutex<Option<Weak<dyn Outlet>>>,
    /// Unix seconds.
    used_s: AtomicU64,
    /// In the ids of its streams' events.
    tag: Tag,
}

impl LocalSession {
    pub(super) fn new(principal: PrincipalRef, tag: Tag) -> Self {
        Self {
            tag,
            used_s: AtomicU64::new(0),
            principal,
            level: Mutex::new(None),
            ended: CancellationToken::new(),
            running: Mutex::new(HashMap::new()),
            streams: Mutex::new((1, VecDeque::new())),
            listener: Mutex::new(None),
        }
    }

    /// From now on the session's connection hears there what concerns no call.
    pub(super) fn listens(&self, outlet: &Arc<dyn Outlet>) {
        *self.listener.lock() = Some(Arc::downgrade(outlet));
    }

    /// A new stream; the oldest that is over (or else the oldest) makes room.
    pub(super) fn open_stream(&self, is_listener: bool, primed: bool) -> Arc<Outbox> {
        let mut streams = self.streams.lock();
        let number = streams.0;
        streams.0 += 1;
        let outbox = Outbox::new(OutboxKind::Resumable { stream: number, primed, tag: self.tag });
        while streams.1.len() >= MAX_STREAMS
            || streams.1.iter().map(|s| s.outbox.kept_bytes()).sum::<usize>() > MAX_STREAM_BYTES
        {
            let over = streams.1.iter().position(|s| s.outbox.is_finished()).unwrap_or(0);
            streams.1.remove(over);
        }
        streams.1.push_back(Stream { number, outbox: outbox.clone(), is_listener });
        outbox
    }

    /// Gives a stream up.
    pub(super) fn close_stream(&self, outbox: &Arc<Outbox>) {
        outbox.close();
        self.streams.lock().1.retain(|s| !Arc::ptr_eq(&s.outbox, outbox));
    }

    /// The stream of that number.
    pub(super) fn stream(&self, number: u64) -> Option<Arc<Outbox>> {
        let streams = self.streams.lock();
        streams.1.iter().find(|s| s.number == number).map(|s| s.outbox.clone())
    }

    /// How many GET streams are open.
    pub(super) fn listeners(&self) -> usize {
        let streams = self.streams.lock();
        streams.1.iter().filter(|s| s.is_listener && !s.outbox.is_finished()).count()
    }

    /// Says something that concerns no call on one of the GET streams, as the protocol demands: on one only; or on
    /// the connection that the session is.
    pub(super) fn announce(&self, message: &Bytes) -> bool {
        let streams = self.streams.lock();
        if let Some(open) = streams.1.iter().find(|s| s.is_listener && !s.outbox.is_finished()) {
            open.outbox.push(message);
            return true;
        }
        drop(streams);
        let listener = self.listener.lock().as_ref().and_then(Weak::upgrade);
        listener.filter(|outlet| !outlet.is_finished()).map(|outlet| outlet.push(message)).is_some()
    }

    /// Notes a call in flight under its id; `false`: too many, or the id is in use.
    pub(super) fn begin(&self, id: &str, cancel: &CancellationToken) -> bool {
        let mut running = self.running.lock();
        if running.len() >= MAX_RUNNING || running.contains_key(id) {
            return false;
        }
        running.insert(id.to_owned(), cancel.clone());
        true
    }

    pub(super) fn done(&self, id: &str) {
        self.running.lock().remove(id);
    }

    /// Cancels a call; `false`: none of this id runs.
    pub(super) fn cancel(&self, id: &str) -> bool {
        let token = self.running.lock().get(id).cloned();
        token.map(|token| token.cancel()).is_some()
    }

    fn is_idle(&self, now_s: u64) -> bool {
        now_s.saturating_sub(self.used_s.load(Ordering::Relaxed)) >= IDLE_S
            && self.running.lock().is_empty()
            && self.listeners() == 0
    }

    fn end(&self) {
        self.ended.cancel();
        let streams = std::mem::take(&mut self.streams.lock().1);
        for stream in streams {
            stream.outbox.close();
        }
    }
}

#[derive(Default)]
struct Table {
    by_key: HashMap<Arc<str>, Arc<LocalSession>>,
    by_principal: HashMap<PrincipalRef, VecDeque<Arc<str>>>,
    oldest: VecDeque<Arc<str>>,
    ended: HashSet<Arc<str>>,
    ended_order: VecDeque<Arc<str>>,
    swept_s: u64,
}

/// Sessions that are connections: they end with these, so nothing is kept of them here but where they are.
#[derive(Default)]
struct Held {
    by_key: HashMap<Arc<str>, Weak<LocalSession>>,
    /// How many there were when those that are over were last taken out.
    swept: usize,
}

/// All sessions with state here.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    held: Mutex<Held>,
    tag: Tag,
}

impl Sessions {
    pub(crate) fn new(tag: Tag) -> Self {
        Self { table: Mutex::default(), held: Mutex::default(), tag }
    }

    /// Notes the session of a connection.
    pub(super) fn hold(&self, key: &Arc<str>, session: &Arc<LocalSession>) {
        let mut held = self.held.lock();
        if held.by_key.len() >= 2 * held.swept.max(MIN_HELD) {
            held.by_key.retain(|_, session| session.strong_count() > 0);
            held.swept = held.by_key.len();
        }
        held.by_key.insert(key.clone(), Arc::downgrade(session));
    }

    /// The session of a connection that is open here.
    pub(super) fn held(&self, key: &str) -> Option<Arc<LocalSession>> {
        self.held.lock().by_key.get(key)?.upgrade()
    }

    /// The session's state here, if there is some.
    pub(super) fn known(&self, key: &str) -> Option<Arc<LocalSession>> {
        self.table.lock().by_key.get(key).cloned()
    }

    /// The session's state here, made if there is none; `None` if it was ended.
    pub(super) fn enter(&self, key: &Arc<str>, principal: &PrincipalRef, now_s: u64) -> Option<Arc<LocalSession>> {
        let mut table = self.table.lock();
        if table.ended.contains(key) {
            return None;
        }
        if let Some(session) = table.by_key.get(key) {
            session.used_s.store(now_s, Ordering::Relaxed);
            return Some(session.clone());
        }
        let idle = table.sweep(now_s);
        let session = Arc::new(LocalSession::new(principal.clone(), self.tag));
        session.used_s.store(now_s, Ordering::Relaxed);
        table.by_key.insert(key.clone(), session.clone());
        table.oldest.push_back(key.clone());
        let of_principal = table.by_principal.entry(principal.clone()).or_default();
        of_principal.push_back(key.clone());
        let crowded = of_principal.len() > MAX_SESSIONS_PER_PRINCIPAL;
        let victim = if crowded {
            of_principal.front().cloned()
        } else if table.by_key.len() > MAX_SESSIONS {
            table.oldest.front().cloned()
        } else {
            None
        };
        let evicted = victim.and_then(|key| table.remove(&key));
        drop(table);
        for evicted in idle.into_iter().chain(evicted) {
            evicted.end();
        }
        Some(session)
    }

    /// Ends a session: its id is refused from here on.
    pub(super) fn end(&self, key: &Arc<str>) {
        let mut table = self.table.lock();
        let session = table.remove(key);
        if table.ended.insert(key.clone()) {
            table.ended_order.push_back(key.clone());
        }
        if table.ended_order.len() > MAX_ENDED
            && let Some(forgotten) = table.ended_order.pop_front()
        {
            table.ended.remove(&forgotten);
        }
        drop(table);
        if let Some(session) = session {
            session.end();
        }
    }

    /// Ends every stream, for shutdown. Ids stay good: another node may serve them.
    pub(crate) fn drain(&self) {
        let sessions: Vec<_> = self.table.lock().by_key.values().cloned().collect();
        for session in sessions {
            session.ended.cancel();
        }
    }
}

impl Table {
    /// Takes out the sessions that are idle, from time to time.
    fn sweep(&mut self, now_s: u64) -> Vec<Arc<LocalSession>> {
        if now_s.saturating_sub(self.swept_s) < SWEEP_EVERY_S {
            return Vec::new();
        }
        self.swept_s = now_s;
        let idle: Vec<Arc<str>> =
            self.by_key.iter().filter(|(_, session)| session.is_idle(now_s)).map(|(key, _)| key.clone()).collect();
        idle.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: &Arc<str>) -> Option<Arc<LocalSession>> {
        let session = self.by_key.remove(key)?;
        self.oldest.retain(|k| k != key);
        if let Some(keys) = self.by_principal.get_mut(&session.principal) {
            keys.retain(|k| k != key);
            if keys.is_empty() {
                self.by_principal.remove(&session.principal);
            }
        }
        Some(session)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::Name;

    use super::*;
    use crate::{http::Final, siblings::Siblings};

    /// Remembers what it is told.
    #[derive(Default)]
    struct Heard(Mutex<Vec<Bytes>>);

    impl Outlet for Heard {
        fn push(&self, message: &Bytes) {
            self.0.lock().push(message.clone());
        }

        fn finish(&self, _: Final) {}

        fn is_finished(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_session_of_a_connection_is_told_while_it_listens_and_is_forgotten_with_it() {
        let tag = Siblings::new("").tag();
        let sessions = Sessions::new(tag);
        let principal = PrincipalRef { tenant: Name::new("acme").unwrap(), name: Name::new("ann").unwrap() };
        let open = |key: &str| {
            let local = Arc::new(LocalSession::new(principal.clone(), tag));
            sessions.hold(&key.into(), &local);
            local
        };
        let local = open("first");
        let message = Bytes::from_static(b"{}");
        assert!(!sessions.held("first").unwrap().announce(&message), "nobody listens yet");
        let heard = Arc::new(Heard::default());
        let outlet: Arc<dyn Outlet> = heard.clone();
        local.listens(&outlet);
        assert!(sessions.held("first").unwrap().announce(&message));
        assert_eq!(*heard.0.lock(), std::slice::from_ref(&message));
        drop((outlet, heard));
        assert!(!local.announce(&message), "its stream is over");
        drop(local);
        assert!(sessions.held("first").is_none());
        for n in 0..1_000 {
            open(&n.to_string());
        }
        assert!(sessions.held.lock().by_key.len() <= 2 * MIN_HELD, "those that are over are taken out");
    }
}
