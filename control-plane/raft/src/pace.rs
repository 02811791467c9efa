//! Which followers a leader asks at once.
//!
//! A commit needs as many followers as make a quorum with the leader. Those that answer fastest get each entry when it is
//! there; the others get what has gathered in the meantime, with fewer messages and syncs on all sides. Nobody is chosen for
//! long: who leaves a message unanswered falls behind with every moment, and another is asked in its place within one wait.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Of the usual time of an answer, the newest one's part is one in so many: each change of who is first costs more than some
/// slow answers do, and who does not answer at all is noticed otherwise.
const WEIGHT: u32 = 64;
/// Who lacks more entries than this is catching up: its answers commit nothing new, however fast they come.
const BEHIND: u64 = 1_000;
/// Who is asked at once has more to do and may take a third longer than another that would take its place.
const STAYS: (u32, u32) = (3, 4);

/// What a leader knows of how fast its followers answer.
#[derive(Default)]
pub(crate) struct Pace {
    followers: Mutex<BTreeMap<u64, Answers>>,
    /// Somebody answered, came or went: whoever waits may be needed now.
    changed: Notify,
}

#[derive(Default)]
struct Answers {
    /// `None`: none came yet.
    usual: Option<Duration>,
    /// When what is not answered yet was sent.
    waiting: VecDeque<Instant>,
    /// The last entry that it is known to hold.
    holds: u64,
    /// Is asked at once.
    first: bool,
}

impl Answers {
    /// How long an answer takes now, as far as it can be known.
    fn expected(&self, now: Instant) -> Duration {
        let waited = self.waiting.front().map_or(Duration::ZERO, |sent| now - *sent);
        let expected = self.usual.map_or(Duration::MAX, |usual| usual.max(waited));
        if self.first { expected / STAYS.1 * STAYS.0 } else { expected }
    }
}

impl Pace {
    /// What is sent to a follower from now on, and what it answers.
    pub(crate) fn begin(self: &Arc<Self>, follower: u64) -> Paced {
        self.forget(follower);
        Paced { pace: self.clone(), follower }
    }

    fn forget(&self, follower: u64) {
        self.followers().insert(follower, Answers::default());
        self.changed.notify_waiters();
    }

    fn followers(&self) -> MutexGuard<'_, BTreeMap<u64, Answers>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream of messages to a follower. Dropped: it is over, and nothing is known of the follower.
pub(crate) struct Paced {
    pace: Arc<Pace>,
    follower: u64,
}

impl Paced {
    /// Something was sent that will be answered.
    pub(crate) fn sent(&self) {
        if let Some(answers) = self.pace.followers().get_mut(&self.follower) {
            answers.waiting.push_back(Instant::now());
        }
    }

    /// The oldest of what was sent is answered: the follower holds everything up to this entry.
    pub(crate) fn answered(&self, holds: u64) {
        let mut followers = self.pace.followers();
        let Some(answers) = followers.get_mut(&self.follower) else { return };
        let Some(sent) = answers.waiting.pop_front() else { return };
        let took = sent.elapsed();
        answers.holds = answers.holds.max(holds);
        answers.usual = Some(answers.usual.map_or(took, |usual| (usual * (WEIGHT - 1) + took) / WEIGHT));
        drop(followers);
        self.pace.changed.notify_waiters();
    }

    /// Whether this follower is one of the voters that make a quorum with the leader and answer fastest.
    pub(crate) fn is_needed(&self, voters: &BTreeSet<u64>) -> bool {
        let (mut followers, now) = (self.pace.followers(), Instant::now());
        let of_voters = || followers.iter().filter(|(id, _)| voters.contains(id));
        let newest = of_voters().map(|(_, answers)| answers.holds).max().unwrap_or_default();
        let rank =
            |id: u64, answers: &Answers| (newest - newest.min(answers.holds) > BEHIND, answers.expected(now), id);
        let mine = followers.get(&self.follower).map(|answers| rank(self.follower, answers));
        let faster = of_voters().filter(|(id, answers)| Some(rank(**id, answers)) < mine).count();
        let first = voters.contains(&self.follower) && faster < voters.len() / 2;
        let was = followers.get_mut(&self.follower).is_some_and(|own| std::mem::replace(&mut own.first, first));
        drop(followers);
        if was != first {
            self.pace.changed.notify_waiters();
        }
        first
    }

    /// Waits until `until`, or until `is_needed` says yes.
    pub(crate) async fn wait(&self, until: Instant, is_needed: impl Fn() -> bool) {
        loop {
            let changed = self.pace.changed.notified();
            if is_needed() || tokio::time::timeout_at(until, changed).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.pace.forget(self.follower);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    async fn answer(follower: &Paced, took: Duration) {
        follower.sent();
        advance(took).await;
        follower.answered(0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_answer_fastest_are_needed_until_they_do_not_answer() {
        let pace = Arc::new(Pace::default());
        let voters = BTreeSet::from([1, 2, 3]);
        let (one, two) = (pace.begin(1), pace.begin(2));
        let needed = || (one.is_needed(&voters), two.is_needed(&voters));
        assert_eq!(needed(), (true, false), "nothing is known");
        answer(&two, 3 * MS).await;
        assert_eq!(needed(), (false, true), "two answers");
        answer(&one, MS * 5 / 2).await;
        assert_eq!(needed(), (false, true), "nearly as fast is no reason");
        for _ in 0..WEIGHT {
            answer(&one, MS).await;
        }
        assert_eq!(needed(), (true, false), "one answers faster");
        let five = (1..=5).collect();
        assert!(one.is_needed(&five) && two.is_needed(&five), "of five voters, two are");
        let learner = BTreeSet::from([2, 3, 4]);
        assert_eq!((one.is_needed(&learner), two.is_needed(&learner)), (false, true), "a learner never is");
        assert_eq!(needed(), (true, false));

        one.sent();
        advance(3 * MS).await;
        one.sent();
        assert_eq!(needed(), (true, false), "not for so long that the other would be faster");
        advance(2 * MS).await;
        assert_eq!(needed(), (false, true), "for too long");
        one.answered(0);
        one.answered(0);
        assert_eq!(needed(), (true, false), "late once is not slow");
        for _ in 0..WEIGHT {
            answer(&one, 9 * MS).await;
        }
        assert_eq!(needed(), (false, true), "late again and again is");

        // Who waits hears at once that it is needed.
        let begin = Instant::now();
        let waits = one.wait(begin + 9 * MS, || one.is_needed(&voters));
        let ((), ()) = tokio::join!(waits, async {
            tokio::time::sleep(MS).await;
            drop(two);
        });
        assert!(begin.elapsed() < 3 * MS, "{:?}", begin.elapsed());
        assert!(one.is_needed(&voters), "of the other nothing is known any more");
        let two = pace.begin(2);
        answer(&two, MS).await;
        assert_eq!((one.is_needed(&voters), two.is_needed(&voters)), (false, true));

        for (holds, behind) in [(BEHIND, false), (BEHIND + 1, true), (5 * BEHIND, true)] {
            one.sent();
            one.answered(holds);
            assert_eq!((one.is_needed(&voters), two.is_needed(&voters)), (behind, !behind), "{holds}");
        }
    }
}
