//! The task that exchanges with the ledger.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use provost_data_policy::quota::{LeaseBook, LeaseExchange, QuotaIndex};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::port::{LeasePort, LeaseUnavailable, answer, request};

/// The longest wait for one answer.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// The wait after a failure, at first and at most.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Accounts are looked after this often even if none asks.
const TICK: Duration = Duration::from_millis(100);
/// The longest time for giving back what is left at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The quotas of one node: its accounts and the task that keeps them supplied.
pub struct Quotas {
    pub(super) book: LeaseBook,
    node: String,
    epoch: u64,
    port: Arc<dyn LeasePort>,
    started: Instant,
    /// Since when exchanges fail, nanoseconds of [`Quotas::now_ns`]; 0: they do not.
    failing_since: AtomicU64,
    fenced: watch::Sender<bool>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("node", &self.node).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Quotas {
    /// Begins to exchange in the name of `node`. `epoch` must be larger with each start of the
    /// node: the ledger closes what earlier ones held. Must be called within a tokio runtime.
    pub fn start(port: Arc<dyn LeasePort>, node: impl Into<String>, epoch: u64) -> Arc<Self> {
        let quotas = Arc::new(Self {
            book: LeaseBook::default(),
            node: node.into(),
            epoch,
            port,
            started: Instant::now(),
            failing_since: AtomicU64::new(0),
            fenced: watch::Sender::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let running = quotas.clone();
        quotas.tasks.spawn(async move { running.run().await });
        quotas
    }

    /// Nanoseconds since the start, by the monotonic clock; never 0, which stands for "not yet".
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Another state is active: where it has another limit, that one holds at once.
    pub(crate) fn follow(&self, before: &QuotaIndex, now: &QuotaIndex) {
        let changed = now.changed_since(before);
        if !changed.is_empty() {
            self.book.recall(&changed, self.now_ns());
        }
    }

    /// How long exchanges have failed; `None`: the last one was answered.
    pub(super) fn failing_for(&self, now_ns: u64) -> Option<Duration> {
        match self.failing_since.load(Ordering::Acquire) {
            0 => None,
            since => Some(Duration::from_nanos(now_ns.saturating_sub(since))),
        }
    }

    /// Becomes true when a later process of this node's name is known to the ledger. This one can
    /// admit nothing more that a quota covers, and should end.
    pub fn fenced(&self) -> watch::Receiver<bool> {
        self.fenced.subscribe()
    }

    async fn run(&self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(TICK) => {}
                () = poll_fn(|cx| self.book.poll_wanted(cx)) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.exchange_all() => {}
            }
        }
    }

    /// Exchanges until there is nothing to say, in the order of the numbers.
    async fn exchange_all(&self) {
        let mut backoff = FIRST_BACKOFF;
        while let Some(exchange) = self.book.next(self.now_ns()) {
            match self.attempt(exchange).await {
                Ok(()) => backoff = FIRST_BACKOFF,
                Err(cause) => {
                    self.note_failure(&cause);
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    async fn attempt(&self, exchange: LeaseExchange) -> Result<(), LeaseUnavailable> {
        let seq = exchange.seq;
        let exchanged = timeout(ATTEMPT_LIMIT, self.port.exchange(request(&self.node, self.epoch, exchange)));
        let response = exchanged
            .await
            .unwrap_or_else(|_| Err(LeaseUnavailable(format!("no answer within {} s", ATTEMPT_LIMIT.as_secs()))))?;
        if self.failing_since.swap(0, Ordering::AcqRel) != 0 {
            tracing::info!("quota leases are exchanged again");
        }
        self.book.answered(seq, &answer(response), self.now_ns());
        if self.book.is_fenced() && !self.fenced.send_replace(true) {
            tracing::error!(
                node = self.node,
                epoch = self.epoch,
                "PV-QUOTA-FENCED: a later process runs under this node's name; calls that quotas cover are denied"
            );
        }
        Ok(())
    }

    fn note_failure(&self, cause: &LeaseUnavailable) {
        let first = self.failing_since.compare_exchange(0, self.now_ns(), Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            tracing::warn!(%cause, "PV-QUOTA-UNREACHABLE: quota leases cannot be exchanged; those at hand are spent");
        }
    }

    /// Gives back what is left, within a bound. Call it when no call runs any more: units that
    /// are still held then count as used.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.book.close();
        if timeout(CLOSE_LIMIT, self.exchange_all()).await.is_err() {
            tracing::warn!("PV-QUOTA-UNREACHABLE: leased units could not be given back and count as used");
        }
    }
}
