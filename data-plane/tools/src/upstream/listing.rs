//! The upstream's definitions, byte for byte, fetched once for everyone and cached.
//!
//! Invariants: one fetch at a time for one list, shared by all who wait; a list is used for at
//! least `list_ttl_min` and at most `list_ttl_max`, less if the upstream says that it changed;
//! pages, definitions and time are bounded.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use parking_lot::Mutex;
use provost_mcp::{RawJson, RawObject, RpcError, array_items};

use super::{
    connection::Connection,
    handshake::full_capabilities,
    headers::{standard_headers, valid_header_annotations},
    outgoing::modern_meta,
};
use crate::{Definition, DefinitionList, Definitions, Limits, UpstreamError};

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
}

impl ListKind {
    pub(crate) const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The member of the result that holds the definitions.
    pub fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The kind of this member of a result.
    pub fn of_member(member: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.member() == member)
    }

    /// The member of a definition that names it.
    pub fn name_member(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    /// The capability under which it is served.
    fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }

    /// Whether this notification says that the list changed.
    pub(super) fn changed_by(self, notification: &str) -> bool {
        match self {
            Self::Tools => notification == "notifications/tools/list_changed",
            Self::Prompts => notification == "notifications/prompts/list_changed",
            Self::Resources | Self::Templates => notification == "notifications/resources/list_changed",
        }
    }
}

struct Cached {
    definitions: Definitions,
    fetched: Instant,
    fresh_for: Duration,
}

/// One list.
#[derive(Default)]
pub(crate) struct ListCache {
    current: ArcSwapOption<Cached>,
    fetching: tokio::sync::Mutex<()>,
    /// Counts invalidations: a fetch that one overtook is old when it arrives.
    generation: AtomicU64,
    failed: Mutex<Option<(Instant, UpstreamError)>>,
    /// The last list that was fetched, for as long as anybody holds it.
    latest: Mutex<Weak<DefinitionList>>,
}

impl ListCache {
    pub(super) fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.current.store(None);
    }

    /// What is cached, however old.
    pub(crate) fn cached(&self) -> Option<Definitions> {
        self.current.load().as_ref().map(|c| c.definitions.clone())
    }

    fn fresh(&self) -> Option<Definitions> {
        let current = self.current.load();
        let cached = current.as_ref()?;
        (cached.fetched.elapsed() < cached.fresh_for).then(|| cached.definitions.clone())
    }

    /// The list, fetched by `fetch` if the cached one is too old.
    pub(crate) async fn get<F>(&self, limits: &Limits, fetch: impl FnOnce() -> F) -> Result<Definitions, UpstreamError>
    where
        F: Future<Output = Result<(Vec<Definition>, Option<Duration>), UpstreamError>>,
    {
        match self.fresh() {
            Some(fresh) => Ok(fresh),
            // In a box: every call asks for a list and hardly any has to wait for one, while to fetch one is a large future
            // that would be part of each call's.
            None => Box::pin(self.fetched(limits, fetch)).await,
        }
    }

    async fn fetched<F>(&self, limits: &Limits, fetch: impl FnOnce() -> F) -> Result<Definitions, UpstreamError>
    where
        F: Future<Output = Result<(Vec<Definition>, Option<Duration>), UpstreamError>>,
    {
        let waiting_since = Instant::now();
        let _turn = self.fetching.lock().await;
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        // Whoever waited through a failed fetch shares its failure.
        if let Some((at, cause)) = &*self.failed.lock()
            && *at >= waiting_since
        {
            return Err(cause.clone());
        }
        let generation = self.generation.load(Ordering::SeqCst);
        let fetched = tokio::time::timeout(limits.list_timeout, fetch()).await;
        match fetched.unwrap_or(Err(UpstreamError::Deadline)) {
            Ok((definitions, ttl)) => {
                let definitions = self.shared(definitions);
                let fresh_for = ttl.unwrap_or(limits.list_ttl_min).clamp(limits.list_ttl_min, limits.list_ttl_max);
                let cached = Cached { definitions: definitions.clone(), fetched: Instant::now(), fresh_for };
                if self.generation.load(Ordering::SeqCst) == generation {
                    self.current.store(Some(Arc::new(cached)));
                }
                Ok(definitions)
            }
            Err(cause) => self.stale_or(limits, cause),
        }
    }

    /// The list as others hold it already, if nothing changed: what was made of it stays good.
    fn shared(&self, fetched: Vec<Definition>) -> Definitions {
        let before = self.latest.lock().upgrade();
        let list = before.filter(|list| list[..] == fetched[..]).unwrap_or_else(|| Arc::new(fetched.into()));
        *self.latest.lock() = Arc::downgrade(&list);
        list
    }

    fn stale_or(&self, limits: &Limits, cause: UpstreamError) -> Result<Definitions, UpstreamError> {
        let current = self.current.load();
        match current.as_ref().filter(|c| c.fetched.elapsed() < limits.list_stale_max) {
            Some(stale) => {
                // While the breaker is open this is no news.
                if !matches!(cause, UpstreamError::Open { .. }) {
                    tracing::warn!(%cause, "a list cannot be fetched; the last one is used");
                }
                Ok(stale.definitions.clone())
            }
            None => {
                *self.failed.lock() = Some((Instant::now(), cause.clone()));
                Err(cause)
            }
        }
    }
}

/// Fetches all pages of a list.
pub(super) async fn fetch(
    connection: &Arc<Connection>,
    kind: ListKind,
    limits: &Limits,
) -> Result<(Vec<Definition>, Option<Duration>), UpstreamError> {
    let mut definitions: Vec<Definition> = Vec::new();
    let mut names = HashSet::new();
    let mut ttl: Option<Duration> = None;
    if !connection.facts.can(kind.capability()) {
        return Ok((definitions, Some(limits.list_ttl_max)));
    }
    let mut cursor: Option<RawJson> = None;
    for _ in 0..limits.max_pages {
        let page = match request_page(connection, kind, cursor.take()).await {
            // Servers with resources need not know templates.
            Err(UpstreamError::Rpc(error))
                if error.code == RpcError::METHOD_NOT_FOUND && kind == ListKind::Templates =>
            {
                break;
            }
            page => RawObject::parse(&page?)?,
        };
        let items = page
            .get(kind.member())
            .ok_or_else(|| UpstreamError::Garbage(format!("its {} has no `{}`", kind.method(), kind.member())))?;
        for raw in array_items(&items)? {
            if definitions.len() >= limits.max_definitions {
                tracing::warn!(limit = limits.max_definitions, "a list is cut: it has more definitions");
                return Ok((definitions, ttl));
            }
            definitions.extend(taken(kind, raw).filter(|definition| is_first(&mut names, definition)));
        }
        if let Some(ms) = page.get("ttlMs").and_then(|t| t.parse::<u64>().ok()) {
            let page_ttl = Duration::from_millis(ms);
            ttl = Some(ttl.map_or(page_ttl, |t| t.min(page_ttl)));
        }
        cursor = page.get("nextCursor").filter(|c| c.as_text().is_some());
        if cursor.is_none() {
            break;
        }
    }
    Ok((definitions, ttl))
}

async fn request_page(
    connection: &Arc<Connection>,
    kind: ListKind,
    cursor: Option<RawJson>,
) -> Result<RawJson, UpstreamError> {
    let mut params = RawObject::new();
    if let Some(cursor) = cursor {
        params.set("cursor", cursor);
    }
    let mut headers = HeaderMap::new();
    if !connection.is_legacy() {
        params.set("_meta", modern_meta(RawObject::new(), &full_capabilities(), None).finish());
        headers = standard_headers(kind.method(), None);
    }
    connection.request(kind.method(), &params.finish(), headers).await
}

/// The definition, unless it must not be offered.
fn taken(kind: ListKind, raw: RawJson) -> Option<Definition> {
    let name = RawObject::parse(&raw).ok().and_then(|o| o.get_text(kind.name_member()));
    let Some(name) = name else {
        tracing::warn!(kind = kind.member(), "a definition without a name is dropped");
        return None;
    };
    if kind == ListKind::Tools && !valid_header_annotations(&raw) {
        tracing::warn!(tool = name, "a tool with an invalid x-mcp-header is dropped");
        return None;
    }
    Some(Definition { name, raw })
}

fn is_first(names: &mut HashSet<String>, definition: &Definition) -> bool {
    let is_first = names.insert(definition.name.clone());
    if !is_first {
        tracing::warn!(name = definition.name, "a second definition of the same name is dropped");
    }
    is_first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_that_is_at_hand_costs_no_room_for_fetching_one() {
        const HELD_BYTES: usize = 64 * 1024;
        let (cache, limits) = (ListCache::default(), Limits::default());
        let fetched = || async {
            let held = [0_u8; HELD_BYTES];
            std::future::ready(()).await;
            std::hint::black_box(&held);
            Ok((Vec::new(), None))
        };
        for _ in 0..2 {
            let asked = cache.get(&limits, fetched);
            let bytes = size_of_val(&asked);
            assert!(bytes < HELD_BYTES, "{bytes} bytes");
            assert!(asked.await.is_ok_and(|list| list.is_empty()));
        }
        assert!(cache.cached().is_some());
    }
}
