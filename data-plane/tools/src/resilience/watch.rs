//! The breaker of one plugin with a clock, and what is said when it changes.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use provost_types::{BreakerSpec, Name};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    breaker::{Breaker, Change, Pass, Refused, Verdict},
    verdict::of_failure,
};
use crate::UpstreamError;

/// Watches one upstream.
#[derive(Debug)]
pub(crate) struct Watch {
    tenant: Name,
    plugin: Name,
    made: Instant,
    breaker: Mutex<Breaker>,
}

impl Watch {
    pub(crate) fn new(tenant: Name, plugin: Name, spec: BreakerSpec) -> Self {
        Self { tenant, plugin, made: Instant::now(), breaker: Mutex::new(Breaker::new(spec)) }
    }

    /// Milliseconds since it was made: the time that the machines of this plugin know.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it is not closed.
    pub(crate) fn is_open(&self) -> bool {
        self.breaker.lock().is_open()
    }

    /// Leave to ask the upstream.
    pub(crate) fn admit(&self) -> Result<Admitted<'_>, UpstreamError> {
        let now_ms = self.now_ms();
        match self.breaker.lock().admit(now_ms) {
            Ok(pass) => Ok(Admitted { watch: self, pass, if_dropped: Verdict::Neither, is_settled: false }),
            Err(refused) => Err(self.open(&refused, now_ms)),
        }
    }

    /// Work that many wait for, whose owner drops it when it takes too long: that leaves no doubt.
    pub(crate) async fn fetch<T>(
        &self,
        work: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let mut admitted = self.admit()?;
        admitted.if_dropped = Verdict::Hopeless;
        let outcome = work.await;
        admitted.settle(match &outcome {
            Ok(_) => Verdict::Good,
            Err(cause) => of_failure(cause, true),
        });
        outcome
    }

    /// Work that may have been done before, so that only its failure says something.
    pub(crate) async fn recall<T>(
        &self,
        work: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let admitted = self.admit()?;
        let outcome = work.await;
        admitted.settle(match &outcome {
            Err(cause) if of_failure(cause, true) == Verdict::Bad => Verdict::Bad,
            _ => Verdict::Neither,
        });
        outcome
    }

    fn settle(&self, pass: Pass, verdict: Verdict) {
        let now_ms = self.now_ms();
        let change = self.breaker.lock().settle(pass, verdict, now_ms);
        match change {
            None => {}
            Some(Change::Opened { until_ms }) => tracing::warn!(
                code = "PV-UPSTREAM-OPEN",
                tenant = %self.tenant,
                plugin = %self.plugin,
                for_ms = until_ms.saturating_sub(now_ms),
                "an upstream fails; calls of it are refused until a trial succeeds"
            ),
            Some(Change::Closed) => tracing::info!(
                tenant = %self.tenant,
                plugin = %self.plugin,
                "an upstream answers again; calls of it go through"
            ),
        }
    }

    fn open(&self, refused: &Refused, now_ms: u64) -> UpstreamError {
        // A trial may be under way longer than its time.
        let retry_after_ms = refused.until_ms.saturating_sub(now_ms).max(MIN_RETRY_MS);
        let now = SystemTime::now();
        let ago = Duration::from_millis(now_ms.saturating_sub(refused.since_ms));
        UpstreamError::Open {
            since: rfc3339(now.checked_sub(ago).unwrap_or(now)),
            until: rfc3339(now + Duration::from_millis(retry_after_ms)),
            retry_after_ms,
        }
    }
}

/// The shortest time after which to try again.
const MIN_RETRY_MS: u64 = 100;

fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    at.replace_nanosecond(at.millisecond() as u32 * 1_000_000).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// Leave to ask, which is settled once.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    watch: &'a Watch,
    pass: Pass,
    if_dropped: Verdict,
    is_settled: bool,
}

impl Admitted<'_> {
    /// Says how it went.
    pub(crate) fn settle(mut self, verdict: Verdict) {
        self.is_settled = true;
        self.watch.settle(self.pass, verdict);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.watch.settle(self.pass, self.if_dropped);
        }
    }
}
