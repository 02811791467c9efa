//! One plugin's calls with their time, their places, the breaker and what is tried again.
//!
//! Invariants: one call is one answer, whatever was tried for it; a place is held from the first attempt to the
//! last; nothing is tried again that may have been executed, unless it is safe to repeat; no lock is held while
//! something is awaited.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use memchr::memmem::Finder;
use parking_lot::Mutex;
use provost_data_pipeline::{ClientLink, Effort, Execution};
use provost_mcp::RawJson;
use provost_types::{BoxFuture, Name, PluginSpec, RetryOn};

use super::{
    breaker::Verdict,
    budget::{Budget, pause_ms},
    cache::{self, Cache},
    gate::{NoPlace, Place},
    hedge,
    policy::{Policy, Times},
    tries::Tries,
    verdict::{may_retry, retry_on, verdict},
    watch::Watch,
};
use crate::{ExecuteRequest, UpstreamError, mark::Mark};

/// An attempt that took longer is not followed by another: the caller has waited enough.
const QUICK_FAILURE_MS: u64 = 3_000;
/// When a caller who found no place should come again.
const BUSY_RETRY_MS: u64 = 1_000;

/// What stands behind a shield.
pub trait Upstream: Sync {
    /// One attempt. Boxed: what an upstream does is large and deep.
    fn run<'a>(
        &'a self,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>>;

    /// The same where there is a choice of places: not where the call was before.
    fn attempt<'a>(
        &'a self,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
        _tries: &'a Tries,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>> {
        self.run(request, link)
    }

    /// Whether there is a place in good standing where the call was not.
    fn has_other(&self, _tries: &Tries) -> bool {
        false
    }

    /// Whether its calls may make calls of other tools, and wait for them.
    fn calls_others(&self) -> bool {
        false
    }

    /// A tool's definition, if it is at hand.
    fn definition(&self, tool: &str) -> Option<RawJson>;
}

/// A plugin's calls with their time, their places, the breaker, retries, hedges and kept answers.
pub struct Shield {
    policy: Policy,
    watch: Arc<Watch>,
    budget: Mutex<Budget>,
    cache: Cache,
}

impl Shield {
    /// What stands before the upstream of a plugin of this tenant, by its spec.
    pub fn new(tenant: &Name, plugin: &Name, spec: &PluginSpec) -> Self {
        let policy = Policy::new(plugin.as_str(), spec);
        let watch = Watch::new(tenant.clone(), plugin.clone(), policy.spec.breaker.clone());
        let budget = Mutex::new(Budget::new(policy.spec.retry.budget_percent));
        let cache = Cache::new(policy.spec.cache.clone());
        Self { policy, watch: Arc::new(watch), budget, cache }
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Runs one operation; never fails to answer.
    pub async fn execute(
        &self,
        upstream: &dyn Upstream,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Execution {
        let times = self.policy.times(&request.operation, &request.params, Instant::now(), request.deadline);
        let request = &ExecuteRequest { deadline: times.deadline, ..request.clone() };
        // What other tools gave depends on more than is known here: each of them is decided by itself.
        let plan = if upstream.calls_others() { None } else { self.cache.plan(request) };
        let Some(plan) = plan else { return self.called(upstream, request, link, &times).await };
        if let Some(hit) = self.cache.get(&plan, self.watch.now_ms()) {
            return cache::again(hit);
        }
        let _flight = match self.cache.join(&plan) {
            Some(Err(mut others)) => {
                // Its sender is dropped at its end, whatever that is.
                let over = tokio::time::timeout_at(request.deadline.into(), others.changed());
                tokio::select! {
                    biased;
                    _ = over => {}
                    () = link.cancelled() => return Execution::cancelled(),
                }
                if let Some(hit) = self.cache.get(&plan, self.watch.now_ms()) {
                    return cache::again(hit);
                }
                None
            }
            Some(Ok(flight)) => Some(flight),
            None => None,
        };
        let execution = self.called(upstream, request, link, &times).await;
        self.cache.keep(&plan, &execution, self.watch.now_ms());
        execution
    }

    /// Something changed upstream: what was kept may be wrong.
    pub(crate) fn forget(&self) {
        self.cache.clear();
    }

    async fn called(
        &self,
        upstream: &dyn Upstream,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
        times: &Times,
    ) -> Execution {
        let (mut attempts, mut placed) = (0, times.began);
        let outcome = async {
            let is_nested = may_be_waited_for(upstream, request);
            let Some(_places) = self.places(request, link, is_nested).await? else { return Ok(Execution::cancelled()) };
            placed = Instant::now();
            // Who waited for long in our own queue says nothing of the upstream when its time is over.
            let is_fair = times.is_policy && (placed - times.began) * 2 <= times.deadline - times.began;
            self.attempts(upstream, request, link, is_fair, &mut attempts).await
        };
        let outcome = outcome.await;
        let mut execution = outcome.unwrap_or_else(|cause| self.failed(cause, times, placed));
        execution.effort = Effort { attempts, ..execution.effort };
        execution
    }

    /// A place of the tool's and one of the plugin's, in that order, so that nobody waits for the first while
    /// holding the second. `None`: the caller gave up.
    async fn places(
        &self,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
        is_nested: bool,
    ) -> Result<Option<(Option<Place<'_>>, Place<'_>)>, UpstreamError> {
        let began = Instant::now();
        if is_nested {
            let principal = &request.principal.name;
            let tool = self.policy.tool_gate(&request.operation).map(|gate| gate.enter_now(principal)).transpose();
            let both = tool.and_then(|tool| Ok((tool, self.policy.gate.enter_now(principal)?)));
            return both.map(Some).map_err(|why| busy(why, began));
        }
        let both = async {
            let tool = match self.policy.tool_gate(&request.operation) {
                Some(gate) => Some(gate.enter(&request.principal.name, request.deadline).await?),
                None => None,
            };
            Ok((tool, self.policy.gate.enter(&request.principal.name, request.deadline).await?))
        };
        tokio::select! {
            biased;
            entered = both => entered.map(Some).map_err(|why| busy(why, began)),
            // Asked for only when there is something to wait for.
            () = async { link.cancelled().await } => Ok(None),
        }
    }

    async fn attempts(
        &self,
        upstream: &dyn Upstream,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
        is_fair: bool,
        attempts: &mut u32,
    ) -> Result<Execution, UpstreamError> {
        self.budget.lock().call();
        let tries = Tries::new(is_fair);
        let mut last = None;
        loop {
            let began = Instant::now();
            let admitted = match self.watch.admit() {
                Ok(admitted) => admitted,
                // What happened says more than that nothing is tried any more.
                Err(open) => return Err(last.unwrap_or(open)),
            };
            *attempts += 1;
            let outcome = match hedge::after(self.policy.spec.hedge.as_ref(), &request.operation) {
                Some(after) if !answers_a_question(request) => {
                    let may_hedge = || {
                        let paid = self.budget.lock().take(self.watch.now_ms());
                        *attempts += u32::from(paid);
                        paid
                    };
                    hedge::run(upstream, request, link, &tries, after, may_hedge).await
                }
                _ => upstream.attempt(request, link, &tries).await,
            };
            let has_other = upstream.has_other(&tries);
            admitted.settle(match verdict(&outcome, is_fair) {
                // One of several endpoints failed: that is between it and the others.
                Verdict::Bad if has_other => Verdict::Neither,
                verdict => verdict,
            });
            let cause = match outcome {
                Err(cause) if self.again(upstream, request, &cause, *attempts, began, has_other) => cause,
                ended => return ended,
            };
            // Another endpoint needs no time to come to itself.
            let pause = match has_other {
                true => Duration::ZERO,
                false => Duration::from_millis(pause_ms(&self.policy.spec.retry, *attempts + 1, rand::random())),
            };
            if Instant::now() + pause >= request.deadline {
                return Err(cause);
            }
            tracing::debug!(plugin = self.policy.plugin, %cause, attempts = *attempts, "a call is tried again");
            last = Some(cause);
            tokio::select! {
                () = link.cancelled() => return Ok(Execution::cancelled()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether another attempt follows; if so, it is paid for.
    fn again(
        &self,
        upstream: &dyn Upstream,
        request: &ExecuteRequest<'_>,
        cause: &UpstreamError,
        attempts: u32,
        began: Instant,
        has_other: bool,
    ) -> bool {
        let spec = &self.policy.spec.retry;
        // What was not sent and goes to another endpoint is no load that would not be there anyway.
        let is_free = has_other && retry_on(cause) == Some(RetryOn::NotSent);
        attempts < spec.attempts
            && began.elapsed().as_millis() < u128::from(QUICK_FAILURE_MS)
            && may_retry(spec, &request.operation, cause, |tool| upstream.definition(tool))
            && !answers_a_question(request)
            && (is_free || self.budget.lock().take(self.watch.now_ms()))
    }

    fn failed(&self, cause: UpstreamError, times: &Times, placed: Instant) -> Execution {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let cause = match cause {
            UpstreamError::Deadline => UpstreamError::Late {
                after_ms: ms(times.began.elapsed()),
                waited_ms: ms(placed - times.began),
                is_policy: times.is_policy,
            },
            other => other,
        };
        Execution::error(cause.to_rpc(&self.policy.plugin))
    }
}

/// Whether those who have the places may be waiting for this call: plugins call plugins. It waits for nobody then.
fn may_be_waited_for(upstream: &dyn Upstream, request: &ExecuteRequest<'_>) -> bool {
    upstream.calls_others() && request.other_tools.is_some_and(|tools| tools.depth() > 0)
}

/// Whether it answers a question. A second try of it would answer the question twice.
fn answers_a_question(request: &ExecuteRequest<'_>) -> bool {
    static STATE: Mark = Mark::new(|| Finder::new(b"\"requestState\""));
    STATE.is_in(request.params.as_bytes())
}

fn busy(why: NoPlace, began: Instant) -> UpstreamError {
    let cause = match why {
        NoPlace::Full => "as many calls as allowed run and wait".to_owned(),
        NoPlace::Displaced => "the queue is full, and most of it is this caller's".to_owned(),
        NoPlace::TooLong => format!("the call waited {} ms for a place", began.elapsed().as_millis()),
    };
    UpstreamError::Crowded { cause, retry_after_ms: BUSY_RETRY_MS }
}
