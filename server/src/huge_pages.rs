//! A server's code and heap on huge pages.
//!
//! A call passes code from every corner of a binary whose text is some 100 MB: with pages of 4 KiB a good part of its
//! time goes into looking up where they lie, and in a virtual machine each of these looks costs twice. Linux gives
//! files no huge pages, so a server copies its text at start into anonymous memory that has them and moves that over
//! the text; and it asks for them where its heap lies. What it gives and costs: `docs/performance.md`.
//!
//! Where huge pages cannot be had, where memory is scarce, or with `PROVOST_HUGE_PAGES=0`, all stays as it was. Tools
//! that look code up by its file (`perf`) find the addresses only without them.

#![expect(unsafe_code, reason = "memory is mapped by address; each block says why it holds")]

use std::{ffi::c_void, fs, hint::black_box, io, ops::Range, ptr};

use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};

/// The variable: `0` never, `1` always, unset: in release builds. One, because the heap is there before any
/// configuration is read.
pub const HUGE_PAGES: &str = "PROVOST_HUGE_PAGES";
/// Bytes of a huge page on the processors that Provost is built for.
const HUGE_PAGE: usize = 2 << 20;
/// With less memory available than this, in bytes, a copy of the text is not made.
const ENOUGH_MEMORY: u64 = 1 << 30;
/// `mi_option_allow_large_os_pages` and `mi_option_allow_thp` of mimalloc's `mi_option_t`; a test holds them against
/// the names.
const ALLOW_LARGE_OS_PAGES: i32 = 6;
const ALLOW_THP: i32 = 43;

unsafe extern "C" {
    fn mi_option_set(option: i32, value: std::ffi::c_long);
}

/// Puts the process's code and heap on huge pages, as far as the system allows. Called before threads start.
pub fn use_for_a_server() {
    let wanted = match std::env::var(HUGE_PAGES).as_deref() {
        Ok("0") => false,
        Ok("1") => true,
        Ok(other) => {
            tracing::warn!("{HUGE_PAGES}={other}: give 0 or 1, or leave it unset; it is taken as unset");
            !cfg!(debug_assertions)
        }
        Err(_) => !cfg!(debug_assertions),
    };
    if !wanted || !are_offered() {
        return;
    }
    let heap = heap();
    let code = if is_enough(available_memory()) { code() } else { Ok(0) };
    tracing::debug!(?code, ?heap, "bytes on huge pages");
}

/// Whether the system gives huge pages to who asks.
fn are_offered() -> bool {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok_and(|modes| !modes.contains("[never]"))
}

fn is_enough(available: Option<u64>) -> bool {
    available.is_some_and(|bytes| bytes >= ENOUGH_MEMORY)
}

/// Bytes: what the machine has left, or the control group's whole bound where that is less.
fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok()?;
    let line = machine.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(group.map_or(machine, |bound: u64| bound.min(machine)))
}

/// Moves the text of this program to huge pages, and gives the bytes that lie there then.
///
/// # Errors
/// What the system refused; nothing has changed then.
fn code() -> io::Result<usize> {
    let here = use_for_a_server as fn() as usize;
    let Some(text) = mapping_of(&fs::read_to_string("/proc/self/maps")?, here).and_then(|text| whole_pages(&text))
    else {
        return Ok(0);
    };
    let length = text.len();
    let copy = Mapping::new(length + HUGE_PAGE)?;
    let aligned = copy.start.next_multiple_of(HUGE_PAGE);
    // SAFETY: `aligned..aligned + length` lies in `copy`, which is ours alone.
    unsafe { rustix::mm::madvise(at(aligned), length, Advice::LinuxHugepage) }?;
    // SAFETY: the text is mapped, readable and `length` bytes long; the copy is mapped, writable, elsewhere, as long.
    unsafe { ptr::copy_nonoverlapping(at(text.start).cast::<u8>(), at(aligned).cast::<u8>(), length) };
    // Ordinary pages would cost their memory and give nothing.
    if huge_bytes(&fs::read_to_string("/proc/self/smaps")?, aligned) < length / 2 {
        return Ok(0);
    }
    // SAFETY: the range is ours alone, and nobody holds a reference into it.
    unsafe { rustix::mm::mprotect(at(aligned), length, MprotectFlags::READ | MprotectFlags::EXEC) }?;
    // SAFETY: the same bytes at the same addresses, executable as before: whoever runs in them does not notice. The
    // kernel moves a mapping in one step. What was there, a private mapping of a file, is not needed any more.
    unsafe { rustix::mm::mremap_fixed(at(aligned), length, length, MremapFlags::MAYMOVE, at(text.start)) }?;
    // The hole in `copy` is nobody's, so its ends are given back one by one.
    copy.give_back_around(aligned..aligned + length);
    Ok(length)
}

/// Asks for huge pages where the heap lies and will lie, and gives the bytes of what it has now.
///
/// # Errors
/// What the system refused; the heap is as it was then.
fn heap() -> io::Result<usize> {
    // SAFETY: sets a number of the allocator, which it reads when it takes memory from the system or gives some back.
    unsafe {
        mi_option_set(ALLOW_LARGE_OS_PAGES, 1);
        // 2: memory is given back in whole huge pages.
        mi_option_set(ALLOW_THP, 2);
    }
    let probe = black_box(Box::new(0_u8));
    let here = ptr::from_ref::<u8>(&probe) as usize;
    let Some(arena) = mapping_of(&fs::read_to_string("/proc/self/maps")?, here).and_then(|arena| whole_pages(&arena))
    else {
        return Ok(0);
    };
    // SAFETY: says what pages the kernel should prefer; no byte changes.
    unsafe { rustix::mm::madvise(at(arena.start), arena.len(), Advice::LinuxHugepage) }?;
    Ok(arena.len())
}

/// A private anonymous mapping, readable and writable, given back when it is dropped.
struct Mapping {
    start: usize,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses where; nothing that is mapped is replaced.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        Ok(Self { start: start.addr(), length })
    }

    /// Gives back all but `hole`, which has been moved away.
    fn give_back_around(self, hole: Range<usize>) {
        let end = self.start + self.length;
        for part in [self.start..hole.start, hole.end..end] {
            drop(Self { start: part.start, length: part.len() });
        }
        std::mem::forget(self);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: it was mapped here and is used by nobody else. What could not be given back stays.
            let _ = unsafe { rustix::mm::munmap(at(self.start), self.length) };
        }
    }
}

/// An address of `/proc/self/maps` as a pointer: it belongs to no object of the program.
fn at(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}

/// The mapping that holds `address`, from the lines of `/proc/self/maps` (proc_pid_maps(5)).
fn mapping_of(maps: &str, address: usize) -> Option<Range<usize>> {
    maps.lines().filter_map(range_of).find(|range| range.contains(&address))
}

/// The addresses with which a line of `/proc/self/maps` begins.
fn range_of(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// The huge pages that lie in a range with all their bytes.
fn whole_pages(range: &Range<usize>) -> Option<Range<usize>> {
    let start = range.start.checked_next_multiple_of(HUGE_PAGE)?;
    let end = range.end / HUGE_PAGE * HUGE_PAGE;
    (start < end).then_some(start..end)
}

/// Bytes on huge pages of the mapping that holds `address`, from the lines of `/proc/self/smaps` (proc_pid_smaps(5)).
fn huge_bytes(smaps: &str, address: usize) -> usize {
    let mut lines = smaps.lines().skip_while(|line| !range_of(line).is_some_and(|range| range.contains(&address)));
    let kib = lines
        .find_map(|line| line.strip_prefix("AnonHugePages:"))
        .and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: i32) -> std::ffi::c_long;
    }

    /// Runs one of the ignored tests below in a process of its own: it changes the whole process.
    fn alone(test: &str, variables: &[(&str, &str)]) -> bool {
        let program = std::env::current_exe().unwrap();
        let name = format!("huge_pages::tests::{test}");
        let run = Command::new(program)
            .args([&name, "--exact", "--ignored", "--test-threads=1"])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(text.contains("1 passed") || !run.status.success(), "{name} is no test any more: {text}");
        run.status.success()
    }

    #[test]
    fn a_process_goes_on_when_its_code_has_moved() {
        assert!(alone("moves", &[]));
    }

    #[test]
    fn the_allocators_options_are_the_ones_that_are_meant() {
        assert!(alone("is_set", &[("MIMALLOC_ALLOW_LARGE_OS_PAGES", "7"), ("MIMALLOC_ALLOW_THP", "9")]));
    }

    #[test]
    #[ignore = "run by the tests above"]
    fn is_set() {
        // SAFETY: reads a number of the allocator.
        let values = unsafe { (mi_option_get(ALLOW_LARGE_OS_PAGES), mi_option_get(ALLOW_THP)) };
        assert_eq!(values, (7, 9), "what the environment gave them by name");
    }

    #[test]
    #[ignore = "run by the tests above"]
    fn moves() {
        let offered = are_offered();
        let bytes = code().unwrap();
        let heap = heap().unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = |address: usize| {
            maps.lines().find(|line| range_of(line).is_some_and(|range| range.contains(&address))).unwrap().to_owned()
        };
        let middle = mapping_of(&maps, use_for_a_server as fn() as usize).unwrap();
        if bytes > 0 {
            assert!(offered && bytes.is_multiple_of(HUGE_PAGE));
            assert!(maps.lines().filter_map(range_of).any(|range| range.len() >= bytes), "one mapping holds it");
        }
        assert!(line(middle.start).contains(" r-xp "), "code cannot be written: {}", line(middle.start));
        assert!(!offered || heap >= HUGE_PAGE, "the heap's arena has room for huge pages");
        // Code everywhere still runs: threads, formatting, unwinding through moved frames, other libraries' callbacks.
        let caught = std::panic::catch_unwind(|| std::thread::spawn(|| panic!("{}", black_box(1))).join().unwrap_err());
        assert!(caught.is_ok());
        let mut numbers: Vec<u32> = (0..100_000).rev().collect();
        numbers.sort_unstable();
        assert!(numbers.is_sorted());
        assert!(Command::new("true").status().unwrap().success());
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let maps = "1000-3000 r--p 00000000 fd:00 1 /a b\n200000-a00001 r-xp 00001000 fd:00 1 /a b\n";
        assert_eq!(mapping_of(maps, 0x20_0000), Some(0x20_0000..0xa0_0001));
        assert_eq!(mapping_of(maps, 0x3000), None);
        assert_eq!(mapping_of("", 0), None);
        assert_eq!(whole_pages(&(0x20_0000..0xa0_0001)), Some(0x20_0000..0xa0_0000));
        assert_eq!(whole_pages(&(0x20_0001..0x40_0000)), None);
        assert_eq!(whole_pages(&(usize::MAX - 1..usize::MAX)), None);
        let smaps = "1000-3000 r--p 0 0 0\nAnonHugePages:      9 kB\n3000-5000 r-xp 0 0 0\nRss:  8 kB\nAnonHugePages:   2048 kB\n";
        assert_eq!(huge_bytes(smaps, 0x4000), 2 << 20);
        assert_eq!(huge_bytes(smaps, 0x9000), 0);
        assert!(is_enough(Some(ENOUGH_MEMORY)) && !is_enough(Some(ENOUGH_MEMORY - 1)) && !is_enough(None));
    }
}
