//! The rules that connections of users with upstreams keep.
//!
//! Invariants: one connection a principal and plugin; it ends with either; tokens take the place only of those
//! that they were made from, and those of a consent only of what is older than the flow that led to it, so that
//! nothing that was overtaken comes back; one node at a time asks for new tokens; the history has no tokens.
//! Left out: what the tokens are, and where they come from (the data plane).

use std::sync::Arc;

use provost_types::{ConnectionClaim, ConnectionSpec, Kind, Name, Resource, ResourceKey, Spec};

use crate::{Resources, fields::Check};

/// Bytes of the scopes that were given.
const MAX_SCOPE_BYTES: usize = 4_096;
/// So long a node that asks for new tokens is waited for.
const CLAIM_NS: u64 = 30_000_000_000;
/// Connections of a tenant.
pub const MAX_CONNECTIONS: usize = 100_000;

/// What a node does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping<'a> {
    /// The principal has consented in a flow that began then.
    Made {
        /// When the flow began, nanoseconds since the Unix epoch.
        began_ns: u64,
    },
    /// The node wants to ask for new tokens in the place of this version.
    Claimed {
        /// The version.
        version: u64,
        /// The node.
        node: &'a str,
    },
    /// It got them.
    Refreshed {
        /// The version that they take the place of.
        version: u64,
    },
    /// It got none, and another may try.
    Released {
        /// The version that stays.
        version: u64,
        /// The node.
        node: &'a str,
    },
    /// They were taken back.
    Ended {
        /// The version.
        version: u64,
    },
}

/// Whether the connection as it is now (`None`: there is none) takes it.
pub fn takes(now: Option<&ConnectionSpec>, keeping: Keeping<'_>, now_ns: u64) -> bool {
    let version = now.and_then(|spec| spec.sealed.as_ref()).map_or(0, |sealed| sealed.version);
    let held = |node: &str| {
        let claim = now.and_then(|spec| spec.claim.as_ref());
        claim.is_some_and(|claim| claim.node != node && now_ns < claim.until_ns)
    };
    match keeping {
        Keeping::Made { began_ns } => now.is_none_or(|spec| spec.began_ns < began_ns),
        Keeping::Claimed { version: of, node } => now.is_some() && of == version && !held(node),
        Keeping::Released { version: of, node } => {
            let claim = now.and_then(|spec| spec.claim.as_ref());
            of == version && claim.is_some_and(|claim| claim.node == node)
        }
        Keeping::Refreshed { version: of } | Keeping::Ended { version: of } => now.is_some() && of == version,
    }
}

/// The claim of a node from now on.
pub fn claim(node: &str, now_ns: u64) -> ConnectionClaim {
    ConnectionClaim { node: node.to_owned(), until_ns: now_ns.saturating_add(CLAIM_NS) }
}

/// Checks one connection by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &ConnectionSpec) {
    check.require(spec.scope.len() <= MAX_SCOPE_BYTES, "spec.scope", || {
        format!("has more than {MAX_SCOPE_BYTES} bytes")
    });
    let is_hash = spec.authority.len() == 64 && spec.authority.bytes().all(|b| b.is_ascii_hexdigit());
    check.require(is_hash, "spec.authority", || "is no SHA-256 in hexadecimal".into());
}

/// The connections that end with a resource.
pub(crate) fn of_deleted(key: &ResourceKey, all: &Resources) -> Vec<ResourceKey> {
    if !matches!(key.kind, Kind::Plugin | Kind::Principal) {
        return Vec::new();
    }
    let from = ResourceKey { kind: Kind::Connection, tenant: key.tenant.clone(), name: Name::smallest() };
    let of_tenant = all.range(from..).take_while(|(k, _)| k.kind == Kind::Connection && k.tenant == key.tenant);
    let ends = of_tenant.filter(|(_, resource)| match &resource.spec {
        Spec::Connection(spec) => match key.kind {
            Kind::Plugin => spec.plugin == key.name,
            _ => spec.principal == key.name,
        },
        _ => false,
    });
    ends.map(|(k, _)| k.clone()).collect()
}

/// The resource as the history has it.
pub(crate) fn without_tokens(resource: &Arc<Resource>) -> Arc<Resource> {
    match &resource.spec {
        Spec::Connection(spec) => {
            let spec = Spec::Connection(ConnectionSpec { sealed: None, claim: None, ..spec.clone() });
            Arc::new(Resource { spec, ..(**resource).clone() })
        }
        _ => resource.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::SealedSecret;

    use super::*;

    fn spec(version: u64, claim: Option<(&str, u64)>) -> ConnectionSpec {
        ConnectionSpec {
            principal: Name::new("ann").unwrap(),
            plugin: Name::new("up").unwrap(),
            authority: "0".repeat(64),
            scope: String::new(),
            since: String::new(),
            began_ns: 100,
            claim: claim.map(|(node, until_ns)| ConnectionClaim { node: node.to_owned(), until_ns }),
            sealed: Some(SealedSecret { version, key_term: 1, ciphertext: String::new() }),
        }
    }

    #[test]
    fn what_was_overtaken_is_not_taken() {
        let (free, held) = (spec(3, None), spec(3, Some(("a", 50))));
        let table = [
            ("the first consent", None, Keeping::Made { began_ns: 1 }, 0, true),
            ("a later consent", Some(&free), Keeping::Made { began_ns: 101 }, 0, true),
            ("the same consent again", Some(&free), Keeping::Made { began_ns: 100 }, 0, false),
            ("an earlier one", Some(&free), Keeping::Made { began_ns: 99 }, 0, false),
            ("a claim of nothing", None, Keeping::Claimed { version: 0, node: "a" }, 0, false),
            ("a claim", Some(&free), Keeping::Claimed { version: 3, node: "a" }, 0, true),
            ("a claim of what was", Some(&free), Keeping::Claimed { version: 2, node: "a" }, 0, false),
            ("a claim beside another's", Some(&held), Keeping::Claimed { version: 3, node: "b" }, 49, false),
            ("a claim after another's", Some(&held), Keeping::Claimed { version: 3, node: "b" }, 50, true),
            ("a claim again", Some(&held), Keeping::Claimed { version: 3, node: "a" }, 49, true),
            ("new tokens", Some(&held), Keeping::Refreshed { version: 3 }, 0, true),
            ("new tokens for others", Some(&held), Keeping::Refreshed { version: 2 }, 0, false),
            ("new tokens of what is over", None, Keeping::Refreshed { version: 3 }, 0, false),
            ("giving up", Some(&held), Keeping::Released { version: 3, node: "a" }, 0, true),
            ("giving another's up", Some(&held), Keeping::Released { version: 3, node: "b" }, 0, false),
            ("the end", Some(&held), Keeping::Ended { version: 3 }, 0, true),
            ("the end of what was", Some(&held), Keeping::Ended { version: 2 }, 0, false),
        ];
        for (case, now, keeping, now_ns, expect) in table {
            assert_eq!(takes(now, keeping, now_ns), expect, "{case}");
        }
    }
}
