//! The clock that interrupts guests.
//!
//! Compiled code looks at the engine's epoch at every loop and call, and comes back to the host when it has moved.
//! Here it is moved, every [`TICK`] while calls run. A thread of its own does it: a timer of the runtime would not
//! fire while guests keep all of the runtime's threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often a guest that computes is interrupted.
pub const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the thread sleeps. To wake it costs a call a few microseconds.
const IDLE_TICKS: u32 = 200;

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    is_asleep: AtomicBool,
    is_over: AtomicBool,
}

/// Moves the epoch while somebody is [`Ticker::enter`]ed.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A call that runs.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticker {
    /// Starts the thread; `tick` must be cheap.
    pub(crate) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || run(&theirs, &tick))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ticks from now on until what comes back is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        // Counted before the flag is read; the thread sets its flag before it reads the count. One of the two sees
        // the other, so that no call runs while the clock stands.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.is_asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(&self.shared)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, tick: &impl Fn()) {
    let mut idle = 0;
    while !shared.is_over.load(Ordering::SeqCst) {
        if shared.running.load(Ordering::SeqCst) > 0 {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle < IDLE_TICKS {
            thread::sleep(TICK);
        } else {
            shared.is_asleep.store(true, Ordering::SeqCst);
            // May return for no reason: then it goes to sleep again after the next tick.
            if shared.running.load(Ordering::SeqCst) == 0 && !shared.is_over.load(Ordering::SeqCst) {
                thread::park();
            }
            shared.is_asleep.store(false, Ordering::SeqCst);
        }
        tick();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn wait_for(what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
            thread::sleep(TICK);
        }
    }

    #[test]
    fn it_ticks_while_a_call_runs_sleeps_without_and_wakes_for_the_next() {
        let ticks = Arc::new(AtomicUsize::new(0));
        let counted = ticks.clone();
        let count = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let ticker = Ticker::start(count).unwrap();
        wait_for(|| ticker.shared.is_asleep.load(Ordering::SeqCst));
        for _ in 0..2 {
            let before = ticks.load(Ordering::SeqCst);
            let running = ticker.enter();
            wait_for(|| ticks.load(Ordering::SeqCst) > before + 3);
            drop(running);
            wait_for(|| ticker.shared.is_asleep.load(Ordering::SeqCst));
        }
        drop(ticker);
        let at_the_end = ticks.load(Ordering::SeqCst);
        thread::sleep(TICK * 5);
        assert_eq!(ticks.load(Ordering::SeqCst), at_the_end, "the thread outlived its owner");
    }
}
