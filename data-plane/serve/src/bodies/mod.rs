//! Bodies on their way to the audit log: redacted, then sealed under the subject's key.
//!
//! Purpose: what leaves this module for the log holds nothing that a policy takes out, and nothing
//! that can be read without the subject's key.
//! Invariants: redaction comes before commitment, so that what was taken out cannot be guessed
//! from the log; a body whose key cannot be had is not recorded in another way, its call is
//! refused; a key that was handed out is not used after [`KEY_LIFE`], nor once keys were destroyed, and is
//! out of memory with the first call, whoever calls, that comes [`LOOK_PAUSE`] after that.
//! Left out: where keys live (`provost_types::SubjectKeys`).

mod redact;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_sealed::{Keep, Place, ReadyKey, keep};
use provost_types::{AuditEvent, AuditUnavailable, Body, Month, PrincipalRef, SubjectKeys};

pub use redact::{RedactionPolicy, RedactionProblem, RedactionRule};

/// A key is asked for again after this: the longest that a writer which hears of nothing goes on
/// with a key that was destroyed.
const KEY_LIFE: Duration = Duration::from_secs(60);
/// Between two looks for keys that are too old.
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// Keys that are remembered; at one more all are asked for again.
const MAX_KEYS: usize = 16_384;

/// How records name the callers of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identities {
    /// By their names, with address and the name of their key.
    #[default]
    Names,
    /// By pseudonyms of the tenant's; without address and name of the key.
    Pseudonyms,
}

/// What a node keeps of calls, and how.
#[derive(Clone, Debug, Default)]
pub struct Privacy {
    /// Whether bodies are stored.
    pub keep: Keep,
    /// How callers are named.
    pub identities: Identities,
    /// What is taken out of bodies before.
    pub redact: RedactionPolicy,
}

/// Keeps bodies and names callers as the node is configured to.
pub struct BodyKeeper {
    keys: Arc<dyn SubjectKeys>,
    privacy: Privacy,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    generation: u64,
    keys: HashMap<PrincipalRef, Entry>,
    /// When keys that are too old were let go last.
    looked: Option<Instant>,
}

struct Entry {
    month: Month,
    key: Arc<ReadyKey>,
    since: Instant,
}

impl Held {
    /// Lets go of keys of another generation, and from time to time of those that are too old: of most callers the next call
    /// replaces theirs, and of some there is none.
    fn let_go(&mut self, generation: u64, now: Instant) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        let looked = *self.looked.get_or_insert(now);
        if now.saturating_duration_since(looked) >= LOOK_PAUSE {
            self.keys.retain(|_, entry| now.saturating_duration_since(entry.since) < KEY_LIFE);
            self.looked = Some(now);
        }
    }
}

impl BodyKeeper {
    /// Takes keys from `keys`.
    pub fn new(keys: Arc<dyn SubjectKeys>, privacy: Privacy) -> Self {
        Self { keys, privacy, held: Mutex::default() }
    }

    /// Seals the body of an event and names its caller.
    pub async fn protect(
        &self,
        principal: &PrincipalRef,
        event: &mut AuditEvent,
        body: Option<&[u8]>,
    ) -> Result<(), AuditUnavailable> {
        if body.is_none() && self.privacy.identities == Identities::Names {
            return Ok(());
        }
        let month = Month::of_ns(event.time_ns);
        let key = match self.held_key(principal, month) {
            Some(key) => key,
            None => self.fetch(principal, month).await?,
        };
        if let Some(body) = body {
            event.body = Some(self.keep(&key, principal, month, event, body)?);
        }
        if self.privacy.identities == Identities::Pseudonyms {
            let who = &mut event.who;
            who.principal = key.key().subject.to_string();
            who.client_address = None;
            // `api_key:NAME`: a key is often named after whom it was made for.
            who.authenticated_by.truncate(who.authenticated_by.find(':').unwrap_or(who.authenticated_by.len()));
        }
        Ok(())
    }

    fn keep(
        &self,
        key: &ReadyKey,
        principal: &PrincipalRef,
        month: Month,
        event: &AuditEvent,
        body: &[u8],
    ) -> Result<Body, AuditUnavailable> {
        let place = Place {
            tenant: principal.tenant.as_str(),
            subject: principal.name.as_str(),
            month,
            call_id: event.call_id,
            phase: event.phase,
        };
        let redacted = self.privacy.redact.apply(&principal.tenant, event.what.target.as_deref(), body);
        let (bytes, policy) = match &redacted {
            Some(redacted) => (redacted.bytes.as_ref(), Some(self.privacy.redact.hash())),
            None => (body, None),
        };
        keep(key, &place, bytes, policy, self.privacy.keep).map_err(|e| AuditUnavailable(e.to_string()))
    }

    fn held_key(&self, principal: &PrincipalRef, month: Month) -> Option<Arc<ReadyKey>> {
        let generation = self.keys.generation();
        let mut held = self.held.lock();
        held.let_go(generation, Instant::now());
        let entry = held.keys.get(principal)?;
        (entry.month == month && entry.since.elapsed() < KEY_LIFE).then(|| entry.key.clone())
    }

    async fn fetch(&self, principal: &PrincipalRef, month: Month) -> Result<Arc<ReadyKey>, AuditUnavailable> {
        let generation = self.keys.generation();
        let since = Instant::now();
        let key = self.keys.key(&principal.tenant, principal.name.as_str(), month).await?;
        let key = Arc::new(ReadyKey::new(key));
        let mut held = self.held.lock();
        // Keys were destroyed meanwhile, maybe this one: it is used once and not remembered.
        if held.generation == generation {
            if held.keys.len() >= MAX_KEYS {
                held.keys.clear();
            }
            held.keys.insert(principal.clone(), Entry { month, key: key.clone(), since });
        }
        Ok(key)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use provost_types::{
        BoxFuture, CallId, Impact, KeptBody, KeyId, Name, Phase, Pseudonym, Revision, SubjectKey, What, Who, Why,
    };

    use super::*;

    /// Makes a new key each time it is asked.
    #[derive(Default)]
    struct Counting {
        asked: AtomicU64,
        generation: AtomicU64,
    }

    impl SubjectKeys for Counting {
        fn key<'a>(
            &'a self,
            _: &'a Name,
            subject: &'a str,
            _: Month,
        ) -> BoxFuture<'a, Result<SubjectKey, AuditUnavailable>> {
            let n = self.asked.fetch_add(1, Ordering::SeqCst) as u8;
            let known = subject != "nobody";
            Box::pin(async move {
                let key = SubjectKey::new(KeyId([n; 16]), Pseudonym([n; 16]), [n; 32]);
                known.then_some(key).ok_or(AuditUnavailable("no quorum".to_owned()))
            })
        }
        fn generation(&self) -> u64 {
            self.generation.load(Ordering::SeqCst)
        }
    }

    fn principal(name: &str) -> PrincipalRef {
        PrincipalRef { tenant: Name::new("acme").unwrap(), name: Name::new(name).unwrap() }
    }

    fn event(who: &PrincipalRef, time_ns: u64) -> AuditEvent {
        AuditEvent {
            phase: Phase::Intent,
            call_id: CallId(1),
            tenant: Some(who.tenant.clone()),
            time_ns,
            who: Who {
                principal: who.name.to_string(),
                agent: None,
                client_address: Some("10.0.0.7:1".to_owned()),
                authenticated_by: "api_key:ana-laptop".to_owned(),
            },
            what: What { target: Some("sql.query".to_owned()), ..What::default() },
            why: Why::default(),
            decision: None,
            policies: Vec::new(),
            revision: Revision(1),
            status: None,
            error: None,
            reason: None,
            guards: Vec::new(),
            body: None,
            impact: Impact::default(),
        }
    }

    async fn kept(
        keeper: &BodyKeeper,
        who: &PrincipalRef,
        time_ns: u64,
        body: &[u8],
    ) -> Result<Body, AuditUnavailable> {
        let mut event = event(who, time_ns);
        keeper.protect(who, &mut event, Some(body)).await?;
        assert_eq!(event.who.principal, who.name.as_str(), "names stay unless configured otherwise");
        Ok(event.body.unwrap())
    }

    const NOVEMBER: u64 = 1_795_000_000_000_000_000;
    const DECEMBER: u64 = NOVEMBER + 30 * 86_400_000_000_000;

    #[tokio::test]
    async fn keys_are_asked_for_once_a_month_and_again_after_keys_were_destroyed() {
        let keys = Arc::new(Counting::default());
        let keeper = BodyKeeper::new(keys.clone(), Privacy::default());
        let (ana, sue) = (principal("ana"), principal("sue"));
        let mut seen = Vec::new();
        for (who, time) in
            [(&ana, NOVEMBER), (&ana, NOVEMBER), (&sue, NOVEMBER), (&ana, NOVEMBER), (&ana, DECEMBER), (&ana, DECEMBER)]
        {
            seen.push(kept(&keeper, who, time, b"{}").await.unwrap().key.0[0]);
        }
        assert_eq!(seen, [0, 0, 1, 0, 2, 2]);
        keys.generation.store(1, Ordering::SeqCst);
        assert_eq!(kept(&keeper, &ana, DECEMBER, b"{}").await.unwrap().key.0[0], 3);
        assert!(kept(&keeper, &principal("nobody"), NOVEMBER, b"{}").await.is_err(), "no key, no record");
    }

    #[test]
    fn keys_of_callers_that_call_no_more_are_let_go() {
        let key = || Arc::new(ReadyKey::new(SubjectKey::new(KeyId([0; 16]), Pseudonym([0; 16]), [0; 32])));
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut held = Held::default();
        held.let_go(1, start);
        let (gone, stays) = (key(), key());
        for (name, key, since) in [("ana", &gone, start), ("sue", &stays, at(50))] {
            let entry = Entry { month: Month::of_ns(NOVEMBER), key: key.clone(), since };
            held.keys.insert(principal(name), entry);
        }
        held.let_go(1, at(59));
        assert_eq!(held.keys.len(), 2);
        held.let_go(1, at(70));
        assert_eq!((Arc::strong_count(&gone), Arc::strong_count(&stays)), (1, 2), "what is held 60 s is gone");
        held.let_go(2, at(71));
        assert_eq!(Arc::strong_count(&stays), 1, "and all at once where keys were destroyed");
    }

    #[tokio::test]
    async fn what_a_policy_takes_out_is_neither_kept_nor_committed_to() {
        let rule = RedactionRule { fields: vec!["password".to_owned()], ..RedactionRule::default() };
        let policy = RedactionPolicy::new(vec![rule]).unwrap();
        let hash = policy.hash();
        let keys = Arc::new(Counting::default());
        let keeper = BodyKeeper::new(keys, Privacy { keep: Keep::Commitment, redact: policy, ..Privacy::default() });
        let ana = principal("ana");
        let place = Place {
            tenant: "acme",
            subject: "ana",
            month: Month::of_ns(NOVEMBER),
            call_id: CallId(1),
            phase: Phase::Intent,
        };
        let own = provost_sealed::BodyKey::new(&SubjectKey::new(KeyId([0; 16]), Pseudonym([0; 16]), [0; 32]), &place);
        let body = kept(&keeper, &ana, NOVEMBER, br#"{"password":"tiger","user":"scott"}"#).await.unwrap();
        assert_eq!(body.redaction, Some(hash));
        assert_eq!(body.kept, KeptBody::CommitmentOnly);
        assert_eq!(own.check(br#"{"password":"[redacted]","user":"scott"}"#, &body.commit), Ok(()));
    }

    #[tokio::test]
    async fn pseudonyms_leave_nothing_that_names_the_caller() {
        let keys = Arc::new(Counting::default());
        let keeper = BodyKeeper::new(keys, Privacy { identities: Identities::Pseudonyms, ..Privacy::default() });
        let ana = principal("ana");
        for body in [Some(b"{}".as_slice()), None] {
            let mut event = event(&ana, NOVEMBER);
            keeper.protect(&ana, &mut event, body).await.unwrap();
            assert_eq!(event.who.principal, format!("p-{}", "0".repeat(32)));
            assert_eq!((event.who.client_address, event.who.authenticated_by.as_str()), (None, "api_key"));
            assert_eq!(event.body.is_some(), body.is_some());
        }
    }
}
