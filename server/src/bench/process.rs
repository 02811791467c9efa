//! CPU time and memory of the server's process, from `/proc`. Absent elsewhere, and then not shown.

use std::fs;

use serde::Serialize;

/// Clock ticks a second in `/proc/PID/stat`: part of Linux's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process whose cost is read before and after.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pid: u32,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    /// Resident memory now.
    pub rss_bytes: u64,
}

/// What the run cost the server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// The process.
    pub pid: u32,
    /// CPU time used during the measurement.
    pub cpu_seconds: f64,
    /// The same for each answered call.
    pub cpu_us_per_call: f64,
    /// Resident memory before.
    pub rss_bytes_before: u64,
    /// Resident memory after.
    pub rss_bytes_after: u64,
}

impl Watched {
    /// The process, if it can be read here.
    pub fn open(pid: u32) -> Option<Self> {
        let watched = Self { pid };
        watched.read().map(|_| watched)
    }

    /// Its number.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Reads it; `None` once it is gone.
    pub fn read(self) -> Option<Reading> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        Some(Reading { cpu_seconds: cpu_seconds(&stat)?, rss_bytes: rss_bytes(&status)? })
    }

    /// The difference of two readings over so many calls.
    pub fn cost(self, before: Reading, after: Reading, calls: u64) -> Cost {
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        Cost {
            pid: self.pid,
            cpu_seconds,
            cpu_us_per_call: cpu_seconds * 1e6 / calls.max(1) as f64,
            rss_bytes_before: before.rss_bytes,
            rss_bytes_after: after.rss_bytes,
        }
    }
}

/// Fields 14 and 15 of proc(5), counted after the command name, which may hold anything but the last `)`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_whose_command_has_spaces_and_brackets() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(rss_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 * 1024 * 1024));
    }

    #[test]
    fn this_process_uses_memory() {
        let reading = Watched::open(std::process::id()).unwrap().read().unwrap();
        assert!(reading.rss_bytes > 0);
    }
}
