//! The functions of the fuzz targets as ordinary tests: any bytes, and seeds with damage.
//!
//! cargo-fuzz needs a nightly compiler; these run everywhere and for a bounded time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use proptest::prelude::*;
use provost_audit_core::{
    AddCheckpoint, BLOCK_RECORDS, BlockPlace, BodyHeader, BodyPrefix, CosignerKey, Hash, IndexBuilder, PrunedSegment,
    Record, SegmentFooter, SegmentHeader, TailHeader, TileName, TlogConsistency, TlogProof, WitnessPolicy,
    encode_block, leaf_hash, push_tail_frame,
};

const KEY: &str = "example.com/foo+186f20c7+AbpPZVrZLhiCASHZU8WLCMJcxCL5CunyAz6HVX2W9Gvz";

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
    let hash = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
    let note = format!("provost/acme\n12\n{hash}\nchain {hash}\ntime 17\n\n\u{2014} provost/acme AAAAAAAA\n");
    let segment = [header.clone(), block.clone()].concat();
    let mut directory = Vec::new();
    for (which, part) in [(1u8, KEY.as_bytes()), (3, note.as_bytes()), (4, &tail), (5, &segment)] {
        directory.push(which);
        directory.extend_from_slice(&(part.len() as u16).to_le_bytes());
        directory.extend_from_slice(part);
    }
    let mut seeds = exchanged(KEY, &note);
    seeds.extend(beside_segments(&leaf));
    seeds.extend([leaf, block, header, footer, tail, KEY.as_bytes().to_vec(), note.into_bytes(), segment, directory]);
    seeds
}

fn exchanged(key: &str, note: &str) -> Vec<Vec<u8>> {
    let (path, checkpoint) = (vec![Hash([3; 32])], note.to_owned());
    let request = AddCheckpoint { old_size: 3, proof: path.clone(), note: checkpoint.clone() };
    let proof = TlogProof { index: 7, path: path.clone(), checkpoint: checkpoint.clone() };
    let grown = TlogConsistency { old_size: 3, old_root: Hash([4; 32]), path, checkpoint };
    let witness = CosignerKey { name: "w.example/1".to_owned(), public_key: [7; 32] }.to_text();
    let policy = format!("log {key}\nwitness w {witness}\ngroup some all w\nquorum some\n");
    let tile = "tile/0/x001/234.p/5".to_owned();
    [request.to_text(), proof.to_text(), grown.to_text(), witness, policy, tile].map(String::into_bytes).to_vec()
}

/// Without their checksums, which the target adds.
fn beside_segments(leaf: &[u8]) -> Vec<Vec<u8>> {
    let mut builder = IndexBuilder::new(0);
    for n in 0..256 {
        assert!(builder.block(BlockPlace { offset: 80 + n * 200, min_time_ns: n, max_time_ns: n + 1 }));
    }
    builder.record(&Record::decode(leaf).unwrap());
    let index = builder.encode(&Hash::ZERO).unwrap();
    let pruned = PrunedSegment {
        header: SegmentHeader { first_index: 0, origin: Hash::ZERO, chain_in: Hash::ZERO },
        footer: SegmentFooter { first_index: 0, root: Hash::ZERO, chain_out: Hash::ZERO },
        record: 70_000,
    };
    let summed = [index, pruned.encode()].map(|bytes| bytes[..bytes.len() - 32].to_vec());
    let header = BodyHeader { first_index: 0, origin: Hash::ZERO }.encode().to_vec();
    let prefix = BodyPrefix { index: 7, len: 29 }.encode().to_vec();
    [summed.to_vec(), vec![header, prefix]].concat()
}

/// Damage to a seed that nobody reads shows nothing.
#[test]
fn seeds_of_what_is_exchanged_are_read() {
    let seeds = exchanged(KEY, "a note\n");
    let text = |n: usize| std::str::from_utf8(&seeds[n]).unwrap();
    assert!(AddCheckpoint::parse(&seeds[0]).is_ok() && TlogProof::parse(text(1)).is_ok());
    assert!(TlogConsistency::parse(text(2)).is_ok() && CosignerKey::parse(text(3)).is_ok());
    assert_eq!(WitnessPolicy::parse(text(4)).map(|policy| policy.logs.len()), Ok(1));
    assert!(TileName::parse(text(5)).is_some());
}

fn run_all(data: &[u8]) {
    targets::record(data);
    targets::block(data);
    targets::headers(data);
    targets::note(data);
    targets::checkpoint(data);
    targets::exchanged(data);
    targets::summed(data);
    targets::bodies(data);
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
