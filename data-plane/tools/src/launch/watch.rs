//! What the processes within use together, as /proc tells it.
//!
//! Adding up takes a moment in which more can be taken; the bound that the kernel keeps on each process, higher than
//! this one, ends what is too fast for it.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use provost_types::IsolationSpec;
use rustix::process::{Pid, Signal, kill_process};

/// Ticks of a second in /proc/PID/stat: part of the kernel's contract with programs.
const TICKS: f64 = 100.0;
/// Processor time that may be used at once after less was used, in seconds: starts are busy.
const BURST: f64 = 4.0;
/// The longest that processes are held up at a time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A process as /proc/PID/stat shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    pid: i32,
    parent: i32,
    threads: u64,
    /// Its own and its ended children's processor time, in ticks.
    ticks: u64,
}

/// What is to be done after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// It uses more processor time than it may: nothing of it runs for so long.
    Pause(Duration),
    /// It uses more than it may: this ends it.
    End(String),
}

/// Looks at what descends from this process.
pub(super) struct Watch {
    isolation: IsolationSpec,
    /// Processor time that may be used now, in seconds.
    credit: f64,
    ticks: u64,
    looked: Instant,
}

impl Watch {
    pub(super) fn new(isolation: &IsolationSpec, now: Instant) -> Self {
        Self { isolation: isolation.clone(), credit: BURST, ticks: 0, looked: now }
    }

    /// Adds up and judges.
    pub(super) fn look(&mut self, now: Instant) -> Verdict {
        let all = family();
        let memory: u64 = all.iter().filter(|stat| stat.pid != own_pid()).map(|stat| memory_of(stat.pid)).sum();
        let tasks: u64 = all.iter().filter(|stat| stat.pid != own_pid()).map(|stat| stat.threads).sum();
        let ticks = all.iter().map(|stat| stat.ticks).sum();
        self.judge(memory, tasks, ticks, now)
    }

    fn judge(&mut self, memory: u64, tasks: u64, ticks: u64, now: Instant) -> Verdict {
        let IsolationSpec { memory_mib, processes, cpu_percent, .. } = self.isolation;
        if memory > u64::from(memory_mib) << 20 {
            let used = memory >> 20;
            return Verdict::End(format!("it used {used} MiB of memory, and `isolation.memoryMib` is {memory_mib}"));
        }
        if tasks > u64::from(processes) {
            return Verdict::End(format!("it ran {tasks} threads, and `isolation.processes` is {processes}"));
        }
        let rate = f64::from(cpu_percent.max(1)) / 100.0;
        // A process that ended unseen takes its ticks with it: that is no use of less than nothing.
        let used = ticks.saturating_sub(self.ticks) as f64 / TICKS;
        self.credit = (self.credit + rate * now.saturating_duration_since(self.looked).as_secs_f64() - used).min(BURST);
        self.ticks = ticks;
        self.looked = now;
        if self.credit >= 0.0 {
            return Verdict::Fine;
        }
        Verdict::Pause(Duration::from_secs_f64(-self.credit / rate).min(LONGEST_PAUSE))
    }
}

/// Sends a signal to all that descend from this process; whether there was any.
pub(super) fn signal_all(signal: Signal) -> bool {
    let mut was_any = false;
    for pid in family().iter().filter(|stat| stat.pid != own_pid()).filter_map(|stat| Pid::from_raw(stat.pid)) {
        was_any = true;
        // Whoever cannot be reached has ended.
        let _ = kill_process(pid, signal);
    }
    was_any
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(i32::MAX)
}

/// This process and all that descend from it.
fn family() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all: Vec<Stat> =
        pids.filter_map(|pid| stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect();
    let mut known = BTreeSet::from([own_pid()]);
    loop {
        let before = known.len();
        let more: Vec<i32> = all.iter().filter(|stat| known.contains(&stat.parent)).map(|stat| stat.pid).collect();
        known.extend(more);
        if known.len() == before {
            break;
        }
    }
    all.into_iter().filter(|stat| known.contains(&stat.pid)).collect()
}

/// Fields 4, 14 to 17 and 20; the name, which may hold anything, is in parentheses.
fn stat(pid: i32, text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Stat { pid, parent: fields.get(1)?.parse().ok()?, threads: number(17)?, ticks })
}

/// Memory that nobody else has: not mapped files, which the kernel can take back.
fn memory_of(pid: i32) -> u64 {
    own_memory(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
}

fn own_memory(status: &str) -> u64 {
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    ["RssAnon", "RssShmem", "VmSwap"].into_iter().filter_map(of).sum::<u64>() << 10
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194304 10 0 0 0 1 2 3 4 20 0 11 0 99 0 0";
        assert_eq!(stat(7, text), Some(Stat { pid: 7, parent: 1, threads: 11, ticks: 10 }));
        assert_eq!(stat(7, "7 (a"), None);
        let status = "Name:\ta\nRssAnon:\t    1024 kB\nRssFile:\t  4096 kB\nRssShmem:\t  8 kB\nVmSwap:\t 16 kB\n";
        assert_eq!(own_memory(status), 1_048 << 10);
        assert!(family().iter().any(|stat| stat.pid == own_pid() && stat.threads > 0));
    }

    #[test]
    fn what_uses_too_much_is_ended_or_held_up() {
        let start = Instant::now();
        let isolation = IsolationSpec { memory_mib: 64, processes: 10, cpu_percent: 50, ..IsolationSpec::default() };
        let second = |n: u64| start + Duration::from_secs(n);
        let watch = || Watch::new(&isolation, start);
        assert_eq!(watch().judge(64 << 20, 10, 0, second(1)), Verdict::Fine);
        assert!(
            matches!(watch().judge((64 << 20) + 1, 1, 0, second(1)), Verdict::End(cause) if cause.contains("memoryMib"))
        );
        assert!(matches!(watch().judge(1, 11, 0, second(1)), Verdict::End(cause) if cause.contains("processes")));
        // Two cores busy, of which half a one is allowed: the reserve is gone in the third second.
        let mut busy = watch();
        let verdicts: Vec<_> = (1..=3).map(|n| busy.judge(1, 1, n * 200, second(n))).collect();
        assert_eq!(verdicts, [Verdict::Fine, Verdict::Fine, Verdict::Pause(Duration::from_secs(1))]);
        // Whoever uses less has no more than the reserve.
        let mut idle = watch();
        assert_eq!(idle.judge(1, 1, 0, second(100)), Verdict::Fine);
        assert_eq!(idle.judge(1, 1, 600, second(101)), Verdict::Pause(LONGEST_PAUSE));
        // Fewer ticks than before are none.
        assert_eq!(watch().judge(1, 1, 0, second(0)), Verdict::Fine);
    }
}
