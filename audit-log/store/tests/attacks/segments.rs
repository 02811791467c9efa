//! Segments: each field of header, block header, footer; blocks and whole segments moved or removed.

use std::{fs, path::Path};

use provost_audit_core::{BLOCK_HEADER_LEN, SEGMENT_FOOTER_LEN, SEGMENT_LEAVES};
use provost_audit_verify::{LogLayout, LogReader};
use tempfile::tempdir;

use crate::{
    case::{found, missing, try_all, unseen},
    common::{Lab, tenant},
    scene::{FIRST_BLOCK, SEGMENT, Scene, TAIL, acme, flip, overwrite, rewrite_block, scene},
};

fn segment(dir: &Path) -> std::path::PathBuf {
    acme(dir).segment(0)
}

#[test]
fn every_field_of_headers() {
    let scene = scene();
    let s = &scene;
    let two = s.block_two;
    let seg = move |at: u64| move |d: &Path| flip(&segment(d), at);
    let here = |index: u64, at: u64| s.seg(index, at);
    try_all(
        s,
        &[
            found("segment header: mark", "INTEGRITY", here(0, 0), seg(0)),
            found("segment header: first index", "INTEGRITY", here(0, 0), seg(8)),
            found("segment header: origin", "INTEGRITY", here(0, 0), seg(20)),
            found("segment header: chain", "INTEGRITY", here(0, 0), seg(60)),
            found("block header: mark", "INTEGRITY", here(0, FIRST_BLOCK), seg(FIRST_BLOCK)),
            found("block header: count", "INTEGRITY", here(0, FIRST_BLOCK), seg(FIRST_BLOCK + 4)),
            found("block header: first index", "INTEGRITY", here(0, FIRST_BLOCK), seg(FIRST_BLOCK + 9)),
            found("block header: body length", "INTEGRITY", here(0, FIRST_BLOCK), seg(FIRST_BLOCK + 16)),
            found("block header: stored length", "INTEGRITY", here(0, FIRST_BLOCK), seg(FIRST_BLOCK + 20)),
            found("block header: earliest time", "INTEGRITY", here(256, two), seg(two + 24)),
            found("block header: latest time", "INTEGRITY", here(256, two), seg(two + 32)),
            found("block header: chain before", "INTEGRITY", here(256, two), seg(two + 44)),
            found("block header: chain after", "INTEGRITY", here(256, two), seg(two + 80)),
            // The first bytes of the frame. One in its middle may decode, and is then a record that was changed.
            found("block body", "INTEGRITY", here(256, two), seg(two + BLOCK_HEADER_LEN as u64 + 1)),
        ],
    );
}

#[test]
fn blocks_and_tiles() {
    let scene = scene();
    let s = &scene;
    let two = s.block_two as usize;
    let rewrite = |d: &Path| {
        rewrite_block(d, s, true, |_, leaf| {
            String::from_utf8(leaf.to_vec()).unwrap().replace("\"ana\"", "\"eve\"").into_bytes()
        });
    };
    try_all(
        s,
        &[
            // The checkpoint of 300 lies within the block: its root is the first thing that differs.
            found("block rewritten with all its hashes", "INTEGRITY", (0, history_file(), 0), rewrite),
            found("block removed", "INTEGRITY", s.seg(0, FIRST_BLOCK), move |d| {
                let mut bytes = fs::read(segment(d)).unwrap();
                bytes.drain(FIRST_BLOCK as usize..two);
                fs::write(segment(d), bytes).unwrap();
            }),
            found("blocks swapped", "INTEGRITY", s.seg(0, FIRST_BLOCK), move |d| {
                let bytes = fs::read(segment(d)).unwrap();
                let (header, one, two) =
                    (&bytes[..FIRST_BLOCK as usize], &bytes[FIRST_BLOCK as usize..two], &bytes[two..]);
                fs::write(segment(d), [header, two, one].concat()).unwrap();
            }),
            found("block doubled", "INTEGRITY", s.seg(512, s.segment_end), move |d| {
                let bytes = fs::read(segment(d)).unwrap();
                fs::write(segment(d), [&bytes[..], &bytes[two..]].concat()).unwrap();
            }),
            found("partial tile: another block's hashes", "INTEGRITY", s.seg(0, FIRST_BLOCK), |d| {
                let path = acme(d).leaf_hashes(0);
                let bytes = fs::read(&path).unwrap();
                overwrite(&path, 0, &bytes[256 * 32..]);
            }),
            unseen("tile cut: proofs suffer, records do not", |d| {
                let path = acme(d).leaf_hashes(0);
                fs::write(&path, &fs::read(&path).unwrap()[..300 * 32]).unwrap();
            }),
            unseen("open segment removed, its records still in the tail", |d| fs::remove_file(segment(d)).unwrap()),
            found("segment and tail removed", "INTEGRITY", (0, "tenants/acme".to_owned(), 0), |d| {
                fs::remove_file(segment(d)).unwrap();
                fs::remove_file(acme(d).tail(0)).unwrap();
            }),
            found("tail removed", "INTEGRITY", s.seg(512, s.segment_end), |d| {
                fs::remove_file(acme(d).tail(0)).unwrap();
            }),
            found("another tenant's log spliced in", "INTEGRITY", (0, TAIL.to_owned(), 0), |d| {
                fs::copy(LogLayout::new(d.join("tenants/beta")).tail(0), acme(d).tail(0)).unwrap();
                fs::remove_dir_all(acme(d).segments()).unwrap();
            }),
        ],
    );
}

fn history_file() -> String {
    "tenants/acme/checkpoints".to_owned()
}

/// A log of more than one segment; what goes wrong at their borders.
#[test]
fn whole_segments() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    lab.calls(&tenant("beta"), 130);
    lab.calls(&tenant("acme"), 32_800);
    lab.checkpoint();
    let Lab { machine, key, .. } = lab;
    drop(machine);
    let audit = dir.path().join("audit");
    let layout = acme(&audit);
    let end = fs::metadata(layout.segment(0)).unwrap().len();
    let footer = end - SEGMENT_FOOTER_LEN as u64;
    let tail_first = layout.list_tails().unwrap()[0];
    let tail = format!("tenants/acme/tail-{tail_first:020}.raw");
    let mut reader = LogReader::new(layout.clone());
    reader.next().unwrap();
    let block_two = reader.next().unwrap().unwrap().offset(0);
    let anchor = dir.path().join("kept");
    fs::copy(audit.join("checkpoint"), &anchor).unwrap();
    let scene = Scene { dir, anchor, block_two, segment_end: end, frames: Vec::new(), key };
    let s = &scene;
    let seg = move |at: u64| move |d: &Path| flip(&segment(d), at);
    try_all(
        s,
        &[
            found("segment footer: mark", "INTEGRITY", s.seg(0, footer), seg(footer)),
            found("segment footer: count", "INTEGRITY", s.seg(0, footer), seg(footer + 5)),
            found("segment footer: first index", "INTEGRITY", s.seg(0, footer), seg(footer + 9)),
            found("segment footer: root", "INTEGRITY", s.seg(0, footer), seg(footer + 20)),
            found("segment footer: chain", "INTEGRITY", s.seg(0, footer), seg(footer + 60)),
            found("bytes behind a segment's footer", "INTEGRITY", s.seg(0, end), move |d| {
                let bytes = fs::read(segment(d)).unwrap();
                fs::write(segment(d), [&bytes[..], &bytes[footer as usize..]].concat()).unwrap();
            }),
            found("truncated at a segment's end", "INTEGRITY", s.seg(65_536, end), move |d| {
                fs::remove_file(acme(d).tail(tail_first)).unwrap();
            }),
            found("truncated at a block's end", "INTEGRITY", s.seg(256, block_two), move |d| {
                fs::remove_file(acme(d).tail(tail_first)).unwrap();
                let bytes = fs::read(segment(d)).unwrap();
                fs::write(segment(d), &bytes[..block_two as usize]).unwrap();
            }),
            missing("segment removed, later ones kept", "INTEGRITY", (0, SEGMENT.to_owned(), 0), |d| {
                let layout = acme(d);
                fs::write(layout.segment(SEGMENT_LEAVES), b"").unwrap();
                fs::remove_file(layout.segment(0)).unwrap();
            }),
            missing("segment cut short of the tail", "INTEGRITY", (256, tail.clone(), 0), move |d| {
                let bytes = fs::read(segment(d)).unwrap();
                fs::write(segment(d), &bytes[..block_two as usize]).unwrap();
            }),
            found("another tenant's segment spliced in", "INTEGRITY", s.seg(0, 0), |d| {
                fs::copy(LogLayout::new(d.join("tenants/beta")).segment(0), segment(d)).unwrap();
            }),
        ],
    );
}
