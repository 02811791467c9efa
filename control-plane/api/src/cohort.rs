//! Changes that wait together are committed side by side.
//!
//! A change is recorded, proposed and recorded again, and each of the three steps is cheapest when
//! many changes take it at the same moment: they share a message, an append, a sync. So changes
//! start in cohorts: one that comes alone starts at once, those that come while a cohort is on its
//! way start together after it. Nothing else joins them: each is recorded, committed and answered by
//! itself. A cohort that takes long (no quorum, no audit log) holds back the next one for no more
//! than [`PATIENCE`].

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};

/// How long a cohort may hold back the next one: longer than a commit under load, far shorter than
/// an election.
const PATIENCE: Duration = Duration::from_millis(30);

type Change = BoxFuture<'static, ()>;

#[derive(Default)]
struct Queue {
    waiting: Vec<Change>,
    running: bool,
}

/// The changes of one node that wait for their cohort. Their number is bounded by the calls that the
/// admin API takes.
#[derive(Default)]
pub(crate) struct Cohorts {
    queue: Mutex<Queue>,
}

impl Cohorts {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change; whether [`Cohorts::run`] must be started.
    pub(crate) fn push(&self, change: Change) -> bool {
        let mut queue = self.lock();
        queue.waiting.push(change);
        !mem::replace(&mut queue.running, true)
    }

    fn next(&self) -> Option<Vec<Change>> {
        let mut queue = self.lock();
        queue.running = !queue.waiting.is_empty();
        queue.running.then(|| mem::take(&mut queue.waiting))
    }

    /// Runs cohorts until nothing waits. A cohort goes on when nobody waits for it any more.
    pub(crate) async fn run(&self) {
        while let Some(changes) = self.next() {
            let cohort = tokio::spawn(join_all(changes));
            let _ = tokio::time::timeout(PATIENCE, cohort).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{
        sync::{Notify, oneshot},
        time::Instant,
    };

    use super::*;

    fn start(cohorts: &Arc<Cohorts>, change: impl Future<Output = ()> + Send + 'static) {
        if cohorts.push(Box::pin(change)) {
            let cohorts = cohorts.clone();
            tokio::spawn(async move { cohorts.run().await });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_during_a_cohort_starts_together_after_it() {
        let cohorts = Arc::new(Cohorts::default());
        let (go_on, started) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let waits = go_on.clone();
        start(&cohorts, async move { waits.notified().await });
        tokio::task::yield_now().await;
        for _ in 0..3 {
            let started = started.clone();
            start(&cohorts, async move {
                let _ = started.fetch_add(1, Ordering::SeqCst);
            });
        }
        tokio::time::sleep(PATIENCE / 2).await;
        assert_eq!(started.load(Ordering::SeqCst), 0);
        go_on.notify_one();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(started.load(Ordering::SeqCst), 3);
        // Idle again: the next one starts at once.
        let (done, answered) = oneshot::channel();
        start(&cohorts, async move { done.send(()).unwrap() });
        answered.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_ends_holds_the_others_back_for_a_moment_only() {
        let cohorts = Arc::new(Cohorts::default());
        start(&cohorts, std::future::pending());
        tokio::task::yield_now().await;
        let (done, answered) = oneshot::channel();
        let begin = Instant::now();
        start(&cohorts, async move { done.send(()).unwrap() });
        answered.await.unwrap();
        assert!(begin.elapsed() <= PATIENCE * 2, "{:?}", begin.elapsed());
    }
}
