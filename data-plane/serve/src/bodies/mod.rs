//! Bodies on their way to the audit log: redacted, then sealed under the subject's key.
//!
//! Purpose: what leaves this module for the log holds nothing that a policy takes out, and nothing
//! that can be read without the subject's key.
//! Invariants: redaction comes before commitment, so that what was taken out cannot be guessed
//! from the log; a body whose key cannot be had is not recorded in another way, its call is
//! refused; a key that was handed out is forgotten after [`KEY_LIFE`], or at once when keys are
//! destroyed.
//! Left out: where keys live (`provost_types::SubjectKeys`).

mod redact;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_data_pipeline::CallBody;
use provost_sealed::{Keep, Place, keep};
use provost_types::{AuditUnavailable, Body, Month, PrincipalRef, SubjectKey, SubjectKeys};

pub use redact::{RedactionPolicy, RedactionProblem, RedactionRule};

/// A key is asked for again after this: the longest that a writer which hears of nothing goes on
/// with a key that was destroyed.
const KEY_LIFE: Duration = Duration::from_secs(60);
/// Keys that are remembered; at one more all are asked for again.
const MAX_KEYS: usize = 16_384;

/// Keeps bodies as the node is configured to.
pub struct BodyKeeper {
    keys: Arc<dyn SubjectKeys>,
    keep: Keep,
    redaction: RedactionPolicy,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    generation: u64,
    keys: HashMap<PrincipalRef, Entry>,
}

struct Entry {
    month: Month,
    key: SubjectKey,
    since: Instant,
}

impl BodyKeeper {
    /// Takes keys from `keys`.
    pub fn new(keys: Arc<dyn SubjectKeys>, keep: Keep, redaction: RedactionPolicy) -> Self {
        Self { keys, keep, redaction, held: Mutex::default() }
    }

    /// What the log is to hold of `body`.
    pub async fn keep(&self, body: CallBody<'_>) -> Result<Body, AuditUnavailable> {
        let month = Month::of_ns(body.time_ns);
        let key = match self.held_key(body.principal, month) {
            Some(key) => key,
            None => self.fetch(body.principal, month).await?,
        };
        let place = Place {
            tenant: body.principal.tenant.as_str(),
            subject: body.principal.name.as_str(),
            month,
            call_id: body.call_id,
            phase: body.phase,
        };
        let redacted = self.redaction.apply(&body.principal.tenant, body.target, body.bytes);
        let (bytes, policy) = match &redacted {
            Some(redacted) => (redacted.bytes.as_ref(), Some(self.redaction.hash())),
            None => (body.bytes, None),
        };
        keep(&key, &place, bytes, policy, self.keep).map_err(|e| AuditUnavailable(e.to_string()))
    }

    fn held_key(&self, principal: &PrincipalRef, month: Month) -> Option<SubjectKey> {
        let generation = self.keys.generation();
        let mut held = self.held.lock();
        if held.generation != generation {
            *held = Held { generation, keys: HashMap::new() };
        }
        let entry = held.keys.get(principal)?;
        (entry.month == month && entry.since.elapsed() < KEY_LIFE).then(|| entry.key.clone())
    }

    async fn fetch(&self, principal: &PrincipalRef, month: Month) -> Result<SubjectKey, AuditUnavailable> {
        let generation = self.keys.generation();
        let since = Instant::now();
        let key = self.keys.key(&principal.tenant, principal.name.as_str(), month).await?;
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

    use provost_types::{BoxFuture, CallId, KeptBody, KeyId, Name, Phase};

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
                let key = SubjectKey::new(KeyId([n; 16]), [n; 32]);
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

    fn body<'a>(principal: &'a PrincipalRef, time_ns: u64, bytes: &'a [u8]) -> CallBody<'a> {
        CallBody { principal, call_id: CallId(1), phase: Phase::Intent, time_ns, target: Some("sql.query"), bytes }
    }

    const NOVEMBER: u64 = 1_795_000_000_000_000_000;
    const DECEMBER: u64 = NOVEMBER + 30 * 86_400_000_000_000;

    #[tokio::test]
    async fn keys_are_asked_for_once_a_month_and_again_after_keys_were_destroyed() {
        let keys = Arc::new(Counting::default());
        let keeper = BodyKeeper::new(keys.clone(), Keep::Sealed, RedactionPolicy::default());
        let (ana, sue) = (principal("ana"), principal("sue"));
        let mut seen = Vec::new();
        for (who, time) in
            [(&ana, NOVEMBER), (&ana, NOVEMBER), (&sue, NOVEMBER), (&ana, NOVEMBER), (&ana, DECEMBER), (&ana, DECEMBER)]
        {
            seen.push(keeper.keep(body(who, time, b"{}")).await.unwrap().key.0[0]);
        }
        assert_eq!(seen, [0, 0, 1, 0, 2, 2]);
        keys.generation.store(1, Ordering::SeqCst);
        assert_eq!(keeper.keep(body(&ana, DECEMBER, b"{}")).await.unwrap().key.0[0], 3);
        assert!(keeper.keep(body(&principal("nobody"), NOVEMBER, b"{}")).await.is_err(), "no key, no record");
    }

    #[tokio::test]
    async fn what_a_policy_takes_out_is_neither_kept_nor_committed_to() {
        let rule = RedactionRule { fields: vec!["password".to_owned()], ..RedactionRule::default() };
        let policy = RedactionPolicy::new(vec![rule]).unwrap();
        let hash = policy.hash();
        let keys = Arc::new(Counting::default());
        let keeper = BodyKeeper::new(keys, Keep::Commitment, policy);
        let ana = principal("ana");
        let place = Place {
            tenant: "acme",
            subject: "ana",
            month: Month::of_ns(NOVEMBER),
            call_id: CallId(1),
            phase: Phase::Intent,
        };
        let own = provost_sealed::BodyKey::new(&SubjectKey::new(KeyId([0; 16]), [0; 32]), &place);
        let kept = keeper.keep(body(&ana, NOVEMBER, br#"{"password":"tiger","user":"scott"}"#)).await.unwrap();
        assert_eq!(kept.redaction, Some(hash));
        assert_eq!(kept.kept, KeptBody::CommitmentOnly);
        assert_eq!(own.check(br#"{"password":"[redacted]","user":"scott"}"#, &kept.commit), Ok(()));
    }
}
