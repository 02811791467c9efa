//! The functions of the fuzz targets as ordinary tests: any bytes, and seeds with damage.
//!
//! cargo-fuzz needs a nightly compiler; these run everywhere and for a bounded time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use proptest::prelude::*;
use provost_audit_core::{
    BLOCK_RECORDS, Hash, SegmentFooter, SegmentHeader, TailHeader, encode_block, leaf_hash, push_tail_frame,
};

/// One valid example of each thing.
fn seeds() -> Vec<Vec<u8>> {
    let zeros = "0".repeat(64);
    let leaf = format!(
        r#"{{"call_id":"{:032x}","epoch":1,"phase":"intent","policies":["a","b\"c"],"seq":2,"time_ns":"3","v":1,"writer_id":"n","writer_prev":"{zeros}"}}"#,
        5
    )
    .into_bytes();
    let mut raw = Vec::new();
    for _ in 0..BLOCK_RECORDS {
        raw.extend_from_slice(&(leaf.len() as u32).to_le_bytes());
        raw.extend_from_slice(&leaf);
    }
    let block = encode_block(0, &raw, (3, 3), (Hash::ZERO, Hash::ZERO)).unwrap();
    let header = SegmentHeader { first_index: 0, origin: Hash::ZERO, chain_in: Hash::ZERO }.encode();
    let footer = SegmentFooter { first_index: 0, root: Hash::ZERO, chain_out: Hash::ZERO }.encode();
    let mut tail = TailHeader { first_index: 0, chain_in: Hash::ZERO }.encode();
    (0..3).for_each(|_| push_tail_frame(&mut tail, &leaf, &leaf_hash(&leaf)));
    let key = "example.com/foo+530de95a+AbpPZVrZLhiCASHZU8WLCMJcxCL5CunyAz6HVX2W9Gvz";
    let hash = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
    let note = format!("provost/acme\n12\n{hash}\nchain {hash}\ntime 17\n\n\u{2014} provost/acme AAAAAAAA\n");
    let segment = [header.clone(), block.clone()].concat();
    let mut directory = Vec::new();
    for (which, part) in [(1u8, key.as_bytes()), (3, note.as_bytes()), (4, &tail), (5, &segment)] {
        directory.push(which);
        directory.extend_from_slice(&(part.len() as u16).to_le_bytes());
        directory.extend_from_slice(part);
    }
    vec![leaf, block, header, footer, tail, key.as_bytes().to_vec(), note.into_bytes(), segment, directory]
}

fn run_all(data: &[u8]) {
    targets::record(data);
    targets::block(data);
    targets::headers(data);
    targets::note(data);
    targets::checkpoint(data);
}

fn run_files(data: &[u8]) {
    targets::tail(data);
    targets::leaf_file(data);
    targets::directory(data);
}

#[test]
fn seeds_and_every_cut_of_them() {
    for seed in seeds() {
        run_files(&seed);
        for cut in 0..=seed.len() {
            run_all(&seed[..cut]);
        }
        for cut in (0..seed.len()).step_by(seed.len() / 40 + 1) {
            run_files(&seed[..cut]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        run_all(&data);
        run_files(&data);
    }

    #[test]
    fn damaged_seeds(which in any::<proptest::sample::Index>(), damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        let all = seeds();
        let mut data = which.get(&all).clone();
        for (at, byte) in damage {
            let at = at % data.len();
            data[at] = byte;
        }
        run_all(&data);
        run_files(&data);
    }
}
