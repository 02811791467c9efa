//! What the figures were taken on, from `/proc`: what cannot be read there is left empty.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

/// The machine, and how busy it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the kernel names it.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// Kernel and its version.
    pub kernel: String,
    /// Load averages over 1, 5 and 15 minutes when the run began.
    pub load_before: Vec<f64>,
    /// The same when it ended.
    pub load_after: Vec<f64>,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let info = read("/proc/cpuinfo");
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cpu: cpu.map(|(_, name)| name.trim().to_owned()).unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            memory_bytes: memory(&read("/proc/meminfo")),
            kernel: read("/proc/version").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
            load_before: load(),
            load_after: Vec::new(),
        }
    }
}

/// The load averages.
pub fn load() -> Vec<f64> {
    averages(&read("/proc/loadavg"))
}

fn averages(text: &str) -> Vec<f64> {
    text.split_whitespace().take(3).filter_map(|word| word.parse().ok()).collect()
}

fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// The kind of the file system that a folder lies on.
pub fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    mounted(&read("/proc/self/mounts"), &folder)
}

/// The mount with the longest path above the folder; of two at one path the later one hides the other.
fn mounted(mounts: &str, folder: &Path) -> String {
    let mut found = (0, String::new());
    for line in mounts.lines() {
        let mut words = line.split_whitespace().skip(1);
        let (Some(place), Some(kind)) = (words.next(), words.next()) else { continue };
        // Spaces in names are written as `\040`: such a mount is passed over, and the one above it counts.
        if folder.starts_with(place) && place.len() >= found.0 {
            found = (place.len(), kind.to_owned());
        }
    }
    found.1
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lies_on_the_mount_nearest_above_it() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\nbroken\n";
        for (folder, expect) in [("/home/u", "ext4"), ("/tmp/y", "tmpfs"), ("/tmp/x/y", "xfs"), ("/tmpfoo", "ext4")] {
            assert_eq!(mounted(mounts, Path::new(folder)), expect, "{folder}");
        }
        assert_eq!(mounted("", Path::new("/")), "");
    }

    #[test]
    fn what_the_kernel_says() {
        assert_eq!(averages("0.50 1.25 2 1/200 4711\n"), [0.5, 1.25, 2.0]);
        assert_eq!(memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"), 2 * 1024 * 1024);
        assert!(averages("").is_empty() && memory("") == 0);
    }
}
