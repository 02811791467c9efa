//! What users let plugins do in their name, as this node knows it.
//!
//! Purpose: tokens that users consented to are kept by the control plane, sealed, one set a principal and plugin;
//! every node reads them from its state and opens them. Whoever changes them asks the control plane, which takes
//! one change of several: so any node may lead a user through the consent, and one refreshes.
//! Invariants: a connection is found by what it says of itself, and opens only under the name that it was sealed
//! under; what this node keeps in memory of it ends with it.
//! Left out: how tokens are got (`oauth`), and the way to the control plane (a port).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use provost_types::{BoxFuture, ConnectionSpec, Kind, Name, PrincipalRef, Resource, Snapshot, Spec};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::SecretSource;

/// The control plane gets so long to answer.
const KEEP_LIMIT: Duration = Duration::from_secs(10);

/// What of a connection is to be kept.
#[derive(Clone, Debug)]
pub enum Keep {
    /// What a consent gave.
    Made {
        /// What the tokens are of.
        authority: String,
        /// The scopes.
        scope: String,
        /// When the flow began, nanoseconds since the Unix epoch.
        began_ns: u64,
        /// The tokens.
        tokens: SecretString,
    },
    /// This node asks for new tokens in the place of this version.
    Claimed(u64),
    /// It got them.
    Refreshed {
        /// The version that they take the place of.
        version: u64,
        /// The scopes; empty: as before.
        scope: String,
        /// The tokens.
        tokens: SecretString,
    },
    /// It got none, and another may try.
    Released(u64),
    /// It is over: the tokens of this version were taken back.
    Ended {
        /// The version.
        version: u64,
        /// How it came to it, for the record.
        note: String,
    },
}

/// The control plane did not answer, or refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeepFailed(pub String);

/// The way to the control plane.
pub trait ConnectionPort: Send + Sync {
    /// Keeps it; whether it was taken, or something else came first.
    fn keep<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        keep: Keep,
    ) -> BoxFuture<'a, Result<bool, KeepFailed>>;
}

/// Tokens as they are sealed.
#[derive(Serialize, Deserialize)]
struct StoredTokens {
    access: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh: Option<String>,
    /// Unix seconds; none: the server did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_s: Option<u64>,
}

/// Tokens, opened.
pub(crate) struct UserTokens {
    pub(crate) access: SecretString,
    pub(crate) refresh: Option<SecretString>,
    pub(crate) ends_s: Option<u64>,
}

impl UserTokens {
    /// As they are kept; not printable.
    pub(crate) fn to_text(&self) -> SecretString {
        let stored = StoredTokens {
            access: self.access.expose_secret().to_owned(),
            refresh: self.refresh.as_ref().map(|refresh| refresh.expose_secret().to_owned()),
            ends_s: self.ends_s,
        };
        // Texts and a number: this cannot fail.
        SecretString::from(serde_json::to_string(&stored).unwrap_or_default())
    }

    fn parse(text: &SecretString) -> Option<Self> {
        let stored: StoredTokens = serde_json::from_str(text.expose_secret()).ok()?;
        Some(Self {
            access: SecretString::from(stored.access),
            refresh: stored.refresh.map(SecretString::from),
            ends_s: stored.ends_s,
        })
    }
}

/// One of a principal's connections, as they may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnConnection {
    /// The plugin.
    pub plugin: Name,
    /// What it may do, as the authorization server said.
    pub scope: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// When the flow began that led to it, nanoseconds since the Unix epoch: never the same for a later consent.
    pub began_ns: u64,
}

/// A connection that was found.
#[derive(Clone)]
pub(crate) struct Found(Arc<Resource>);

impl Found {
    fn spec(&self) -> Option<&ConnectionSpec> {
        match &self.0.spec {
            Spec::Connection(spec) => Some(spec),
            _ => None,
        }
    }

    pub(crate) fn authority(&self) -> &str {
        self.spec().map_or("", |spec| &spec.authority)
    }

    pub(crate) fn began_ns(&self) -> u64 {
        self.spec().map_or(0, |spec| spec.began_ns)
    }

    /// Whether a node has it to itself: to refresh it, or to end it.
    fn is_claimed(&self) -> bool {
        self.spec().is_some_and(|spec| spec.claim.is_some())
    }

    /// Never the same for other tokens.
    pub(crate) fn version(&self) -> u64 {
        self.spec().and_then(|spec| spec.sealed.as_ref()).map_or(0, |sealed| sealed.version)
    }
}

/// A connection that another than a node has ended.
pub(crate) struct Ended {
    pub(crate) principal: PrincipalRef,
    pub(crate) plugin: Name,
    pub(crate) found: Found,
}

type Index = HashMap<(PrincipalRef, Name), Arc<Resource>>;

/// See the module.
pub struct Connections {
    port: Arc<dyn ConnectionPort>,
    secrets: Arc<dyn SecretSource>,
    index: watch::Sender<Arc<Index>>,
}

impl Connections {
    /// None yet.
    pub fn new(port: Arc<dyn ConnectionPort>, secrets: Arc<dyn SecretSource>) -> Arc<Self> {
        Arc::new(Self { port, secrets, index: watch::Sender::default() })
    }

    /// Those of this state. Which were there before and are not now, but for those that a node has ended: it claims
    /// them first, and has told whom it has to tell.
    pub(crate) fn renew(&self, snapshot: &Snapshot) -> Vec<Ended> {
        let now = self.index.borrow().clone();
        let key = |resource: &Arc<Resource>| match (&resource.spec, &resource.metadata.tenant) {
            (Spec::Connection(spec), Some(tenant)) => {
                Some((PrincipalRef { tenant: tenant.clone(), name: spec.principal.clone() }, spec.plugin.clone()))
            }
            _ => None,
        };
        let next: Index = snapshot.of_kind(Kind::Connection).filter_map(|r| Some((key(r)?, r.clone()))).collect();
        let is_same = |(key, resource): (&(PrincipalRef, Name), &Arc<Resource>)| {
            now.get(key).is_some_and(|known| known.modified == resource.modified)
        };
        if next.len() != now.len() || !next.iter().all(is_same) {
            let gone = now.iter().filter(|(key, _)| !next.contains_key(*key));
            let gone = gone.map(|((principal, plugin), resource)| Ended {
                principal: principal.clone(),
                plugin: plugin.clone(),
                found: Found(resource.clone()),
            });
            let ended = gone.filter(|ended| !ended.found.is_claimed()).collect();
            self.index.send_replace(Arc::new(next));
            return ended;
        }
        Vec::new()
    }

    /// A principal's, in order of plugin.
    pub(crate) fn of(&self, principal: &PrincipalRef) -> Vec<OwnConnection> {
        let index = self.index.borrow().clone();
        let own = index.iter().filter(|((whose, _), _)| whose == principal);
        let mut own: Vec<_> = own
            .filter_map(|(_, resource)| match &resource.spec {
                Spec::Connection(spec) => Some(OwnConnection {
                    plugin: spec.plugin.clone(),
                    scope: spec.scope.clone(),
                    since: spec.since.clone(),
                    began_ns: spec.began_ns,
                }),
                _ => None,
            })
            .collect();
        own.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        own
    }

    pub(crate) fn find(&self, principal: &PrincipalRef, plugin: &Name) -> Option<Found> {
        self.index.borrow().get(&(principal.clone(), plugin.clone())).cloned().map(Found)
    }

    pub(crate) fn open(&self, found: &Found) -> Option<UserTokens> {
        let metadata = &found.0.metadata;
        let sealed = found.spec()?.sealed.as_ref()?;
        UserTokens::parse(&self.secrets.tokens(metadata.tenant.as_ref()?, &metadata.name, sealed)?)
    }

    pub(crate) async fn keep(&self, principal: &PrincipalRef, plugin: &Name, keep: Keep) -> Result<bool, KeepFailed> {
        let kept = tokio::time::timeout(KEEP_LIMIT, self.port.keep(principal, plugin, keep)).await;
        kept.unwrap_or_else(|_| Err(KeepFailed(format!("the control plane did not answer in {KEEP_LIMIT:?}"))))
    }

    /// Ends the connection of the flow that began then; whether there was one.
    pub(crate) async fn forget(
        &self,
        principal: &PrincipalRef,
        plugin: &Name,
        began_ns: u64,
        note: String,
    ) -> Result<bool, KeepFailed> {
        let Some(found) = self.find(principal, plugin).filter(|found| found.began_ns() == began_ns) else {
            return Ok(false);
        };
        self.keep(principal, plugin, Keep::Ended { version: found.version(), note }).await
    }

    /// Waits until the connection is another than `before` (none, or of this version), or the time is over.
    pub(crate) async fn changed(
        &self,
        principal: &PrincipalRef,
        plugin: &Name,
        before: Option<u64>,
        limit: Duration,
    ) -> Option<Found> {
        let key = (principal.clone(), plugin.clone());
        let mut changes = self.index.subscribe();
        let is_other = |index: &Arc<Index>| index.get(&key).cloned().map(|r| Found(r).version()) != before;
        let _ = tokio::time::timeout(limit, changes.wait_for(is_other)).await;
        self.find(principal, plugin)
    }
}

/// Unix seconds.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
