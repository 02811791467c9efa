//! A directory worth attacking, and the tools of a forger who knows the format.

use std::{
    fs,
    path::{Path, PathBuf},
};

use provost_audit_core::{
    BLOCK_HEADER_LEN, BLOCK_RECORDS, Checkpoint, Frontier, LogId, SEGMENT_HEADER_LEN, TAIL_HEADER_LEN, chain_next,
    chain_start, encode_block, leaf_hash, push_tail_frame, split_notes,
};
use provost_audit_store::CheckpointKey;
use provost_audit_verify::{LogLayout, LogReader};
use tempfile::{TempDir, tempdir};

use crate::common::{self, Lab, tenant};

/// 700 records of acme (two blocks and an open one), 20 of beta, 4 of the cluster; checkpoints at
/// 300 and 680 of acme, 20 records beyond the last. The kept anchor is the first.
pub struct Scene {
    pub dir: TempDir,
    pub anchor: PathBuf,
    /// Offsets of the second block, and of the segment's end.
    pub block_two: u64,
    pub segment_end: u64,
    /// Offset of each of acme's 700 records in its tail, and of the tail's end.
    pub frames: Vec<u64>,
    pub key: CheckpointKey,
}

pub const SEGMENT: &str = "tenants/acme/segments/00000000000000000000.seg";
pub const TAIL: &str = "tenants/acme/tail-00000000000000000000.raw";

/// Makes the scene; each has a key of its own.
pub fn scene() -> Scene {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    lab.calls(&LogId::CLUSTER, 2);
    lab.calls(&tenant("beta"), 10);
    lab.calls(&tenant("acme"), 150);
    lab.checkpoint();
    drop(lab.machine);
    let anchor = dir.path().join("kept-checkpoint");
    fs::copy(dir.path().join("audit/checkpoint"), &anchor).unwrap();
    lab.machine = common::open_machine(dir.path(), &lab.key);
    lab.calls(&tenant("acme"), 190);
    lab.checkpoint();
    lab.calls(&tenant("acme"), 10);
    let Lab { machine, key, .. } = lab;
    drop(machine);
    let layout = acme(&dir.path().join("audit"));
    let mut reader = LogReader::new(layout.clone());
    reader.next().unwrap();
    let block_two = reader.next().unwrap().unwrap().offset(0);
    let segment_end = fs::metadata(layout.segment(0)).unwrap().len();
    let frames = frame_offsets(&fs::read(layout.tail(0)).unwrap());
    Scene { dir, anchor, block_two, segment_end, frames, key }
}

impl Scene {
    pub fn audit(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    /// A place in the segment.
    pub fn seg(&self, index: u64, offset: u64) -> (u64, String, u64) {
        (index, SEGMENT.to_owned(), offset)
    }

    /// The place of a record in the tail.
    pub fn tail(&self, index: u64) -> (u64, String, u64) {
        (index, TAIL.to_owned(), self.frames[index as usize])
    }
}

pub fn acme(dir: &Path) -> LogLayout {
    LogLayout::new(dir.join("tenants/acme"))
}

pub fn frame_offsets(tail: &[u8]) -> Vec<u64> {
    let mut at = TAIL_HEADER_LEN;
    let mut offsets = vec![at as u64];
    while at < tail.len() {
        at += 36 + u32::from_le_bytes(tail[at..at + 4].try_into().unwrap()) as usize;
        offsets.push(at as u64);
    }
    offsets
}

pub fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

pub fn overwrite(path: &Path, at: u64, with: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize..at as usize + with.len()].copy_from_slice(with);
    fs::write(path, bytes).unwrap();
}

pub fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Acme's records as bytes.
pub fn leaves(dir: &Path) -> Vec<Vec<u8>> {
    let mut reader = LogReader::new(acme(dir));
    let mut leaves = Vec::new();
    while let Some(chunk) = reader.next().unwrap() {
        leaves.extend(chunk.iter().map(|(_, leaf)| leaf.to_vec()));
    }
    leaves
}

/// Rewrites acme's tail: `edit` changes its records, hashes are made anew.
pub fn rewrite_tail(dir: &Path, edit: impl Fn(&mut Vec<Vec<u8>>)) {
    let path = acme(dir).tail(0);
    let header = fs::read(&path).unwrap()[..TAIL_HEADER_LEN].to_vec();
    let mut all = leaves(dir);
    edit(&mut all);
    let mut out = header;
    all.iter().for_each(|leaf| push_tail_frame(&mut out, leaf, &leaf_hash(leaf)));
    fs::write(path, out).unwrap();
}

/// Rewrites acme's second block with other bodies and, as a careful forger would, its hashes.
pub fn rewrite_block(dir: &Path, scene: &Scene, new_hashes: bool, edit: impl Fn(usize, &[u8]) -> Vec<u8>) {
    let layout = acme(dir);
    let mut reader = LogReader::new(layout.clone());
    reader.next().unwrap();
    let chunk = reader.next().unwrap().unwrap();
    let header = chunk.header.clone().unwrap();
    let (mut raw, mut hashes, mut chain) = (Vec::new(), Vec::new(), header.chain_in);
    for (n, (_, leaf)) in chunk.iter().enumerate() {
        let leaf = edit(n, leaf);
        let hash = leaf_hash(&leaf);
        chain = chain_next(&chain, &hash);
        raw.extend_from_slice(&(leaf.len() as u32).to_le_bytes());
        raw.extend_from_slice(&leaf);
        hashes.extend_from_slice(&hash.0);
    }
    let times = (header.min_time_ns, header.max_time_ns);
    let chain = if new_hashes { chain } else { header.chain_out };
    let block = encode_block(256, &raw, times, (header.chain_in, chain)).unwrap();
    let old_len = BLOCK_HEADER_LEN + header.stored_len as usize;
    let at = scene.block_two as usize;
    let mut segment = fs::read(layout.segment(0)).unwrap();
    segment.splice(at..at + old_len, block);
    fs::write(layout.segment(0), segment).unwrap();
    if new_hashes {
        overwrite(&layout.leaf_hashes(0), 256 * 32, &hashes);
    }
}

/// Replaces acme's log by these records, in a tail alone, as somebody who knows the format could.
pub fn replace_log(dir: &Path, all: &[Vec<u8>]) {
    assert!(all.len() as u64 <= BLOCK_RECORDS * 16, "a tail holds no more");
    let layout = acme(dir);
    let _ = fs::remove_dir_all(layout.segments());
    fs::create_dir_all(layout.segments()).unwrap();
    let mut out = fs::read(layout.tail(0)).unwrap()[..TAIL_HEADER_LEN].to_vec();
    all.iter().for_each(|leaf| push_tail_frame(&mut out, leaf, &leaf_hash(leaf)));
    fs::write(layout.tail(0), out).unwrap();
}

/// The head of a log that holds these records.
pub fn head_of(all: &[Vec<u8>], time_ns: u64) -> Checkpoint {
    let origin = "provost/acme".to_owned();
    let (mut tree, mut chain) = (Frontier::default(), chain_start(&origin));
    for leaf in all {
        let hash = leaf_hash(leaf);
        tree.append(hash);
        chain = chain_next(&chain, &hash);
    }
    Checkpoint { origin, size: tree.size(), root: tree.root(), chain, time_ns }
}

/// Puts these notes in the place of all of acme's checkpoints.
pub fn set_checkpoints(dir: &Path, notes: &[String]) {
    let log = acme(dir).dir;
    let history: String = notes.iter().map(|note| format!("{note}\n")).collect();
    fs::write(log.join("checkpoints"), history).unwrap();
    let top = fs::read_to_string(dir.join("checkpoint")).unwrap();
    let mut kept: String =
        split_notes(&top).into_iter().filter(|n| !n.starts_with("provost/acme")).map(|n| format!("{n}\n")).collect();
    match notes.last() {
        Some(last) => {
            fs::write(log.join("checkpoint"), last).unwrap();
            kept.push_str(&format!("{last}\n"));
        }
        None => fs::remove_file(log.join("checkpoint")).unwrap(),
    }
    fs::write(dir.join("checkpoint"), kept).unwrap();
}

pub const FIRST_BLOCK: u64 = SEGMENT_HEADER_LEN as u64;
