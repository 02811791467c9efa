//! A bad record near the end of a large log: it is placed, and no byte is read twice for it.
//!
//! `PROVOST_LARGE_LOG_RECORDS=12500000` makes it a log of 11 GB (1.8 GB on disk, in a temporary
//! folder); by default it is small enough for every run of the tests. One test only: what the process
//! has read is counted for the process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

#[path = "../examples/synth_audit/log_writer.rs"]
#[allow(clippy::expect_used)]
mod log_writer;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use aws_lc_rs::signature::Ed25519KeyPair;
use log_writer::{Key, LogWriter};
use provost_audit_core::{
    BLOCK_HEADER_LEN, BLOCK_RECORDS, BlockHeader, Leaves, LogId, SEGMENT_HEADER_LEN, SEGMENT_LEAVES, decode_body,
    encode_block, leaf_hash,
};
use provost_audit_verify::{Exit, LogLayout, VerifyOptions, verify};
use provost_types::Name;

/// Two full segments and most of a third.
const RECORDS: u64 = 190_123;
/// Blocks behind the bad one in its segment.
const BLOCKS_BEHIND: u64 = 2;
/// The bad record's place in its block.
const WITHIN: u64 = 137;
/// Read besides the log's parts: its key once more, and what the system says of its cores.
const ASIDE: u64 = 4096;
/// More than a verifier may hold.
const MAX_MEMORY_KB: u64 = 300 * 1024;

#[test]
fn a_bad_record_near_the_end_is_placed_and_nothing_is_read_twice() {
    let records = std::env::var("PROVOST_LARGE_LOG_RECORDS").map_or(RECORDS, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let log = LogId(Some(Name::new("acme").unwrap()));
    let folder = dir.path().join(log.folder());
    let layout = LogLayout::new(&folder);
    let key = Key(Ed25519KeyPair::generate().unwrap());
    let mut writer = LogWriter::create(dir.path(), log, &key);
    (0..records).for_each(|index| writer.append(index, index + 1 == records));
    let (_, bytes) = writer.finish();

    let size = size_of(&folder);
    let (report, read, seconds) = verified(&folder);
    println!("{records} records, {bytes} bytes, {size} on disk: whole, {read} read in {seconds:.2} s");
    assert_eq!((report.exit, report.logs[0].records), (Exit::Unanchored, records));
    assert!(read <= size + ASIDE, "{read} bytes were read of {size}");

    let bad = plant(&layout, records);
    let size = size_of(&folder);
    let (report, read, seconds) = verified(&folder);
    println!("record {} changed: {read} read in {seconds:.2} s", bad.index);
    let failure = report.logs[0].failure.as_ref().unwrap();
    assert_eq!(report.exit, Exit::Tampered);
    assert_eq!((failure.index, &failure.file, failure.offset), (bad.index, &bad.file, bad.offset));
    assert_eq!((failure.expected, failure.actual), (Some(bad.expected), Some(bad.actual)));
    assert!(failure.last_good_checkpoint <= bad.index && bad.index - failure.last_good_checkpoint < 20_000);
    assert!(read <= size + ASIDE, "{read} bytes were read of {size}");
    assert!(read >= bad.before, "the {} bytes before it were read, and not only {read}", bad.before);
    let memory = status("VmHWM:");
    println!("peak memory {memory} kB");
    assert!(memory < MAX_MEMORY_KB, "{memory} kB");
}

struct Bad {
    index: u64,
    file: PathBuf,
    offset: u64,
    expected: provost_audit_core::Hash,
    actual: provost_audit_core::Hash,
    /// Bytes of segments before it.
    before: u64,
}

/// Changes one letter of a record near the end of the last segment; all else stays as it was.
fn plant(layout: &LogLayout, records: u64) -> Bad {
    let full = records - records % BLOCK_RECORDS;
    let first = full - (BLOCKS_BEHIND + 1) * BLOCK_RECORDS;
    let segment = first - first % SEGMENT_LEAVES;
    let path = layout.segment(segment);
    let bytes = fs::read(&path).unwrap();
    let mut at = SEGMENT_HEADER_LEN;
    let (header, end) = loop {
        let header = BlockHeader::decode(&bytes[at..]).unwrap();
        let end = at + BLOCK_HEADER_LEN + header.stored_len as usize;
        if header.first_index == first {
            break (header, end);
        }
        at = end;
    };
    let mut raw = Vec::new();
    decode_body(&header, &bytes[at + BLOCK_HEADER_LEN..end], &mut raw).unwrap();
    let leaf = Leaves::new(&raw).nth(WITHIN as usize).unwrap().unwrap();
    let expected = leaf_hash(&raw[leaf.clone()]);
    let place = raw[leaf.clone()].windows(7).position(|part| part == b"analyst").unwrap();
    raw[leaf.start + place] = b'b';
    let actual = leaf_hash(&raw[leaf]);
    let times = (header.min_time_ns, header.max_time_ns);
    let block = encode_block(first, &raw, times, (header.chain_in, header.chain_out)).unwrap();
    fs::write(&path, [&bytes[..at], &block, &bytes[end..]].concat()).unwrap();
    let earlier = layout.list_segments().unwrap().into_iter().filter(|first| *first < segment);
    let before = at as u64 + earlier.map(|first| fs::metadata(layout.segment(first)).unwrap().len()).sum::<u64>();
    Bad { index: first + WITHIN, file: path, offset: at as u64, expected, actual, before }
}

/// The report, the bytes that were read from files for it, and the seconds that it took.
fn verified(folder: &Path) -> (provost_audit_verify::Report, u64, f64) {
    let own = read_so_far();
    let own = read_so_far() - own;
    let (before, began) = (read_so_far(), Instant::now());
    let report = verify(folder, &VerifyOptions::default()).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    (report, read_so_far() - before - own, seconds)
}

/// Bytes that the process has read, by read(2) and its like.
fn read_so_far() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

fn status(what: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn size_of(path: &Path) -> u64 {
    if path.is_file() {
        return fs::metadata(path).unwrap().len();
    }
    fs::read_dir(path).unwrap().map(|entry| size_of(&entry.unwrap().path())).sum()
}
