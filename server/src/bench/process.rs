//! CPU time and memory of the server's process, from `/proc`. Absent elsewhere, and then not shown.

use std::{collections::BTreeMap, fs};

use serde::Serialize;

/// Clock ticks a second in `/proc/PID/stat`: part of Linux's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process whose cost is read before and after.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pid: u32,
    /// Whether what it started counts too.
    with_children: bool,
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
        let watched = Self { pid, with_children: false };
        watched.read().map(|_| watched)
    }

    /// The process of this machine that listens on a TCP port, with all that it started: workers, a server that it
    /// speaks to over stdio. `None`: there is none that this user may look at, or more than one.
    pub fn listening(port: u16) -> Option<Self> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        let sockets: Vec<String> = tables.iter().flat_map(|table| listeners(table, port)).collect();
        let parents = parents();
        let holders: Vec<u32> = parents.keys().copied().filter(|pid| holds(*pid, &sockets)).collect();
        // Workers have the socket of who forked them.
        let mut first = holders.iter().filter(|pid| parents.get(*pid).is_none_or(|parent| !holders.contains(parent)));
        match (first.next(), first.next()) {
            (Some(pid), None) => Some(Self { pid: *pid, with_children: true }),
            _ => None,
        }
    }

    /// Its number.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Reads it; `None` once it is gone.
    pub fn read(self) -> Option<Reading> {
        let mut reading = read(self.pid)?;
        if self.with_children {
            for child in descendants(self.pid, &parents()) {
                // One that has just ended counts no more.
                if let Some(more) = read(child) {
                    reading.cpu_seconds += more.cpu_seconds;
                    reading.rss_bytes += more.rss_bytes;
                }
            }
        }
        Some(reading)
    }

    /// The difference of two readings over so many calls.
    pub fn cost(self, before: Reading, after: Reading, calls: u64) -> Cost {
        // Less, where a child has ended meanwhile.
        let cpu_seconds = (after.cpu_seconds - before.cpu_seconds).max(0.0);
        Cost {
            pid: self.pid,
            cpu_seconds,
            cpu_us_per_call: cpu_seconds * 1e6 / calls.max(1) as f64,
            rss_bytes_before: before.rss_bytes,
            rss_bytes_after: after.rss_bytes,
        }
    }
}

fn read(pid: u32) -> Option<Reading> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Reading { cpu_seconds: cpu_seconds(&stat)?, rss_bytes: rss_bytes(&status)? })
}

/// Every process that can be read, with who started it.
fn parents() -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            found.insert(pid, parent);
        }
    }
    found
}

/// All that a process started, and what that started.
fn descendants(pid: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(one) = found.get(at).copied() {
        let children = parents.iter().filter(|(child, parent)| **parent == one && !found.contains(child));
        let children: Vec<u32> = children.map(|(child, _)| *child).collect();
        found.extend(children);
        at += 1;
    }
    found.split_off(1)
}

/// Field 4 of proc(5).
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The sockets of `/proc/net/tcp` that listen on a port, as the links of a process name them.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let listening = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (_, found) = address.rsplit_once(':')?;
        let is_meant = state == "0A" && u16::from_str_radix(found, 16) == Ok(port);
        is_meant.then(|| fields.nth(5).map(|inode| format!("socket:[{inode}]")))?
    };
    table.lines().skip(1).filter_map(listening).collect()
}

fn holds(pid: u32, sockets: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|link| sockets.iter().any(|one| link.as_os_str() == one.as_str()))
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
    fn who_started_whom() {
        assert_eq!(parent("42 (a) b (c)) S 7 42 42"), Some(7));
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 6)]);
        assert_eq!(descendants(2, &parents), [3, 4]);
        assert_eq!(descendants(6, &parents), [0_u32; 0]);
    }

    #[test]
    fn who_listens_on_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:4A38 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n   \
                     1: 0100007F:4A38 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20\n";
        assert_eq!(listeners(table, 0x4A38), ["socket:[4711]"]);
        assert!(listeners(table, 80).is_empty() && listeners("", 80).is_empty());

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = Watched::listening(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(found.pid(), std::process::id());
        assert!(found.read().unwrap().rss_bytes > 0);
    }

    #[test]
    fn this_process_uses_memory() {
        let reading = Watched::open(std::process::id()).unwrap().read().unwrap();
        assert!(reading.rss_bytes > 0);
    }
}
