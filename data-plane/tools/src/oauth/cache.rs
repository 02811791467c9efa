//! Tokens by whom they were given for.
//!
//! Invariants: one fetch at a time for one key, and whoever waited through a failed one shares its failure;
//! the number of keys is bounded.

use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::Behalf;
use crate::UpstreamError;

/// Most callers of one plugin whose tokens are kept.
const MAX_TOKENS: usize = 4_096;
/// Longest access token that is sent, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How long a token is used whose end the server does not tell.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// So long before its end a token is not used any more, or a tenth of its life if that is less.
const MARGIN: Duration = Duration::from_secs(30);

/// For whom a token is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum TokenKey {
    /// The plugin itself.
    Own,
    /// A principal with one token of theirs, by its hash: another token may give them other rights.
    Caller { principal: String, subject: [u8; 32] },
    /// A principal's, of one version of what they consented to.
    User { principal: String, version: u64 },
}

impl TokenKey {
    pub(super) fn of(behalf: &Behalf<'_>) -> Self {
        let principal = behalf.principal.to_string();
        match behalf.subject {
            Some(subject) => Self::Caller { principal, subject: Sha256::digest(subject.expose()).into() },
            // Whatever version: connections are not told apart by it.
            None => Self::User { principal, version: 0 },
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Own => String::new(),
            Self::Caller { principal, subject } => format!("{principal}:{}", hex::encode(subject)),
            Self::User { principal, version } => format!("{principal}@{version}"),
        }
    }
}

/// A token as it came.
pub(super) struct Fetched {
    header: HeaderValue,
    /// When to ask for another.
    until: Instant,
}

impl Fetched {
    /// Checks the token and reckons its life from when it was asked for.
    pub(super) fn new(token: &str, expires_in: Option<u64>, asked: Instant) -> Result<Self, UpstreamError> {
        // RFC 6750, 2.1.
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        let good = !token.is_empty() && token.len() <= MAX_TOKEN_BYTES && token.bytes().all(letter);
        let header = good.then(|| HeaderValue::from_str(&format!("Bearer {token}")).ok()).flatten();
        let Some(mut header) = header else {
            return Err(UpstreamError::Token("the token that it gave cannot be sent".to_owned()));
        };
        header.set_sensitive(true);
        let life = expires_in.map_or(DEFAULT_LIFE, |s| Duration::from_secs(s).min(MAX_LIFE));
        Ok(Self { header, until: asked + life.saturating_sub(MARGIN.min(life / 10)) })
    }
}

#[derive(Default)]
struct Slot {
    token: Option<Fetched>,
    failed: Option<(Instant, UpstreamError)>,
}

/// The tokens.
#[derive(Default)]
pub(super) struct TokenCache {
    slots: Mutex<HashMap<TokenKey, Arc<tokio::sync::Mutex<Slot>>>>,
}

impl TokenCache {
    /// The header with a good token, from `fetch` if there is none.
    pub(super) async fn get<F>(&self, key: TokenKey, fetch: impl FnOnce() -> F) -> Result<HeaderValue, UpstreamError>
    where
        F: Future<Output = Result<Fetched, UpstreamError>>,
    {
        let waiting_since = Instant::now();
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if let Some(token) = slot.token.as_ref().filter(|t| Instant::now() < t.until) {
            return Ok(token.header.clone());
        }
        if let Some((at, cause)) = &slot.failed
            && *at > waiting_since
        {
            return Err(cause.clone());
        }
        slot.token = None;
        match fetch().await {
            Ok(token) => {
                let header = token.header.clone();
                slot.token = Some(token);
                Ok(header)
            }
            Err(cause) => {
                slot.failed = Some((Instant::now(), cause.clone()));
                Err(cause)
            }
        }
    }

    /// Drops the token if it is still this one, and says so; another call may have brought a newer.
    pub(super) fn forget(&self, key: &TokenKey, refused: &HeaderValue) -> bool {
        let slot = self.slots.lock().get(key).cloned();
        // Held: somebody fetches another one already.
        if let Some(mut slot) = slot.as_ref().and_then(|s| s.try_lock().ok())
            && slot.token.as_ref().is_some_and(|t| t.header == *refused)
        {
            slot.token = None;
            return true;
        }
        false
    }

    fn slot(&self, key: TokenKey) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock();
        if slots.len() >= MAX_TOKENS && !slots.contains_key(&key) {
            let now = Instant::now();
            let ends = |slot: &Arc<tokio::sync::Mutex<Slot>>| {
                let slot = slot.try_lock().ok()?;
                Some(slot.token.as_ref().map_or(now, |t| t.until))
            };
            slots.retain(|_, slot| ends(slot).is_none_or(|until| until > now));
            if slots.len() >= MAX_TOKENS {
                let soonest = slots.iter().filter_map(|(key, slot)| Some((ends(slot)?, key.clone())));
                if let Some((_, key)) = soonest.min_by_key(|(until, _)| *until) {
                    slots.remove(&key);
                }
            }
        }
        slots.entry(key).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn caller(name: &str) -> TokenKey {
        TokenKey::Caller { principal: name.to_owned(), subject: [0; 32] }
    }

    #[tokio::test]
    async fn one_fetch_serves_all_who_wait_and_each_key_has_its_own() {
        let (cache, fetches) = (TokenCache::default(), AtomicUsize::new(0));
        let get = |key: TokenKey| {
            cache.get(key, || async {
                let n = fetches.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Fetched::new(&format!("t{n}"), Some(60), Instant::now())
            })
        };
        let all = futures::future::join_all((0..20).map(|_| get(caller("a")))).await;
        assert!(all.iter().all(|h| h.as_ref().expect("a token") == "Bearer t0"));
        assert_eq!(get(caller("b")).await.expect("a token"), "Bearer t1");
        assert_eq!(get(TokenKey::Own).await.expect("a token"), "Bearer t2");
        cache.forget(&caller("a"), &HeaderValue::from_static("Bearer old"));
        assert_eq!(get(caller("a")).await.expect("a token"), "Bearer t0", "another one was refused");
        cache.forget(&caller("a"), &HeaderValue::from_static("Bearer t0"));
        assert_eq!(get(caller("a")).await.expect("a token"), "Bearer t3");
        assert_eq!(get(caller("b")).await.expect("a token"), "Bearer t1");
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_who_waited_and_tried_again_by_who_comes_later() {
        let (cache, fetches) = (TokenCache::default(), AtomicUsize::new(0));
        let get = || {
            cache.get(TokenKey::Own, || async {
                let n = fetches.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                if n == 0 {
                    Err(UpstreamError::Token("no".to_owned()))
                } else {
                    Fetched::new("t", None, Instant::now())
                }
            })
        };
        let all = futures::future::join_all((0..5).map(|_| get())).await;
        assert!(all.iter().all(Result::is_err) && fetches.load(Ordering::SeqCst) == 1);
        assert!(get().await.is_ok());
    }

    #[tokio::test]
    async fn tokens_are_not_used_to_their_very_end_and_not_kept_without_bound() {
        let now = Instant::now();
        for (life, used) in [(Some(3_600), 3_570), (Some(100), 90), (Some(0), 0), (None, 270), (Some(u64::MAX), 86_370)]
        {
            let fetched = Fetched::new("t", life, now).expect("a token");
            assert_eq!(fetched.until - now, Duration::from_secs(used), "{life:?}");
        }
        for bad in ["", "a b", "a\r\nx: y", "é", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            assert!(Fetched::new(bad, None, now).is_err(), "{bad:.20}");
        }
        let cache = TokenCache::default();
        for n in 0..MAX_TOKENS + 50 {
            let key = caller(&n.to_string());
            cache.get(key, || async { Fetched::new("t", Some(60), Instant::now()) }).await.expect("a token");
        }
        assert_eq!(cache.slots.lock().len(), MAX_TOKENS);
    }
}
