//! Commands that wait together travel together.
//!
//! Each caller looks for the leader by itself; what it then hands over joins the commands that
//! wait for the same leader, and on the leader what other replicas forwarded joins its own. A batch
//! begins when nothing is under way, or when as many commands wait as are under way, or when one has
//! waited for [`LONGEST_GATHERING`]: a lone command waits for nobody, under load the cost of a
//! message, an append and a wake-up is shared by many commands, and a batch without an answer does
//! not hold up what comes after it. At most [`MAX_UNDER_WAY`] batches are under way to one leader. One task a leader
//! begins the batches, so commands reach it in the order in which they were handed over.
//!
//! What is a batch of its caller's already does not come here (`propose_at_once`).
//!
//! A batch is one attempt and is not atomic: every command in it has an answer of its own, and
//! its caller decides about another try. A command that waits behind batches of a leader that is
//! none any more, or for too long, is given back: it has not been sent.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{GroupError, Proposed, admission::Place, group::GroupCore, route::Leader};

/// Batches under way to one leader: while one is applied others are on their way.
const MAX_UNDER_WAY: usize = 4;
/// Commands in one batch.
const MAX_BATCH_COMMANDS: usize = 512;
/// Bytes in one batch; a command that alone is larger is a batch of its own.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// How long a command waits for others to join it where a batch may begin.
const LONGEST_GATHERING: Duration = Duration::from_millis(50);
/// Between two looks at whether what waits should wait any longer.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// What became of one command.
type Outcome = Result<Proposed, GroupError>;

/// A command and where its outcome goes.
struct Waiting {
    command: Bytes,
    since: Instant,
    outcome: oneshot::Sender<Outcome>,
    /// Its own even when its caller went away: what waits here is bounded by places.
    place: Arc<Place>,
}

/// What waits for one leader; exists while a task runs that takes it.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Tells the task of a command that it has not seen.
    pushed: Arc<Notify>,
}

/// The commands of one replica that wait for a batch. Bounded by the gate that callers pass first.
#[derive(Default)]
pub(crate) struct Batches {
    queues: Mutex<HashMap<Leader, Queue>>,
}

impl Batches {
    fn lock(&self) -> MutexGuard<'_, HashMap<Leader, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The notifier of a task that must be started to run batches, if none runs.
    fn push(&self, leader: &Leader, waiting: Waiting) -> Option<Arc<Notify>> {
        let mut queues = self.lock();
        if let Some(queue) = queues.get_mut(leader) {
            queue.waiting.push_back(waiting);
            queue.pushed.notify_one();
            return None;
        }
        let queue = Queue { waiting: VecDeque::from([waiting]), ..Queue::default() };
        let pushed = queue.pushed.clone();
        queues.insert(leader.clone(), queue);
        Some(pushed)
    }

    /// Ends the task that asks, unless something waits.
    fn end(&self, leader: &Leader) -> bool {
        let mut queues = self.lock();
        let ends = queues.get(leader).is_none_or(|queue| queue.waiting.is_empty());
        if ends {
            queues.remove(leader);
        }
        ends
    }

    /// Whether anything waits.
    fn waits(&self, leader: &Leader) -> bool {
        self.lock().get(leader).is_some_and(|queue| !queue.waiting.is_empty())
    }

    /// The next batch, in the order in which its commands came, if `under_way` commands leave reason
    /// to begin one.
    fn next(&self, leader: &Leader, under_way: usize, now: Instant) -> Option<Vec<Waiting>> {
        let mut queues = self.lock();
        let waiting = &mut queues.get_mut(leader)?.waiting;
        let overdue = now.saturating_duration_since(waiting.front()?.since) >= LONGEST_GATHERING;
        if waiting.len() < under_way.min(MAX_BATCH_COMMANDS) && !overdue {
            return None;
        }
        let first = waiting.pop_front()?;
        let mut bytes = first.command.len();
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH_COMMANDS {
            let fits = |next: &mut Waiting| {
                bytes += next.command.len();
                bytes <= MAX_BATCH_BYTES
            };
            let Some(next) = waiting.pop_front_if(fits) else { break };
            batch.push(next);
        }
        Some(batch)
    }

    /// Takes out what came before `since`.
    fn withdraw(&self, leader: &Leader, since: Instant) -> Vec<Waiting> {
        let mut queues = self.lock();
        let Some(queue) = queues.get_mut(leader) else { return Vec::new() };
        let old = queue.waiting.partition_point(|waiting| waiting.since <= since);
        queue.waiting.drain(..old).collect()
    }
}

impl GroupCore {
    /// Hands a command to a leader, once, with those that wait for the same one. It waits from this
    /// call on, whether or not its outcome is awaited.
    pub(crate) fn join_batch(
        self: &Arc<Self>,
        leader: Leader,
        command: Bytes,
        place: Arc<Place>,
    ) -> impl Future<Output = Outcome> + use<> {
        let (outcome, answered) = oneshot::channel();
        let waiting = Waiting { command, since: Instant::now(), outcome, place };
        if let Some(pushed) = self.batches.push(&leader, waiting) {
            tokio::spawn(self.clone().run_batches(leader, pushed));
        }
        // Nobody answers only when the runtime ends.
        async move { answered.await.unwrap_or(Err(GroupError::OutcomeUnknown)) }
    }

    async fn run_batches(self: Arc<Self>, leader: Leader, pushed: Arc<Notify>) {
        let mut under_way = FuturesUnordered::new();
        // Of the batches under way.
        let mut commands = 0;
        // One timer for all looks: one for each turn would be set and unset with each.
        let mut look = std::pin::pin!(tokio::time::sleep(LOOK_PAUSE));
        loop {
            while under_way.len() < MAX_UNDER_WAY
                && let Some(batch) = self.batches.next(&leader, commands, Instant::now())
            {
                let count = batch.len();
                let mut running = Box::pin(self.run_batch(leader.clone(), batch));
                // The first poll sends it: the next one comes after it.
                if (&mut running).now_or_never().is_none() {
                    commands += count;
                    under_way.push(running.map(move |()| count));
                }
            }
            if under_way.is_empty() {
                if self.batches.end(&leader) {
                    return;
                }
                continue;
            }
            let room = under_way.len() < MAX_UNDER_WAY;
            // What comes later is told of where there is room, and else looked for.
            let looks = !room || self.batches.waits(&leader);
            tokio::select! {
                done = under_way.next() => commands -= done.unwrap_or(0),
                () = pushed.notified(), if room => {}
                () = look.as_mut(), if looks => {
                    self.give_back(&leader);
                    look.as_mut().reset(Instant::now() + LOOK_PAUSE);
                }
            }
        }
    }

    async fn run_batch(&self, leader: Leader, batch: Vec<Waiting>) {
        let (commands, callers): (Vec<Bytes>, Vec<_>) =
            batch.into_iter().map(|Waiting { command, outcome, place, .. }| (command, (outcome, place))).unzip();
        let done = match leader {
            Leader::Here => self.log_here(commands).await,
            Leader::There(peer) => self.forward(peer, commands).await,
        };
        for ((outcome, place), done) in callers.into_iter().zip(done) {
            // Its caller, if it is still there, has the place until it has the outcome.
            drop(place);
            // A caller that went away does not withdraw its command.
            let _ = outcome.send(done);
        }
    }

    /// Gives back what waits in vain; its callers look for a leader again.
    fn give_back(&self, leader: &Leader) {
        let (here, current) = {
            let metrics = self.metrics.borrow_watched();
            (metrics.id, metrics.current_leader)
        };
        let target = match leader {
            Leader::Here => here,
            Leader::There(peer) => peer.id,
        };
        let now = Instant::now();
        let until = if current == Some(target) {
            let Some(until) = now.checked_sub(self.config.forwarding.leader_wait()) else { return };
            until
        } else {
            now
        };
        for waiting in self.batches.withdraw(leader, until) {
            let error = if current == Some(target) {
                GroupError::NoQuorum(format!("node {target} leads and does not answer"))
            } else {
                GroupError::NotLeader { leader: current }
            };
            let _ = waiting.outcome.send(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Peer;

    fn waiting(bytes: usize) -> Waiting {
        let place = Arc::new(Place::alone());
        Waiting { command: vec![0; bytes].into(), since: Instant::now(), outcome: oneshot::channel().0, place }
    }

    fn there(id: u64) -> Leader {
        Leader::There(Peer { id, address: String::new(), group: "g".to_owned() })
    }

    #[test]
    fn a_batch_has_one_leader_and_bounds() {
        let batches = Batches::default();
        let pushed = [(Leader::Here, 1), (Leader::Here, 2), (there(2), 3), (there(3), 4), (there(3), MAX_BATCH_BYTES)];
        let started = pushed.map(|(leader, bytes)| batches.push(&leader, waiting(bytes)).is_some());
        assert_eq!(started, [true, false, true, true, false], "one task a leader");
        for _ in 0..MAX_BATCH_COMMANDS {
            batches.push(&there(2), waiting(0));
        }
        let sizes = |leader: Leader| -> Vec<usize> {
            std::iter::from_fn(|| batches.next(&leader, 0, Instant::now())).map(|batch| batch.len()).collect()
        };
        assert_eq!(sizes(Leader::Here), [2]);
        assert_eq!(sizes(there(2)), [MAX_BATCH_COMMANDS, 1]);
        assert_eq!(sizes(there(3)), [1, 1]);
        assert!(batches.end(&Leader::Here), "whoever finds nothing has ended");
        assert!(batches.push(&Leader::Here, waiting(0)).is_some(), "and is started again");
        assert!(!batches.end(&Leader::Here), "what came meanwhile keeps it running");
    }

    #[test]
    fn only_what_is_old_is_withdrawn() {
        let batches = Batches::default();
        for bytes in [1, 2] {
            batches.push(&Leader::Here, waiting(bytes));
        }
        let between = Instant::now();
        let later = Waiting { since: between + Duration::from_secs(1), ..waiting(3) };
        batches.push(&Leader::Here, later);
        let sizes = |withdrawn: Vec<Waiting>| withdrawn.iter().map(|w| w.command.len()).collect::<Vec<_>>();
        assert_eq!(sizes(batches.withdraw(&Leader::Here, between)), [1, 2]);
        assert_eq!(sizes(batches.withdraw(&there(2), between)), [0; 0]);
        assert_eq!(batches.next(&Leader::Here, 0, Instant::now()).map(|batch| batch.len()), Some(1));
    }

    #[test]
    fn a_batch_begins_when_as_many_wait_as_are_under_way() {
        let batches = Batches::default();
        let begun = Instant::now();
        // Nothing that comes later has waited then.
        let next = |under_way| batches.next(&Leader::Here, under_way, begun).map(|batch| batch.len());
        batches.push(&Leader::Here, waiting(1));
        assert_eq!(next(0), Some(1), "alone it waits for nobody");
        batches.push(&Leader::Here, waiting(1));
        batches.push(&Leader::Here, waiting(1));
        assert_eq!(next(3), None);
        assert_eq!(next(2), Some(2));
        for _ in 0..MAX_BATCH_COMMANDS {
            batches.push(&Leader::Here, waiting(1));
        }
        assert_eq!(next(MAX_BATCH_COMMANDS * 3), Some(MAX_BATCH_COMMANDS), "more than a batch takes do not wait");
    }

    #[test]
    fn a_command_is_not_held_up_by_a_large_batch_for_long() {
        let batches = Batches::default();
        let next = |now| batches.next(&Leader::Here, MAX_BATCH_COMMANDS, now).map(|batch| batch.len());
        assert!(!batches.waits(&Leader::Here));
        let before = Instant::now();
        batches.push(&Leader::Here, waiting(1));
        batches.push(&Leader::Here, waiting(1));
        assert!(batches.waits(&Leader::Here));
        assert_eq!(next(before + LONGEST_GATHERING / 2), None);
        assert_eq!(next(Instant::now() + LONGEST_GATHERING), Some(2));
        assert!(!batches.waits(&Leader::Here));
        assert_eq!(next(Instant::now() + LONGEST_GATHERING), None, "nothing waits");
    }
}
