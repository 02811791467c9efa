//! Where calls go on that compute for long.
//!
//! A call begins on the thread of its caller, since most end there within microseconds. One that does not is moved, as
//! it is, to threads of the engine that the system runs mainly when nobody else wants to.
//!
//! Invariants: a call is moved only while it pauses, so that nothing is done twice; wherever it is, what it asks of the
//! runtime (timers, connections, tasks) is asked of its caller's, so that nothing which others use later depends on
//! these threads; whoever gives a call up ends it here as well. Left out: whose turn it is on the threads (`turns`).

use std::{
    cell::Cell,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
};

use provost_types::{BoxFuture, Name};
use tokio::{runtime::Handle, sync::oneshot};
use tracing::Instrument;

use crate::{
    PluginError,
    turns::{Turn, Turns},
};

/// By how much the priority of calls that compute for long is below the node's, as `nice` counts it: beside others that
/// want all of a processor they get a tenth of it.
const OF_LONG_CALLS: i32 = 10;
/// The same of compiling, which a new version waits for: a quarter.
pub(crate) const OF_COMPILING: i32 = 5;
/// Most bytes that are worked through in one go where a call began: less than a millisecond's work.
const LARGE_BYTES: usize = 256 << 10;

thread_local! {
    /// Whether what is polled on this thread wants to go on elsewhere. Set while it is polled, and read as soon as it
    /// pauses, by whoever polled it: both happen on one thread.
    static WANTS_TO_MOVE: Cell<bool> = const { Cell::new(false) };
}

/// Has the call that is polled on this thread go on elsewhere after its next pause.
pub(crate) fn ask_to_move() {
    WANTS_TO_MOVE.set(true);
}

/// Before so many bytes are read, checked or escaped in one go, which nothing can interrupt: if these are many, the call
/// that this is part of goes on with them at a low priority.
pub async fn step_aside_for(bytes: usize) {
    if bytes > LARGE_BYTES {
        step_aside().await;
    }
}

/// Goes on elsewhere from here, if this is part of a call. Without a call it is a pause.
pub(crate) async fn step_aside() {
    ask_to_move();
    tokio::task::yield_now().await;
}

/// Lowers the priority of this thread by so much.
pub(crate) fn give_way(by: i32) {
    // Elsewhere than on Linux it would be that of the process.
    #[cfg(target_os = "linux")]
    if let Err(cause) = rustix::process::nice(by) {
        tracing::warn!(%cause, "a thread for plugins keeps the priority of the node");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = by;
}

/// The threads.
pub(crate) struct SlowLane {
    turns: Arc<Turns>,
}

impl SlowLane {
    /// Starts so many, at least one.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        // Owned from the beginning: where one thread cannot be had, the others end with it.
        let lane = Self { turns: Arc::default() };
        for _ in 0..threads.max(1) {
            let turns = lane.turns.clone();
            thread::Builder::new().name("plugin-slow".to_owned()).spawn(move || {
                give_way(OF_LONG_CALLS);
                turns.serve();
            })?;
        }
        Ok(lane)
    }

    /// Drives a call to its end: here, or from the moment that it asks for it on the threads, where tenants take turns.
    /// To drop the future drops the call, at its next pause at the latest.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        whose: Option<Name>,
        mut call: BoxFuture<'static, Result<T, PluginError>>,
    ) -> Result<T, PluginError> {
        let here = poll_fn(|context| {
            WANTS_TO_MOVE.set(false);
            match call.as_mut().poll(context) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if WANTS_TO_MOVE.take() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        if let Some(ended) = here.await {
            return ended;
        }
        let moved = Moved { call: Some(call), home: Handle::current() };
        let (tell, told) = oneshot::channel();
        let work = async move {
            let ended = caught(moved).await;
            // Nobody hears it who gave the call up.
            let _ = tell.send(ended);
        };
        let _ends = EndedWithOwner(self.turns.begin(whose, Box::pin(work.in_current_span())));
        match told.await {
            Ok(Ok(ended)) => ended,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(PluginError::Unavailable("the engine is closed".to_owned())),
        }
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        // Whoever drops the engine may be a task, which must not wait. What still runs ends at its next pause.
        self.turns.end();
    }
}

/// What a call comes to, its panic too.
async fn caught<T>(mut moved: Moved<T>) -> thread::Result<T> {
    let polled = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut moved).poll(context))) {
        Ok(Poll::Ready(ended)) => Poll::Ready(Ok(ended)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(panic)),
    });
    polled.await
}

/// A call on the threads, in the context of the runtime that it came from, to its very end.
struct Moved<T> {
    /// `None`: it is dropped.
    call: Option<BoxFuture<'static, T>>,
    home: Handle,
}

impl<T> Future for Moved<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Self { call, home } = &mut *self;
        let _home = home.enter();
        match call {
            Some(call) => call.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Moved<T> {
    fn drop(&mut self) {
        // A connection that goes back to its pool may start a task.
        let _home = self.home.enter();
        self.call = None;
    }
}

/// Work that ends when nobody waits for it any more.
struct EndedWithOwner(Arc<Turn>);

impl Drop for EndedWithOwner {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::{Duration, Instant},
    };

    use super::*;

    type Call<T> = BoxFuture<'static, Result<T, PluginError>>;

    fn panicking() -> PluginError {
        panic!("on purpose")
    }

    fn thread() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    #[cfg(target_os = "linux")]
    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    /// Sets its flag when it is dropped, in the context of a runtime with timers.
    struct Dropped(Arc<AtomicBool>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            drop(tokio::time::sleep(Duration::ZERO));
            self.0.store(true, Ordering::SeqCst);
        }
    }

    async fn until(flag: &AtomicBool) {
        let began = Instant::now();
        while !flag.load(Ordering::SeqCst) {
            assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn what_does_not_ask_stays() {
        let lane = SlowLane::start(1).unwrap();
        let stays: Call<String> = Box::pin(async {
            tokio::task::yield_now().await;
            Ok(thread())
        });
        assert_eq!(lane.run(None, stays).await, Ok(thread()));
    }

    #[tokio::test]
    async fn what_asks_goes_on_elsewhere_and_keeps_the_runtime_that_it_came_from() {
        let lane = SlowLane::start(1).unwrap();
        let moves: Call<(String, String, String)> = Box::pin(async {
            let before = thread();
            step_aside().await;
            // The threads have no timers of their own, and tasks go to where the call comes from.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let task = tokio::spawn(async { thread() }).await.unwrap();
            Ok((before, thread(), task))
        });
        let home = thread();
        assert_eq!(lane.run(None, moves).await, Ok((home.clone(), "plugin-slow".to_owned(), home)));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_threads_have_a_lower_priority() {
        let lane = SlowLane::start(1).unwrap();
        let moves: Call<i32> = Box::pin(async {
            step_aside().await;
            Ok(niceness())
        });
        let here = niceness();
        assert_eq!(lane.run(None, moves).await, Ok((here + OF_LONG_CALLS).min(19)));
        assert_eq!(niceness(), here, "the node's own threads are as they were");
    }

    #[tokio::test]
    async fn errors_and_panics_come_back() {
        let lane = Arc::new(SlowLane::start(1).unwrap());
        let fails: Call<()> = Box::pin(async {
            step_aside().await;
            Err(PluginError::Deadline)
        });
        assert_eq!(lane.run(None, fails).await, Err(PluginError::Deadline));
        let theirs = lane.clone();
        let panics = tokio::spawn(async move {
            let call: Call<()> = Box::pin(async {
                step_aside().await;
                Err(panicking())
            });
            theirs.run(None, call).await
        });
        assert!(panics.await.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn who_is_given_up_is_dropped_in_the_runtime_that_it_came_from() {
        let lane = SlowLane::start(1).unwrap();
        let (moved, dropped) = (Arc::new(AtomicBool::default()), Arc::new(AtomicBool::default()));
        let (says, guard) = (moved.clone(), Dropped(dropped.clone()));
        let waits: Call<()> = Box::pin(async move {
            let _guard = guard;
            step_aside().await;
            says.store(true, Ordering::SeqCst);
            std::future::pending().await
        });
        tokio::select! {
            biased;
            _ = lane.run(None, waits) => panic!("it ended"),
            () = until(&moved) => {}
        }
        until(&dropped).await;
    }
}
