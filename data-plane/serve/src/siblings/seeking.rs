//! How often all siblings are greeted because of a tag that nobody here knows.
//!
//! Tags come from clients (event ids, states), so an unknown one may be made up: without a bound each would make a
//! greeting of every node. Invariants: at most one round in [`SEEK_EVERY`], whatever comes; who came before a round
//! began shares it, and who comes after one that has just ended is answered by what it brought.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Between two rounds. A process that began a moment ago is found by the greetings that nodes send anyway.
pub(super) const SEEK_EVERY: Duration = Duration::from_secs(1);

/// When the last round began.
#[derive(Debug, Default)]
pub(super) struct Seeking(tokio::sync::Mutex<Option<Instant>>);

impl Seeking {
    /// Makes a round, or waits for one that is under way; does neither when one was made just now.
    pub(super) async fn round<F: Future<Output = ()>>(&self, greet: impl FnOnce() -> F) {
        let mut last = self.0.lock().await;
        if last.is_some_and(|at| at.elapsed() < SEEK_EVERY) {
            return;
        }
        greet().await;
        *last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn many_unknown_tags_are_one_round() {
        let (seeking, rounds) = (Seeking::default(), AtomicUsize::new(0));
        let greet = || async {
            tokio::task::yield_now().await;
            rounds.fetch_add(1, Ordering::SeqCst);
        };
        let began = Instant::now();
        join_all((0..1_000).map(|_| seeking.round(greet))).await;
        for _ in 0..1_000 {
            seeking.round(greet).await;
        }
        let most = 1 + began.elapsed().as_millis() / SEEK_EVERY.as_millis();
        let rounds_then = rounds.load(Ordering::SeqCst);
        assert!(rounds_then >= 1 && rounds_then as u128 <= most, "{rounds_then} rounds");
        tokio::time::sleep(SEEK_EVERY).await;
        seeking.round(greet).await;
        assert_eq!(rounds.load(Ordering::SeqCst), rounds_then + 1);
    }
}
