//! An upstream MCP server as a plugin: eras, connections, lists, calls and listeners joined.
//!
//! The four combinations of eras take one path. A modern upstream's `input_required` result goes
//! back as it is; a legacy upstream's question parks the call and goes back as such a result. The
//! caller of `execute` asks its legacy client and calls again, or hands the result to a modern one.

mod between_calls;
mod calls;
mod connect;
mod kin;
mod looks;
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
    audience::Pool,
    connection::ServerFacts,
    endpoints::{EndpointView, Endpoints, Turn},
    listing::{ListCache, ListKind},
    parking::Parking,
    stdio::StdioTarget,
    subscriptions::SubscriptionBook,
};
use crate::{
    Definitions, Limits, UpstreamError, Walls,
    resilience::{Tries, Watch},
    siblings::Kin,
};

/// Between two looks for idle sessions.
const SWEEP_PERIOD: Duration = Duration::from_secs(30);

/// How to reach the upstream.
enum Target {
    Http(Endpoints),
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
    /// The era found out at each endpoint; one at a time finds it.
    eras: Vec<tokio::sync::Mutex<EraState>>,
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
    /// Its endpoints were looked at, or could not be.
    is_looked_at: AtomicBool,
    /// Its legacy sessions have no ids: nothing is kept in them, and any endpoint is as good.
    is_stateless: AtomicBool,
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
        endpoints: Endpoints,
        wanted: WantedEra,
        limits: &Limits,
        kin: Option<Kin>,
    ) -> Arc<Self> {
        Self::new(plugin, Target::Http(endpoints), wanted, limits, kin)
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
        let places = match &target {
            Target::Http(endpoints) => endpoints.count(),
            Target::Stdio(_) => 1,
        };
        let known = match wanted {
            WantedEra::Auto => None,
            WantedEra::Modern => Some(Era::Modern),
            WantedEra::Legacy => Some(Era::Legacy),
        };
        let upstream = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            plugin: plugin.to_owned(),
            eras: (0..places).map(|_| tokio::sync::Mutex::new(EraState { known, failed: None })).collect(),
            target,
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
            is_looked_at: false.into(),
            is_stateless: false.into(),
            breaker: OnceLock::new(),
            stop: CancellationToken::new(),
            limits: limits.clone(),
        });
        upstream.probe();
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

    /// The walls around its process; `None`: it has no process yet, or none that is to have walls.
    pub(crate) fn walls(&self) -> Option<Walls> {
        match &self.target {
            Target::Http(_) => None,
            Target::Stdio(target) => target.walled.as_ref()?.standing(),
        }
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
                let fetch = async {
                    match self.several().filter(|_| kind == ListKind::Tools) {
                        Some(endpoints) => self.look_at_all(endpoints).await,
                        None => self.list_of_any(kind).await,
                    }
                };
                match self.breaker.get() {
                    Some(breaker) => breaker.fetch(fetch).await,
                    None => fetch.await,
                }
            })
            .await
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

    /// A call's way to one of the places where the upstream is.
    fn turn<'a>(&'a self, tries: &'a Tries) -> Turn<'a> {
        match &self.target {
            Target::Http(endpoints) => endpoints.turn(tries),
            Target::Stdio(_) => Turn::nowhere(tries),
        }
    }

    /// Whether a call that failed somewhere can go somewhere else.
    pub(crate) fn has_other(&self, tries: &Tries) -> bool {
        self.several().is_some_and(|endpoints| endpoints.has_other(tries))
    }

    /// Its endpoints, if it has several.
    pub(crate) fn endpoints(&self) -> Vec<EndpointView> {
        self.several().map(Endpoints::view).unwrap_or_default()
    }

    /// How many calls wait for their clients.
    pub(crate) fn parked(&self) -> usize {
        self.parking.len()
    }
}
