//! Logins at the admin API, in the audit log.
//!
//! A caller's first request from an address is the start of a session; so is one after
//! [`SESSION_IDLE`] without any. Refused tokens are recorded one by one up to
//! [`MAX_REFUSALS_PER_MINUTE`]; what comes beyond is counted, and the count is one record at the
//! minute's end, so that a flood of guesses neither fills the log nor goes unseen.
//! What a login does is recorded before it is done, elsewhere; the login itself is recorded
//! beside it, because authentication cannot wait for the log.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_control_api::{Caller, Logins, Scope};
use provost_types::{AuditEvent, AuditSink, CallStatus, Name, Subject, Who};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{audit_admin::admin_event, audit_caller::who};

/// A caller who was quiet for so long begins a new session.
const SESSION_IDLE: Duration = Duration::from_secs(3_600);
/// Sessions that are remembered; at one more all of them begin anew.
const MAX_SESSIONS: usize = 4_096;
/// Refused tokens that are recorded one by one in each minute.
const MAX_REFUSALS_PER_MINUTE: u32 = 20;
/// The minute.
const WINDOW: Duration = Duration::from_secs(60);
/// Events on their way to the log; more are counted as refusals beyond the bound.
const MAX_WAITING: usize = 256;

/// What is to be recorded, decided without a clock.
#[derive(Default)]
struct LoginBook {
    /// By who and from where: when last seen.
    sessions: HashMap<(String, String), Instant>,
    window: Option<Instant>,
    in_window: u32,
    beyond: u64,
}

impl LoginBook {
    /// Whether a session begins.
    fn accepted(&mut self, who: &str, address: &str, now: Instant) -> bool {
        let key = (who.to_owned(), address.to_owned());
        if let Some(last) = self.sessions.get_mut(&key) {
            let begins = now.duration_since(*last) >= SESSION_IDLE;
            *last = now;
            return begins;
        }
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.retain(|_, last| now.duration_since(*last) < SESSION_IDLE);
            if self.sessions.len() >= MAX_SESSIONS {
                self.sessions.clear();
            }
        }
        self.sessions.insert(key, now);
        true
    }

    /// Whether this refusal is recorded by itself.
    fn refused(&mut self, now: Instant) -> bool {
        if self.window.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            (self.window, self.in_window) = (Some(now), 0);
        }
        self.in_window += 1;
        let alone = self.in_window <= MAX_REFUSALS_PER_MINUTE;
        self.beyond += u64::from(!alone);
        alone
    }

    /// Refusals that were only counted; none are left.
    fn take_beyond(&mut self) -> u64 {
        std::mem::take(&mut self.beyond)
    }
}

/// Records logins.
pub struct LoginRecorder {
    book: Mutex<LoginBook>,
    events: mpsc::Sender<AuditEvent>,
}

impl LoginRecorder {
    /// Records at `sink` until `stop`. Must be called within a tokio runtime.
    pub fn start(sink: Arc<dyn AuditSink>, stop: CancellationToken) -> Arc<Self> {
        let (events, queue) = mpsc::channel(MAX_WAITING);
        let recorder = Arc::new(Self { book: Mutex::default(), events });
        tokio::spawn(run(recorder.clone(), sink, queue, stop));
        recorder
    }

    fn hand_over(&self, event: AuditEvent) {
        if self.events.try_send(event).is_err() {
            self.book.lock().beyond += 1;
        }
    }
}

impl Logins for LoginRecorder {
    fn accepted(&self, caller: &Caller) {
        let address = host(caller.address.as_deref());
        if !self.book.lock().accepted(&caller.name, address, Instant::now()) {
            return;
        }
        let detail = format!("by {}", caller.authenticated_by);
        let subject = Subject { event: "login".to_owned(), objects: vec![caller.name.clone()], detail };
        self.hand_over(admin_event(tenant_of(caller), who(caller), subject, Some(CallStatus::Ok)));
    }

    fn refused(&self, code: &str, address: Option<&str>) {
        if !self.book.lock().refused(Instant::now()) {
            return;
        }
        let subject = Subject { event: "login.refused".to_owned(), objects: Vec::new(), detail: String::new() };
        let who = Who { client_address: address.map(str::to_owned), ..Who::default() };
        let event = admin_event(None, who, subject, Some(CallStatus::Denied));
        self.hand_over(AuditEvent { error: Some(code.to_owned()), ..event });
    }
}

/// A tenant's administrator logs in to that tenant.
fn tenant_of(caller: &Caller) -> Option<Name> {
    match &caller.scope {
        Scope::Cluster => None,
        Scope::Tenant(own) => Some(own.clone()),
    }
}

/// Without the port, which is another one for each connection.
fn host(address: Option<&str>) -> &str {
    let address = address.unwrap_or_default();
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

async fn run(
    recorder: Arc<LoginRecorder>,
    sink: Arc<dyn AuditSink>,
    mut queue: mpsc::Receiver<AuditEvent>,
    stop: CancellationToken,
) {
    let mut minutes = tokio::time::interval(WINDOW);
    loop {
        let (event, last) = tokio::select! {
            event = queue.recv() => (event, false),
            _ = minutes.tick() => (beyond(&recorder), false),
            () = stop.cancelled() => (beyond(&recorder), true),
        };
        if let Some(event) = event
            && let Err(cause) = sink.record(event).await
        {
            recorder.book.lock().beyond += 1;
            tracing::warn!(%cause, "a login could not be recorded; it is counted in a later record");
        }
        if last {
            return;
        }
    }
}

fn beyond(recorder: &LoginRecorder) -> Option<AuditEvent> {
    let count = recorder.book.lock().take_beyond();
    let detail = format!("{count} more that are not recorded one by one");
    let subject = Subject { event: "login.refused".to_owned(), objects: Vec::new(), detail };
    (count > 0).then(|| admin_event(None, Who::default(), subject, Some(CallStatus::Denied)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_begins_once_until_it_was_quiet_for_long() {
        let (mut book, now) = (LoginBook::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(book.accepted("admin", "10.0.0.1", now));
        assert!(!book.accepted("admin", "10.0.0.1", later(3_599)));
        assert!(!book.accepted("admin", "10.0.0.1", later(7_000)), "each request keeps it alive");
        assert!(book.accepted("admin", "10.0.0.2", later(7_000)));
        assert!(book.accepted("ana", "10.0.0.1", later(7_000)));
        assert!(book.accepted("admin", "10.0.0.1", later(7_000 + 3_600)));
        for n in 0..2 * MAX_SESSIONS {
            book.accepted(&n.to_string(), "", now);
            assert!(book.sessions.len() <= MAX_SESSIONS);
        }
    }

    #[test]
    fn a_flood_of_refused_tokens_is_counted_and_not_written_out() {
        let (mut book, now) = (LoginBook::default(), Instant::now());
        let alone = (0..10_000).filter(|_| book.refused(now)).count();
        assert_eq!(alone, MAX_REFUSALS_PER_MINUTE as usize);
        assert_eq!(book.take_beyond(), 10_000 - u64::from(MAX_REFUSALS_PER_MINUTE));
        assert_eq!(book.take_beyond(), 0);
        assert!(book.refused(now + WINDOW), "the next minute begins anew");
    }

    #[test]
    fn ports_do_not_make_sessions() {
        assert_eq!(host(Some("10.0.0.1:5000")), "10.0.0.1");
        assert_eq!(host(Some("[::1]:5000")), "[::1]");
        assert_eq!(host(None), "");
    }
}
