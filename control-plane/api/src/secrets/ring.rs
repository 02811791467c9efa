//! The forms of a data key in the ring, and with them the forms of what it sealed.
//!
//! Form 1, `BASE64`: made before keys named their cluster. It only opens; nothing is sealed with
//! it any more. Form 2, `2|CLUSTER|BASE64`: seals and opens for that cluster. A ring restored from
//! a backup holds keys of the cluster it was taken from: they open what they sealed, and the new
//! cluster makes a key of its own before it seals anything.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use provost_control_state::State;
use provost_types::{Kind, Name, Resource};

const FORM_2: &str = "2|";

/// A data key as the ring holds it.
pub(super) struct RingKey {
    /// Whose; `None`: form 1.
    pub(super) cluster: Option<String>,
    /// For the provider to unwrap.
    pub(super) wrapped: Vec<u8>,
}

impl RingKey {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (cluster, wrapped) = match text.strip_prefix(FORM_2) {
            // From the right: base64 has no bar, a cluster's name might.
            Some(rest) => rest.rsplit_once('|').map(|(cluster, wrapped)| (Some(cluster.to_owned()), wrapped))?,
            None => (None, text),
        };
        Some(Self { cluster, wrapped: STANDARD.decode(wrapped).ok()? })
    }

    /// Form 2.
    pub(super) fn write(cluster: &str, wrapped: &[u8]) -> String {
        format!("{FORM_2}{cluster}|{}", STANDARD.encode(wrapped))
    }
}

/// What is authenticated with a value: it opens only as what it was sealed as.
pub(super) fn context(cluster: Option<&str>, place: &Place<'_>, version: u64, term: u64) -> String {
    let Place { kind, tenant, name } = place;
    match cluster {
        None => format!("{kind}|{tenant}|{name}|{version}"),
        // All but the first part have no bar, so no two facts give one text.
        Some(cluster) => format!("{cluster}|{kind}|{tenant}|{name}|{version}|{term}"),
    }
}

/// Where a value is sealed: in a resource of this kind and name.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) kind: Kind,
    pub(super) tenant: &'a Name,
    pub(super) name: &'a Name,
}

impl Place<'_> {
    pub(super) fn what(&self) -> String {
        format!("{}/{}/{}", self.kind, self.tenant, self.name)
    }
}

/// The term of the key that seals now in `cluster`, if it has one: the newest, if it is its own.
pub(super) fn sealing_term(state: &State, cluster: &str) -> Option<u64> {
    let (term, text) = state.key_ring().last_key_value()?;
    let own = RingKey::parse(text).is_some_and(|key| key.cluster.as_deref() == Some(cluster));
    own.then_some(*term)
}

/// The term that a new key gets: after every one that was ever used.
pub(super) fn next_term(state: &State) -> u64 {
    let ring = state.key_ring().keys().next_back().copied();
    ring.max(used_terms(state).last().copied()).unwrap_or(0) + 1
}

/// The terms whose keys some value still needs. Values in the history count: a rollback can bring
/// a deleted secret back.
pub(super) fn used_terms(state: &State) -> BTreeSet<u64> {
    let past = state.history().iter().flat_map(|entry| &entry.changes);
    let past = past.flat_map(|change| change.old.iter().chain(&change.new)).filter_map(|r| term_of(r));
    state.resources().values().filter_map(|r| term_of(r)).chain(past).collect()
}

fn term_of(resource: &Resource) -> Option<u64> {
    provost_control_state::sealed(&resource.spec).map(|s| s.key_term)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        let old = RingKey::parse("AAEC").unwrap();
        assert_eq!((old.cluster, old.wrapped), (None, vec![0, 1, 2]));
        for cluster in ["prod", "a|b", ""] {
            let new = RingKey::parse(&RingKey::write(cluster, &[9, 8])).unwrap();
            assert_eq!((new.cluster.as_deref(), new.wrapped), (Some(cluster), vec![9, 8]));
        }
        for bad in ["2|prod", "2|prod|*", "3|prod|AAEC", "*"] {
            assert!(RingKey::parse(bad).is_none(), "{bad} was read");
        }
    }

    #[test]
    fn contexts_differ_in_every_part() {
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let at = |kind, tenant, name| Place { kind, tenant, name };
        let secret = at(Kind::Secret, &a, &b);
        let all = [
            context(None, &secret, 1, 1),
            context(Some("x"), &secret, 1, 1),
            context(Some("y"), &secret, 1, 1),
            context(Some("x"), &at(Kind::Secret, &b, &a), 1, 1),
            context(Some("x"), &at(Kind::Connection, &a, &b), 1, 1),
            context(Some("x"), &secret, 2, 1),
            context(Some("x"), &secret, 1, 2),
            context(Some("x|Secret|a"), &secret, 1, 2),
        ];
        assert_eq!(BTreeSet::from(all.clone()).len(), all.len());
    }
}
