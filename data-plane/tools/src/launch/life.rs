//! What both stages do while they wait: hear of ended children, outlive polite signals, notice that the node is gone.

use std::{
    fs::File,
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    stdio::{dup2_stdin, dup2_stdout},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::plan::{Note, Plan};

/// How long what is within may take to end by itself once the node is gone or listens no more.
const ABANDONED_GRACE: Duration = Duration::from_secs(3);

/// A runtime of one thread: namespaces of processes bear no second one.
pub(super) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// What a stage waits with. Made within a runtime.
pub(super) struct Life {
    children: Signal,
    abandoned: Option<Instant>,
}

impl Life {
    /// From here on the process ends only by itself or by SIGKILL. The node asks the whole group to end; what is within
    /// takes its time then, and the launcher ends after it.
    pub(super) fn begin() -> io::Result<Self> {
        for polite in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()] {
            // Its handler stays when it is dropped.
            drop(signal(polite)?);
        }
        Ok(Self { children: signal(SignalKind::child())?, abandoned: None })
    }

    /// Until a child has ended, or `time` has passed.
    pub(super) async fn wait(&mut self, time: Duration) {
        tokio::select! {
            _ = self.children.recv() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Whether nobody reads what is written to stderr, and that for a while: the node is gone.
    pub(super) fn is_abandoned(&mut self, now: Instant) -> bool {
        if !has_no_reader() {
            self.abandoned = None;
            return false;
        }
        now.saturating_duration_since(*self.abandoned.get_or_insert(now)) >= ABANDONED_GRACE
    }
}

fn has_no_reader() -> bool {
    let stderr = io::stderr();
    let mut watched = [PollFd::new(&stderr, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // An error says nothing of the reader.
    poll(&mut watched, Some(&at_once)).is_ok() && watched[0].revents().contains(PollFlags::ERR)
}

/// Leaves stdin and stdout to the process within, which was just started: they end when it lets go of them.
pub(super) fn let_go() -> io::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing).map_err(io::Error::from)
}

/// Tells the node.
pub(super) fn say(plan: &Plan, note: &Note) {
    // The process within may have left a line open. If nobody reads, nobody wants to know.
    let _ = io::stderr().write_all(format!("\n{}", note.line(&plan.nonce)).as_bytes());
}
