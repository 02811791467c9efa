//! An upstream MCP server as a plugin: eras, connections, lists, calls and listeners joined.
//!
//! The four combinations of eras take one path. A modern upstream's `input_required` result goes
//! back as it is; a legacy upstream's question parks the call and goes back as such a result. The
//! caller of `execute` asks its legacy client and calls again, or hands the result to a modern one.

mod between_calls;
mod calls;
mod connect;
mod kin;
mod sessions;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_mcp::Era;
use provost_types::Era as WantedEra;
use tokio_util::sync::CancellationToken;

use super::{
    audience::{Audience, Pool},
    connection::ServerFacts,
    http::HttpTarget,
    listing::{self, ListCache, ListKind},
    parking::Parking,
    stdio::StdioTarget,
    subscriptions::SubscriptionBook,
};
use crate::{Definition, Definitions, Limits, UpstreamError, resilience::Watch, siblings::Kin};

/// Between two looks for idle sessions.
const SWEEP_PERIOD: Duration = Duration::from_secs(30);

/// How to reach the upstream.
enum Target {
    Http(HttpTarget),
    Stdio(StdioTarget),
}

struct EraState {
    known: Option<Era>,
    failed: Option<(Instant, UpstreamError)>,
}

/// An upstream MCP server.
pub(crate) struct McpUpstream {
    me: Weak<Self>,
    plugin: String,
    target: Target,
    limits: Limits,
    /// The era found out; one at a time finds it.
    era: tokio::sync::Mutex<EraState>,
    modern: Pool,
    legacy: Pool,
    parking: Arc<Parking>,
    lists: [ListCache; 4],
    book: SubscriptionBook,
    /// The other nodes; `None`: there are none.
    kin: Option<Kin>,
    sessions: sessions::KnownSessions,
    /// The log level of legacy clients on a modern upstream, by caller.
    levels: Mutex<HashMap<String, String>>,
    watching: AtomicBool,
    /// Told how fetches of lists end; set once by the plugin.
    breaker: OnceLock<Arc<Watch>>,
    stop: CancellationToken,
}

impl Drop for McpUpstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl McpUpstream {
    pub(crate) fn http(
        plugin: &str,
        target: HttpTarget,
        wanted: WantedEra,
        limits: &Limits,
        kin: Option<Kin>,
    ) -> Arc<Self> {
        Self::new(plugin, Target::Http(target), wanted, limits, kin)
    }

    pub(crate) fn stdio(
        plugin: &str,
        target: StdioTarget,
        wanted: WantedEra,
        limits: &Limits,
        kin: Option<Kin>,
    ) -> Arc<Self> {
        Self::new(plugin, Target::Stdio(target), wanted, limits, kin)
    }

    fn new(plugin: &str, target: Target, wanted: WantedEra, limits: &Limits, kin: Option<Kin>) -> Arc<Self> {
        let over_stdio = matches!(target, Target::Stdio(_));
        let upstream = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            plugin: plugin.to_owned(),
            target,
            era: tokio::sync::Mutex::new(EraState {
                known: match wanted {
                    WantedEra::Auto => None,
                    WantedEra::Modern => Some(Era::Modern),
                    WantedEra::Legacy => Some(Era::Legacy),
                },
                failed: None,
            }),
            modern: Pool::new(limits, over_stdio),
            legacy: Pool::new(limits, over_stdio),
            parking: Arc::new(Parking::new(
                kin.as_ref().map(|kin| kin.nodes.tag()),
                limits.max_parked,
                limits.park_ttl,
            )),
            kin,
            sessions: Default::default(),
            lists: Default::default(),
            book: SubscriptionBook::default(),
            levels: Mutex::default(),
            watching: false.into(),
            breaker: OnceLock::new(),
            stop: CancellationToken::new(),
            limits: limits.clone(),
        });
        let weak = Arc::downgrade(&upstream);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_PERIOD).await;
                let Some(upstream) = weak.upgrade() else { return };
                upstream.legacy.sweep();
                upstream.modern.sweep();
            }
        });
        upstream
    }

    fn over_stdio(&self) -> bool {
        matches!(self.target, Target::Stdio(_))
    }

    /// What the upstream says of itself, asked from here.
    pub(crate) async fn facts_here(&self) -> Result<ServerFacts, UpstreamError> {
        self.catalogue().await.map(|c| c.facts.clone())
    }

    /// One of its lists.
    pub(crate) async fn list(self: &Arc<Self>, kind: ListKind) -> Result<Definitions, UpstreamError> {
        self.listed(kind, true).await
    }

    /// The same, as far as it is known or asked from here.
    pub(crate) async fn list_here(self: &Arc<Self>, kind: ListKind) -> Result<Definitions, UpstreamError> {
        self.listed(kind, false).await
    }

    async fn listed(self: &Arc<Self>, kind: ListKind, may_ask_others: bool) -> Result<Definitions, UpstreamError> {
        self.lists[kind as usize]
            .get(&self.limits, || async {
                if may_ask_others && let Some(listed) = self.list_elsewhere(kind).await {
                    return Ok((listed?.to_vec(), None));
                }
                match self.breaker.get() {
                    Some(breaker) => breaker.fetch(self.fetch_list(kind)).await,
                    None => self.fetch_list(kind).await,
                }
            })
            .await
    }

    async fn fetch_list(
        self: &Arc<Self>,
        kind: ListKind,
    ) -> Result<(Vec<Definition>, Option<Duration>), UpstreamError> {
        let connection = self.catalogue().await?;
        self.watch(&connection);
        match listing::fetch(&connection, kind, &self.limits).await {
            Err(UpstreamError::SessionGone) => {
                self.legacy.forget(&Audience::catalogue(), &connection);
                listing::fetch(&self.catalogue().await?, kind, &self.limits).await
            }
            fetched => fetched,
        }
    }

    /// Has fetches of lists counted, and refused while the breaker is open.
    pub(crate) fn guard_with(&self, breaker: Arc<Watch>) {
        // Set once, by the plugin that it belongs to.
        let _ = self.breaker.set(breaker);
    }

    /// A list as cached, however old.
    pub(crate) fn cached(&self, kind: ListKind) -> Option<Definitions> {
        self.lists[kind as usize].cached()
    }

    fn changed(&self, notification: &str) {
        for kind in ListKind::ALL {
            if kind.changed_by(notification) {
                self.lists[kind as usize].invalidate();
            }
        }
    }

    /// How many calls wait for their clients.
    pub(crate) fn parked(&self) -> usize {
        self.parking.len()
    }
}
