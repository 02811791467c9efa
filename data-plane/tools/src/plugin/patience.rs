//! What is asked of a plugin on behalf of many: waited for no longer than the others can be kept waiting.
//!
//! Invariants: what is late is asked to its end all the same, so that it is there for who asks next; of one plugin
//! at most one list of each kind, and one introduction, is asked so without anybody who waits.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tracing::Instrument;

use super::Plugin;
use crate::{Definitions, ServerFacts, UpstreamError, upstream::ListKind};

/// Who asks to the end: held for as long as it lasts.
#[derive(Default)]
pub(super) struct Turns {
    lists: [Arc<Mutex<()>>; 4],
    facts: Arc<Mutex<()>>,
    /// Lists that came after they were given without.
    came_late: AtomicU64,
}

impl Plugin {
    /// A list, waited for no longer than `patience`; when it is later than that, the one fetched last. `came_late` is
    /// called when it comes after all: whoever was given another may ask again.
    ///
    /// # Errors
    /// Those of the fetch; [`UpstreamError::Unreachable`] when it is late and there was none before.
    pub async fn list_within(
        self: &Arc<Self>,
        kind: ListKind,
        patience: Duration,
        came_late: impl FnOnce() + Send + 'static,
    ) -> Result<Definitions, UpstreamError> {
        let plugin = self.clone();
        let asked = async move {
            let (began, before) = (Instant::now(), plugin.at_hand(kind));
            let listed = plugin.list(kind).await;
            // What is as it was, or cannot be fetched anew, is no news: a client that asks again would ask for ever.
            let is_news = listed.as_ref().is_ok_and(|now| !Arc::ptr_eq(now, &before));
            if is_news && began.elapsed() >= patience {
                plugin.turns.came_late.fetch_add(1, Ordering::SeqCst);
                came_late();
            }
            listed
        };
        if let Some(listed) = within(&self.turns.lists[kind as usize], patience, asked).await {
            return listed;
        }
        let stand_in = self.stand_in();
        let known = stand_in.as_deref().unwrap_or(self).source.at_hand(kind).ok_or_else(|| late(patience))?;
        tracing::warn!(plugin = %self.name, list = kind.member(), "a list is late; the last one is used");
        Ok(known)
    }

    /// How many of its lists came after [`Plugin::list_within`] had given up on them.
    pub fn lists_come_late(&self) -> u64 {
        self.turns.came_late.load(Ordering::SeqCst)
    }

    /// [`Plugin::capabilities`], waited for no longer than `patience`; when they are later than that, what it said last.
    ///
    /// # Errors
    /// As those of [`Plugin::list_within`].
    pub async fn capabilities_within(self: &Arc<Self>, patience: Duration) -> Result<ServerFacts, UpstreamError> {
        let plugin = self.clone();
        let asked = async move { plugin.capabilities().await };
        if let Some(facts) = within(&self.turns.facts, patience, asked).await {
            return facts;
        }
        let known = self.facts.lock().clone();
        known.ok_or_else(|| late(patience))
    }
}

fn late(patience: Duration) -> UpstreamError {
    UpstreamError::Unreachable(format!("no answer in {} s; it is still waited for", patience.as_secs()))
}

/// What was asked, if it comes in time; `None`: it is late.
async fn within<T: Send + 'static>(
    turn: &Arc<Mutex<()>>,
    patience: Duration,
    asked: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let mut asked = Box::pin(asked);
    // Mostly it is at hand.
    if let Poll::Ready(answer) = futures::poll!(asked.as_mut()) {
        return Some(answer);
    }
    let Ok(turn) = turn.clone().try_lock_owned() else {
        // Somebody asks to the end already: the answer is shared.
        return tokio::time::timeout(patience, asked).await.ok();
    };
    let to_its_end = async move {
        let answer = asked.await;
        drop(turn);
        answer
    };
    let answer = tokio::time::timeout(patience, tokio::spawn(to_its_end.in_current_span())).await.ok()?;
    match answer {
        Ok(answer) => Some(answer),
        Err(cause) => {
            tracing::error!(%cause, "what was asked of a plugin did not come to its end");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_is_late_is_asked_to_its_end_by_one() {
        let (turn, ended) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let ask = || {
            let (gate, ended) = (gate.clone(), ended.clone());
            async move {
                let _ = gate.acquire().await;
                ended.fetch_add(1, Ordering::SeqCst)
            }
        };
        for _ in 0..3 {
            assert_eq!(within(&turn, SHORT, ask()).await, None);
        }
        gate.add_permits(1);
        while turn.try_lock().is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(ended.load(Ordering::SeqCst), 1, "the others stopped when they were late");
        assert_eq!(within(&turn, LONG, ask()).await, Some(1), "one that is in time is given");
    }

    #[tokio::test]
    async fn what_is_at_hand_needs_no_turn() {
        let turn = Arc::new(Mutex::new(()));
        let _held = turn.clone().lock_owned().await;
        assert_eq!(within(&turn, SHORT, async { 7 }).await, Some(7));
    }
}
