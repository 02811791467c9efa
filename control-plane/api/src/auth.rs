//! Who may administer: holders of an admin token, and principals with `admin: true` within their
//! own tenant.

use std::{io, net::SocketAddr, sync::Arc};

use provost_types::{ApiKeySpec, Kind, Name, ResourceKey, Snapshot, Spec};
use secrecy::SecretString;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{ControlError, ErrorKind, machine::Published, tokens};

/// A token of the cluster's own administrators; only its hash is held.
#[derive(Clone, Debug)]
pub struct AdminToken {
    name: String,
    hash: blake3::Hash,
}

impl AdminToken {
    /// Keeps the hash of a token that is known.
    pub fn of(name: impl Into<String>, token: &str) -> Self {
        Self { name: name.into(), hash: blake3::hash(token.as_bytes()) }
    }

    /// Makes a token: the text to hand out once, and what to keep.
    pub fn generate(name: impl Into<String>) -> io::Result<(SecretString, Self)> {
        let token = tokens::make()?;
        Ok((token.text, Self { name: name.into(), hash: token.hash }))
    }

    /// What is stored of it: BLAKE3, 64 hexadecimal digits.
    pub(crate) fn hash_hex(&self) -> String {
        self.hash.to_hex().to_string()
    }
}

/// How far a caller's rights reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Cluster,
    /// The resources of one tenant; not the tenant itself.
    Tenant(Name),
}

/// An authenticated caller of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name written into history.
    pub name: String,
    /// How far its rights reach.
    pub scope: Scope,
    /// `admin_token`, `api_key:NAME` or `internal`.
    pub authenticated_by: String,
    /// The peer's address.
    pub address: Option<String>,
}

impl Caller {
    /// The node's own process, such as `provost dev` applying its first resources.
    pub fn internal(name: impl Into<String>) -> Self {
        Self { name: name.into(), scope: Scope::Cluster, authenticated_by: "internal".to_owned(), address: None }
    }

    /// Whether the caller may change this resource.
    pub(crate) fn may_change(&self, key: &ResourceKey) -> bool {
        match &self.scope {
            Scope::Cluster => true,
            Scope::Tenant(own) => key.tenant.as_ref() == Some(own),
        }
    }

    /// Whether the caller may see it: one's own tenant too.
    pub(crate) fn may_see(&self, key: &ResourceKey) -> bool {
        match &self.scope {
            Scope::Cluster => true,
            Scope::Tenant(own) => self.may_change(key) || (key.kind == Kind::Tenant && key.name == *own),
        }
    }
}

/// Hears of every attempt to use the admin API. Called for each request: it must be quick.
pub trait Logins: Send + Sync {
    /// A request was let in.
    fn accepted(&self, caller: &Caller);
    /// A request was refused, with this code; the peer's address.
    fn refused(&self, code: &str, address: Option<&str>);
}

/// Nobody is told.
pub(crate) struct NoLogins;

impl Logins for NoLogins {
    fn accepted(&self, _: &Caller) {}
    fn refused(&self, _: &str, _: Option<&str>) {}
}

/// Checks the tokens of requests.
#[derive(Clone)]
pub(crate) struct Authenticator {
    pub(crate) admins: Arc<[AdminToken]>,
    pub(crate) published: Arc<Published>,
}

impl Authenticator {
    /// Authenticates an `authorization` header.
    pub(crate) fn authenticate(
        &self,
        header: Option<&str>,
        address: Option<SocketAddr>,
    ) -> Result<Caller, ControlError> {
        let Some(token) = header.and_then(|h| h.strip_prefix("Bearer ")) else {
            return Err(denied(
                "PV-ADMIN-NO-TOKEN",
                "the request carries no token",
                "give one with `--admin-token` or PROVOST_ADMIN_TOKEN",
            ));
        };
        let hash = blake3::hash(token.as_bytes());
        let address = address.map(|a| a.to_string());
        // Comparing `blake3::Hash`es takes the same time wherever they differ.
        if let Some(admin) = self.admins.iter().find(|a| a.hash == hash) {
            return Ok(Caller {
                name: admin.name.clone(),
                scope: Scope::Cluster,
                authenticated_by: "admin_token".to_owned(),
                address,
            });
        }
        if let Some(name) = self.stored_admin(hash) {
            let authenticated_by = "admin_token".to_owned();
            return Ok(Caller { name, scope: Scope::Cluster, authenticated_by, address });
        }
        let snapshot = self.published.snapshots.borrow().clone();
        by_api_key(&snapshot, hash, address)
    }
}

impl Authenticator {
    /// The administrator of the cluster whose token has this hash.
    fn stored_admin(&self, hash: blake3::Hash) -> Option<String> {
        let state = self.published.state.load();
        let tokens = state.cluster().admin_tokens();
        let same = |stored: &str| blake3::Hash::from_hex(stored).is_ok_and(|h| h == hash);
        tokens.iter().find(|(_, token)| same(&token.hash)).map(|(name, _)| name.clone())
    }
}

fn by_api_key(snapshot: &Snapshot, hash: blake3::Hash, address: Option<String>) -> Result<Caller, ControlError> {
    let found = snapshot.of_kind(Kind::ApiKey).find_map(|resource| match &resource.spec {
        Spec::ApiKey(spec) if blake3::Hash::from_hex(&spec.hash).is_ok_and(|h| h == hash) => {
            Some((resource.key(), spec))
        }
        _ => None,
    });
    let Some((ResourceKey { tenant: Some(tenant), name, .. }, spec)) = found else {
        let hint = "is it of this cluster, and not revoked?";
        return Err(denied("PV-ADMIN-BAD-TOKEN", "the token is not known", hint));
    };
    if expired(spec) {
        let hint = "make a new one with `provost token create`";
        return Err(denied("PV-ADMIN-EXPIRED", "the token has expired", hint));
    }
    let key = ResourceKey { kind: Kind::Principal, tenant: Some(tenant.clone()), name: spec.principal.clone() };
    match snapshot.get(&key).map(|r| &r.spec) {
        Some(Spec::Principal(principal)) if principal.disabled => {
            Err(denied("PV-ADMIN-DISABLED", format!("{key} is disabled"), ""))
        }
        Some(Spec::Principal(principal)) if principal.admin => Ok(Caller {
            name: format!("{tenant}/{}", spec.principal),
            scope: Scope::Tenant(tenant),
            authenticated_by: format!("api_key:{name}"),
            address,
        }),
        _ => Err(ControlError::new(
            ErrorKind::Forbidden,
            "PV-ADMIN-NOT-ADMIN",
            format!("{key} does not administer its tenant"),
            "a cluster administrator can set `admin: true` on the principal",
        )),
    }
}

/// A time that cannot be read counts as past: stored ones were checked.
fn expired(spec: &ApiKeySpec) -> bool {
    spec.expires
        .as_ref()
        .is_some_and(|text| OffsetDateTime::parse(text, &Rfc3339).map_or(true, |end| end <= OffsetDateTime::now_utc()))
}

fn denied(code: &str, message: impl Into<String>, hint: &str) -> ControlError {
    ControlError::new(ErrorKind::Unauthenticated, code, message, hint)
}
