//! An upstream MCP server as a plugin: eras, connections, lists, calls and listeners joined.
//!
//! The four combinations of eras take one path. A modern upstream's `input_required` result goes
//! back as it is; a legacy upstream's question parks the call and goes back as such a result. The
//! caller of `execute` asks its legacy client and calls again, or hands the result to a modern one.

mod between_calls;
mod calls;
mod connect;

use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::AtomicBool},
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
use crate::{Definitions, Limits, UpstreamError};

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
    /// The log level of legacy clients on a modern upstream, by caller.
    levels: Mutex<HashMap<String, String>>,
    watching: AtomicBool,
    stop: CancellationToken,
}

impl Drop for McpUpstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl McpUpstream {
    pub(crate) fn http(plugin: &str, target: HttpTarget, wanted: WantedEra, limits: &Limits) -> Arc<Self> {
        Self::new(plugin, Target::Http(target), wanted, limits)
    }

    pub(crate) fn stdio(plugin: &str, target: StdioTarget, wanted: WantedEra, limits: &Limits) -> Arc<Self> {
        Self::new(plugin, Target::Stdio(target), wanted, limits)
    }

    fn new(plugin: &str, target: Target, wanted: WantedEra, limits: &Limits) -> Arc<Self> {
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
            parking: Arc::new(Parking::new(limits.max_parked, limits.park_ttl)),
            lists: Default::default(),
            book: SubscriptionBook::default(),
            levels: Mutex::default(),
            watching: false.into(),
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

    /// What the upstream says of itself.
    pub(crate) async fn facts(&self) -> Result<ServerFacts, UpstreamError> {
        self.catalogue().await.map(|c| c.facts.clone())
    }

    /// One of its lists.
    pub(crate) async fn list(self: &Arc<Self>, kind: ListKind) -> Result<Definitions, UpstreamError> {
        self.lists[kind as usize]
            .get(&self.limits, || async {
                let connection = self.catalogue().await?;
                self.watch(&connection);
                match listing::fetch(&connection, kind, &self.limits).await {
                    Err(UpstreamError::SessionGone) => {
                        self.legacy.forget(&Audience::catalogue(), &connection);
                        listing::fetch(&self.catalogue().await?, kind, &self.limits).await
                    }
                    fetched => fetched,
                }
            })
            .await
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
