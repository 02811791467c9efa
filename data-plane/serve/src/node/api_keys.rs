//! API keys by the hash of their token.

use std::{collections::HashMap, sync::Arc};

use provost_data_pipeline::{Caller, Rejection, RejectionKind};
use provost_types::{Kind, PrincipalRef, ResourceKey, Snapshot, Spec};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// One key: whose it is and until when it holds.
#[derive(Debug)]
struct ApiKey {
    caller: Arc<Caller>,
    /// Nanoseconds since the Unix epoch; `None`: no end.
    expires_ns: Option<u64>,
    disabled: bool,
}

/// Every key of one snapshot. The token is never stored: it is looked up by its BLAKE3 hash, so
/// that the look-up leaks nothing that helps to guess one.
#[derive(Debug, Default)]
pub struct ApiKeys {
    by_hash: HashMap<[u8; 32], ApiKey>,
}

impl ApiKeys {
    /// Collects the keys of a snapshot. Admission has checked hashes and times; a key that does
    /// not read all the same authenticates nobody.
    pub fn compile(snapshot: &Snapshot) -> Self {
        let mut by_hash = HashMap::new();
        for resource in snapshot.of_kind(Kind::ApiKey) {
            let Spec::ApiKey(key) = &resource.spec else { continue };
            let Some(tenant) = &resource.metadata.tenant else { continue };
            let Ok(hash) = blake3::Hash::from_hex(&key.hash) else { continue };
            let expires_ns = match key.expires.as_deref().map(parse_time) {
                None => None,
                Some(Some(time)) => Some(time),
                Some(None) => Some(0),
            };
            let principal_key =
                ResourceKey { kind: Kind::Principal, tenant: Some(tenant.clone()), name: key.principal.clone() };
            let disabled = match snapshot.get(&principal_key).map(|r| &r.spec) {
                Some(Spec::Principal(principal)) => principal.disabled,
                _ => true,
            };
            let caller = Arc::new(Caller {
                principal: PrincipalRef { tenant: tenant.clone(), name: key.principal.clone() },
                authenticated_by: format!("api_key:{}", resource.metadata.name),
                token: None,
                // A key of ours says nothing to another's authorization server.
                subject: None,
            });
            by_hash.insert(*hash.as_bytes(), ApiKey { caller, expires_ns, disabled });
        }
        Self { by_hash }
    }

    /// Whether the token is one of these keys, good or not.
    pub(super) fn knows(&self, token: &str) -> bool {
        self.by_hash.contains_key(blake3::hash(token.as_bytes()).as_bytes())
    }

    /// Whose token it is, at `now_ns`.
    pub fn authenticate(&self, token: &str, now_ns: u64) -> Result<Arc<Caller>, Rejection> {
        let refused = |code, message: String| Err(Rejection::new(RejectionKind::Unauthenticated, code, message));
        let hash = blake3::hash(token.as_bytes());
        let Some(key) = self.by_hash.get(hash.as_bytes()) else {
            return refused("PV-AUTH-UNKNOWN-KEY", "the bearer token is not known here; ask for a new one".to_owned());
        };
        if key.expires_ns.is_some_and(|end| now_ns >= end) {
            return refused("PV-AUTH-EXPIRED-KEY", "the bearer token has expired; ask for a new one".to_owned());
        }
        if key.disabled {
            return refused("PV-AUTH-DISABLED", format!("principal {} is disabled", key.caller.principal));
        }
        Ok(key.caller.clone())
    }
}

fn parse_time(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos()).ok()
}
