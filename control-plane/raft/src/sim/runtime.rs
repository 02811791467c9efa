//! The runtime that openraft gets in tests: tokio, with everything random taken from a seed.

use std::{cell::Cell, cell::RefCell, time::Duration};

use openraft_rt::{AsyncRuntime, deterministic_rng::DeterministicRng};

use super::watch::OrderedWatch;

#[allow(deprecated, reason = "the new name is in a crate that is no dependency of ours")]
type Inner = DeterministicRng<openraft::TokioRuntime>;

/// Tokio with election timeouts that a seed decides, and watch channels without randomness.
#[derive(Debug)]
pub(crate) struct SeededRuntime(Inner);

impl AsyncRuntime for SeededRuntime {
    type JoinError = <Inner as AsyncRuntime>::JoinError;
    type JoinHandle<T: Send + 'static> = <Inner as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Inner as AsyncRuntime>::Sleep;
    type Instant = <Inner as AsyncRuntime>::Instant;
    type TimeoutError = <Inner as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = <Inner as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Inner as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Inner as AsyncRuntime>::Mpsc;
    type Watch = OrderedWatch;
    type Oneshot = <Inner as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <Inner as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        Inner::spawn(future)
    }
    fn sleep(duration: Duration) -> Self::Sleep {
        Inner::sleep(duration)
    }
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Inner::sleep_until(deadline)
    }
    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Inner::timeout(duration, future)
    }
    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Inner::timeout_at(deadline, future)
    }
    fn is_panic(join_error: &Self::JoinError) -> bool {
        Inner::is_panic(join_error)
    }
    fn thread_rng() -> Self::ThreadLocalRng {
        Inner::thread_rng()
    }
    fn new(threads: usize) -> Self {
        Self(Inner::new(threads))
    }
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

thread_local! {
    /// The seed of the next replica that starts on this thread, while it simulates.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    /// What would have ended a process.
    static FATAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread simulates.
pub(crate) fn is_simulated() -> bool {
    SEED.get().is_some()
}

/// Sets the seed of the next replica that starts on this thread; `None` ends the simulation.
pub(super) fn set_seed(seed: Option<u64>) {
    SEED.set(seed);
}

/// Notes what would have ended the process, instead of ending it.
pub(crate) fn note_fatal(what: String) {
    FATAL.with_borrow_mut(|fatal| fatal.push(what));
}

/// What was noted since the last call.
pub(super) fn take_fatal() -> Vec<String> {
    FATAL.take()
}

/// Gives the tasks that `start` spawns their random numbers: from the seed in a simulation, from
/// nowhere in particular in other tests.
pub(crate) fn seeded<F: Future>(start: F) -> impl Future<Output = F::Output> {
    let unseeded = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    Inner::scope(SEED.get().unwrap_or_else(unseeded), start)
}
