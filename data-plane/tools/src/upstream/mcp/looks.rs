//! Looks at the endpoints of a plugin that has several: what tools they show, and whether they answer at all.
//!
//! Invariants: a look takes a bounded time, and a slow endpoint keeps nobody waiting for a list that another has
//! given; an endpoint that was out is looked at before it gets calls; nothing is called before the first looks ended.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};

use super::{
    super::{
        endpoints::Endpoints,
        listing::{self, ListKind},
    },
    McpUpstream, Target,
};
use crate::{
    Definition, UpstreamError,
    resilience::{Tries, Verdict, of_failure},
};

/// The longest look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the others are waited for when one endpoint has answered.
const STRAGGLER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two checks whether an ejected endpoint is to be looked at.
const PROBE_PERIOD: Duration = Duration::from_millis(100);

/// A list with how long it may be kept.
pub(super) type Listed = (Vec<Definition>, Option<Duration>);

impl McpUpstream {
    /// The endpoints, if there are several.
    pub(super) fn several(&self) -> Option<&Endpoints> {
        match &self.target {
            Target::Http(endpoints) if endpoints.are_several() => Some(endpoints),
            _ => None,
        }
    }

    /// Before the first call: none goes to an endpoint that nobody has looked at.
    pub(super) async fn looked_at_first(&self) {
        if self.several().is_none() || self.is_looked_at.load(Ordering::Acquire) {
            return;
        }
        if let Some(me) = self.me.upgrade() {
            // What cannot be listed shows nothing, and the call says itself what is wrong.
            if let Err(UpstreamError::Open { .. }) = Box::pin(me.list_here(ListKind::Tools)).await {
                return;
            }
        }
        self.is_looked_at.store(true, Ordering::Release);
    }

    /// A list as one endpoint gives it.
    pub(super) async fn look(self: &Arc<Self>, at: usize, kind: ListKind) -> Result<Listed, UpstreamError> {
        let connection = self.catalogue_at(at).await?;
        self.watch(&connection);
        match listing::fetch(&connection, kind, &self.limits).await {
            Err(UpstreamError::SessionGone) => {
                self.legacy.forget(&self.catalogue_audience(at), &connection);
                listing::fetch(&self.catalogue_at(at).await?, kind, &self.limits).await
            }
            listed => listed,
        }
    }

    /// The plugin's tools: every endpoint is looked at, and those that show other tools get no calls.
    pub(super) async fn look_at_all(self: &Arc<Self>, endpoints: &Endpoints) -> Result<Listed, UpstreamError> {
        let mut waiting = endpoints.to_look_at();
        let mut looks: FuturesUnordered<_> = waiting
            .iter()
            .map(|&at| async move {
                let look = tokio::time::timeout(LOOK_TIMEOUT, self.look(at, ListKind::Tools)).await;
                (at, look.unwrap_or(Err(UpstreamError::Deadline)))
            })
            .collect();
        let mut seen: Vec<(usize, Listed)> = Vec::new();
        let mut failed: Vec<(usize, UpstreamError)> = Vec::new();
        let stragglers = tokio::time::sleep(LOOK_TIMEOUT);
        tokio::pin!(stragglers);
        loop {
            tokio::select! {
                biased;
                look = looks.next() => {
                    let Some((at, look)) = look else { break };
                    waiting.retain(|other| *other != at);
                    match look {
                        Ok(listed) => {
                            if seen.is_empty() {
                                stragglers.as_mut().reset(tokio::time::Instant::now() + STRAGGLER_TIMEOUT);
                            }
                            seen.push((at, listed));
                        }
                        Err(cause) => failed.push((at, cause)),
                    }
                }
                () = &mut stragglers, if !seen.is_empty() => break,
            }
        }
        drop(looks);
        // By number: what is shown does not depend on who was quicker.
        seen.sort_by_key(|(at, _)| *at);
        let shown: Vec<(usize, &[Definition])> = seen.iter().map(|(at, (tools, _))| (*at, &tools[..])).collect();
        let agreed = endpoints.agree(&shown);
        for (at, cause) in &failed {
            if agreed.is_some() || of_failure(cause, true) == Verdict::Bad {
                tracing::debug!(plugin = self.plugin, endpoint = at, %cause, "a look at an endpoint failed");
                endpoints.looked(*at, None);
            }
        }
        waiting.into_iter().for_each(|at| endpoints.looked(at, None));
        match agreed {
            Some(place) => Ok(seen.swap_remove(place).1),
            None => Err(failed.into_iter().next().map_or(UpstreamError::Deadline, |(_, cause)| cause)),
        }
    }

    /// Looks at ejected endpoints when their time is over, for as long as the plugin lives.
    pub(super) fn probe(self: &Arc<Self>) {
        if self.several().is_none() {
            return;
        }
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PROBE_PERIOD).await;
                let Some(upstream) = weak.upgrade() else { return };
                let due = upstream.several().map(Endpoints::due).unwrap_or_default();
                for at in due {
                    let upstream = upstream.clone();
                    tokio::spawn(async move { upstream.probe_one(at).await });
                }
            }
        });
    }

    async fn probe_one(self: &Arc<Self>, at: usize) {
        let look = tokio::time::timeout(LOOK_TIMEOUT, self.look(at, ListKind::Tools)).await;
        let Some(endpoints) = self.several() else { return };
        match look.unwrap_or(Err(UpstreamError::Deadline)) {
            Ok((tools, _)) => {
                endpoints.looked(at, Some(&tools));
                if endpoints.differs(at) {
                    // Perhaps all show it by now.
                    self.lists[ListKind::Tools as usize].invalidate();
                }
            }
            Err(cause) => {
                tracing::debug!(plugin = self.plugin, endpoint = at, %cause, "an endpoint is still out");
                endpoints.looked(at, None);
            }
        }
    }

    /// A list that all endpoints have alike, from one that answers.
    pub(super) async fn list_of_any(self: &Arc<Self>, kind: ListKind) -> Result<Listed, UpstreamError> {
        let Some(endpoints) = self.several() else { return self.look(0, kind).await };
        let tries = Tries::new(true);
        loop {
            let at = endpoints.choose(&tries);
            match self.look(at, kind).await {
                Err(cause) if of_failure(&cause, true) == Verdict::Bad && endpoints.has_other(&tries) => {
                    tracing::debug!(plugin = self.plugin, endpoint = at, %cause, "a list is asked elsewhere");
                }
                listed => return listed,
            }
        }
    }
}
