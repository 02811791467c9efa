//! What policies come to for callers and objects, remembered for as long as a snapshot lives.
//!
//! A decision needs the policies that could apply to its caller and object. Finding them costs as
//! much as there are policies, and does not depend on the call; so it is done once for each caller,
//! object and phase (the time between two expiries of the caller's bindings). What a token says of its caller
//! (attributes, roles, scopes) belongs to the caller: another set is another one.
//!
//! Invariants: an entry belongs to one compiled state; it is found only by exactly what it was made
//! for (the whole key is compared, not its hash alone); the memory has a bound, whatever is asked for, and a tenant whose
//! callers make names up loses its own entries by it, not those of others.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher},
    sync::{Arc, PoisonError, RwLock},
};

use provost_types::{Action, Name, TokenFacts};

use crate::policy_slice::Narrowed;

/// Entries in all. Of a shard that is full the tenant goes that has most of it.
const MAX_ENTRIES: usize = 65_536;
/// Where no tenant has so many entries of a full shard, all go: to look for a tenant's costs as much as there are entries, and
/// has to make room for many.
const LARGE_SHARE: usize = MAX_ENTRIES / SHARDS / 16;
/// Callers that look at the same shard at once wait for each other only while one writes.
const SHARDS: usize = 16;
/// Longer names are not remembered: a caller can make them up.
const MAX_TARGET_BYTES: usize = 512;
/// Tokens that say more are not remembered, whoever can make them.
const MAX_TOKEN_BYTES: usize = 1_024;

/// Whom and what an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    pub(crate) tenant: &'a Name,
    pub(crate) principal: &'a Name,
    pub(crate) phase: usize,
    pub(crate) action: Action,
    pub(crate) plugin: Option<&'a str>,
    pub(crate) target: &'a str,
    /// What the caller's token says.
    pub(crate) token: Option<&'a TokenFacts>,
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.tenant, self.principal, self.phase, self.action, self.plugin, self.target).hash(state);
        // What is left out makes two keys one hash, and no two keys one.
        let token = self.token.map(|t| (&t.principal.attributes, &t.roles, &t.scopes, &t.provider, t.is_made));
        token.hash(state);
    }
}

impl Key<'_> {
    fn is_kept(&self) -> bool {
        self.target.len() <= MAX_TARGET_BYTES
            && self.plugin.is_none_or(|p| p.len() <= MAX_TARGET_BYTES)
            && self.token.is_none_or(|token| bytes(token) <= MAX_TOKEN_BYTES)
    }
}

/// How much there is to a token, about.
fn bytes(token: &TokenFacts) -> usize {
    let TokenFacts { principal, roles, scopes, .. } = token;
    let attributes = principal.attributes.iter().map(|(key, value)| key.len() + value.len());
    let names = roles.iter().map(|name| name.as_str().len()).chain(scopes.iter().map(String::len));
    let certificates = principal.certificates.iter().map(String::len);
    attributes.chain(names).chain(certificates).sum::<usize>() + principal.display_name.len()
}

#[derive(Debug)]
struct Entry {
    tenant: Name,
    principal: Name,
    phase: usize,
    action: Action,
    plugin: Option<Box<str>>,
    target: Box<str>,
    token: Option<Box<TokenFacts>>,
    narrowed: Arc<Narrowed>,
}

impl Entry {
    fn key(&self) -> Key<'_> {
        Key {
            tenant: &self.tenant,
            principal: &self.principal,
            phase: self.phase,
            action: self.action,
            plugin: self.plugin.as_deref(),
            target: &self.target,
            token: self.token.as_deref(),
        }
    }
}

/// The memory; share it behind an `Arc`.
#[derive(Debug, Default)]
pub(crate) struct DecisionCache {
    shards: [RwLock<HashMap<u64, Entry>>; SHARDS],
    /// Whoever makes two keys collide has one of them decided anew, no more.
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl DecisionCache {
    /// What is remembered under `key`, else what `make` gives, which is then remembered.
    pub(crate) fn get_or(&self, key: Key<'_>, make: impl FnOnce() -> Option<Narrowed>) -> Option<Arc<Narrowed>> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get(hash as usize % SHARDS)?;
        if let Some(entry) = shard.read().unwrap_or_else(PoisonError::into_inner).get(&hash)
            && entry.key() == key
        {
            return Some(entry.narrowed.clone());
        }
        let narrowed = Arc::new(make()?);
        if key.is_kept() {
            let entry = Entry {
                tenant: key.tenant.clone(),
                principal: key.principal.clone(),
                phase: key.phase,
                action: key.action,
                plugin: key.plugin.map(Into::into),
                target: key.target.into(),
                token: key.token.cloned().map(Box::new),
                narrowed: narrowed.clone(),
            };
            let mut entries = shard.write().unwrap_or_else(PoisonError::into_inner);
            if entries.len() >= MAX_ENTRIES / SHARDS {
                make_room(&mut entries);
            }
            entries.insert(hash, entry);
        }
        Some(narrowed)
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let entries = std::mem::take(&mut *shard.write().unwrap_or_else(PoisonError::into_inner));
            // Outside of the lock: there may be many.
            drop(entries);
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

/// Forgets the entries of the tenant that has most, so that no tenant can push out what is remembered for others.
fn make_room(entries: &mut HashMap<u64, Entry>) {
    let mut shares: HashMap<&Name, usize> = HashMap::new();
    for entry in entries.values() {
        *shares.entry(&entry.tenant).or_default() += 1;
    }
    let most = shares.into_iter().max_by_key(|(_, share)| *share);
    match most.filter(|(_, share)| *share >= LARGE_SHARE).map(|(tenant, _)| tenant.clone()) {
        Some(tenant) => entries.retain(|_, entry| entry.tenant != tenant),
        None => entries.clear(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_has_a_bound_and_finds_only_what_was_asked_for() {
        let cache = DecisionCache::default();
        let (tenant, principal) = (Name::new("acme").unwrap(), Name::new("ana").unwrap());
        let key = |target| Key {
            tenant: &tenant,
            principal: &principal,
            phase: 0,
            action: Action::CallTool,
            plugin: Some("p"),
            target,
            token: None,
        };
        let names: Vec<String> = (0..2 * MAX_ENTRIES).map(|n| n.to_string()).collect();
        let long = "x".repeat(MAX_TARGET_BYTES + 1);
        let made = std::cell::Cell::new(0);
        let ask = |key: Key<'_>| {
            cache.get_or(key, || {
                made.set(made.get() + 1);
                Some(Narrowed::default())
            })
        };
        for _ in 0..2 {
            ask(key("one")).unwrap();
        }
        ask(Key { phase: 1, ..key("one") }).unwrap();
        ask(Key { plugin: None, ..key("one") }).unwrap();
        ask(Key { action: Action::GetPrompt, ..key("one") }).unwrap();
        assert_eq!((made.get(), cache.len()), (4, 4));
        for name in &names {
            ask(key(name)).unwrap();
        }
        assert!((MAX_ENTRIES / 4..=MAX_ENTRIES).contains(&cache.len()), "{}", cache.len());
        let before = cache.len();
        ask(key(&long)).unwrap();
        assert_eq!(cache.len(), before);
        assert!(cache.get_or(key("broken"), || None).is_none());
    }

    #[test]
    fn a_tenant_that_makes_names_up_pushes_out_its_own_entries_only() {
        let cache = DecisionCache::default();
        let (quiet, loud) = (Name::new("acme").unwrap(), Name::new("umbra").unwrap());
        let principal = Name::new("ana").unwrap();
        let ask = |tenant: &Name, target: &str| {
            let made = std::cell::Cell::new(false);
            let key = Key {
                tenant,
                principal: &principal,
                phase: 0,
                action: Action::CallTool,
                plugin: None,
                target,
                token: None,
            };
            cache
                .get_or(key, || {
                    made.set(true);
                    Some(Narrowed::default())
                })
                .unwrap();
            made.get()
        };
        let tools: Vec<String> = (0..200).map(|n| format!("tool-{n}")).collect();
        assert!(tools.iter().all(|tool| ask(&quiet, tool)));
        for n in 0..3 * MAX_ENTRIES {
            ask(&loud, &format!("made-up-{n}"));
        }
        assert!(!tools.iter().any(|tool| ask(&quiet, tool)), "all are remembered still");
        assert!(cache.len() <= MAX_ENTRIES);
    }

    #[test]
    fn a_shard_of_many_small_tenants_is_emptied_at_once() {
        let narrowed = Arc::new(Narrowed::default());
        let entry = |n: usize| Entry {
            tenant: Name::new(&format!("t{n}")).unwrap(),
            principal: Name::new("ana").unwrap(),
            phase: 0,
            action: Action::CallTool,
            plugin: None,
            target: "tool".into(),
            token: None,
            narrowed: narrowed.clone(),
        };
        let mut entries: HashMap<u64, Entry> = (0..LARGE_SHARE).map(|n| (n as u64, entry(n))).collect();
        make_room(&mut entries);
        assert!(entries.is_empty());
        let large = 0..LARGE_SHARE as u64;
        entries.extend(large.map(|n| (n, entry(0))));
        entries.insert(u64::MAX, entry(1));
        make_room(&mut entries);
        assert_eq!(entries.keys().collect::<Vec<_>>(), [&u64::MAX]);
    }
}
