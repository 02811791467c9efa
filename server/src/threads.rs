//! How many threads run a process's tasks.
//!
//! One thread a core, unless `PROVOST_THREADS` says otherwise: where several processes share few cores,
//! one thread each spares them the wake-ups between threads. Work that blocks has threads of its own
//! either way. A variable, because the runtime is there before any configuration is read.

use std::{io, num::NonZeroUsize, thread};

use tokio::runtime::{Builder, Runtime};

/// The variable.
pub const THREADS: &str = "PROVOST_THREADS";
/// More threads than any machine has use for are a mistake.
const MAX_THREADS: usize = 1_024;

/// The runtime that [`THREADS`] asks for.
pub fn runtime() -> io::Result<Runtime> {
    let threads = match std::env::var(THREADS) {
        Ok(text) => parse(&text)?,
        Err(_) => available(),
    };
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()
}

/// Threads for each of `processes` that share this machine.
pub fn shared_by(processes: usize) -> usize {
    (available() / processes.max(1)).max(1)
}

/// Variables for each of `processes` of this program that share this machine: a part of its processors, and small pages, of
/// which all have the program's text together; on huge ones each would have a copy.
pub fn environment_of(processes: usize) -> Vec<(&'static str, String)> {
    let threads = (THREADS, shared_by(processes).to_string());
    #[cfg(target_os = "linux")]
    return vec![threads, (crate::huge_pages::HUGE_PAGES, "0".to_owned())];
    #[cfg(not(target_os = "linux"))]
    vec![threads]
}

/// Processors that this process may use: its affinity and the quota of its container are counted.
pub fn available() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn parse(text: &str) -> io::Result<usize> {
    text.parse().ok().filter(|n| (1..=MAX_THREADS).contains(n)).ok_or_else(|| {
        let text = format!("{THREADS}={text}: give a number of threads from 1 to {MAX_THREADS}, or leave it unset");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_a_number_with_bounds() {
        for (text, expected) in [("1", Some(1)), ("8", Some(8)), ("0", None), ("", None), ("two", None), ("4096", None)]
        {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
        assert!(parse("0").unwrap_err().to_string().contains("PROVOST_THREADS=0"));
        assert!(shared_by(1) >= shared_by(3) && shared_by(1_000) == 1);
    }
}
