//! One function for each thing that reads bytes which somebody else may have written.
//!
//! Each must come back, whatever the bytes are; where more can be said (what was accepted has one
//! spelling only), it is asserted.

use std::{fs, path::Path};

use provost_audit_core::{
    AddCheckpoint, BLOCK_HEADER_LEN, BODY_HEADER_LEN, BODY_PREFIX_LEN, BlockHeader, BodyHeader, BodyPrefix, Checkpoint,
    CosignerKey, EventView, Hash, Leaves, PruneNote, PrunedSegment, Record, RecordView, SEGMENT_FOOTER_LEN,
    SEGMENT_HEADER_LEN, SegmentFooter, SegmentHeader, SegmentIndex, SignedNote, TAIL_HEADER_LEN, TailHeader, TileName,
    TlogConsistency, TlogProof, VerifierKey, WitnessPolicy, decode_body, index_keys, split_notes,
};
use provost_audit_verify::{Exit, LeafHashes, LogLayout, LogReader, VerifyOptions, verify};

/// What is read as a record is canonical: written again, it is the same bytes.
pub fn record(data: &[u8]) {
    if let Ok((read, _)) = Record::decode_what_fits(data) {
        let _ = (PruneNote::of(&read), index_keys(&read).count());
    }
    let _ = EventView::read(data);
    if RecordView::read(data).is_err() {
        return;
    }
    let value: serde_json::Value = serde_json::from_slice(data).expect("what is read is JSON");
    let again = serde_json::to_vec(&value).expect("and can be written");
    assert_eq!(again, data, "one record has one spelling");
}

/// A block: header, then stored body.
pub fn block(data: &[u8]) {
    let Ok(header) = BlockHeader::decode(data) else { return };
    let Some(stored) = data.get(BLOCK_HEADER_LEN..) else { return };
    let mut raw = Vec::new();
    if decode_body(&header, stored, &mut raw).is_ok() {
        assert_eq!(raw.len(), header.raw_len as usize);
        for leaf in Leaves::new(&raw).flatten() {
            record(raw.get(leaf).unwrap_or_default());
        }
    }
}

/// Segment header, segment footer, tail header: what is read is written again as it was.
pub fn headers(data: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(data) {
        assert_eq!(header.encode(), data[..SEGMENT_HEADER_LEN]);
    }
    if let Ok(footer) = SegmentFooter::decode(data) {
        assert_eq!(footer.encode(), data[..SEGMENT_FOOTER_LEN]);
    }
    if let Ok(header) = TailHeader::decode(data) {
        assert_eq!(header.encode(), data[..TAIL_HEADER_LEN]);
    }
}

/// The records of a tail.
pub fn tail(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let layout = LogLayout::new(dir.path());
    if fs::write(layout.tail(0), data).is_err() {
        return;
    }
    let mut reader = LogReader::new(layout);
    while let Ok(Some(chunk)) = reader.next() {
        assert!(chunk.leaves.len() <= 256);
    }
}

/// A signed note, a key, a file of notes.
pub fn note(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = SignedNote::parse(&text);
    let pieces: usize = split_notes(&text).iter().map(|piece| piece.len()).sum();
    assert!(pieces <= text.len());
    if let Ok(key) = VerifierKey::parse(&text) {
        assert_eq!(VerifierKey::parse(&key.to_text()), Ok(key));
    }
}

/// A checkpoint: what is read means what is written.
pub fn checkpoint(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(read) = Checkpoint::parse_unchecked(&text) {
        assert!(text.starts_with(&read.to_text()), "{text} was read as {read:?}");
    }
}

/// What others send to a witness and to who serves tiles, and the files that auditors are given: what is
/// read is read again from what it is written as.
pub fn exchanged(data: &[u8]) {
    if let Ok(read) = AddCheckpoint::parse(data) {
        assert_eq!(AddCheckpoint::parse(read.to_text().as_bytes()), Ok(read));
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(read) = TlogProof::parse(&text) {
        assert_eq!(TlogProof::parse(&read.to_text()), Ok(read));
    }
    if let Ok(read) = TlogConsistency::parse(&text) {
        assert_eq!(TlogConsistency::parse(&read.to_text()), Ok(read));
    }
    if let Ok(key) = CosignerKey::parse(&text) {
        assert_eq!(CosignerKey::parse(&key.to_text()), Ok(key));
    }
    if let Some(name) = TileName::parse(&text) {
        assert_eq!(name.path(), text);
        let _ = name.is_in(u64::MAX);
    }
    let _ = WitnessPolicy::parse(&text);
}

/// What lies beside segments under a checksum, which whoever writes the file can make: an index, and what stays
/// of a pruned segment.
pub fn summed(data: &[u8]) {
    /// Before the keys of an index: its head, and the places of 256 blocks.
    const BEFORE_KEYS: usize = 56 + 256 * 24;
    /// From one key to the next.
    const APART: usize = 12;
    let bytes = [data, &Hash::of(data).0].concat();
    if let Ok(read) = PrunedSegment::decode(&bytes) {
        assert_eq!(read.encode(), bytes);
    }
    if let Ok(read) = SegmentIndex::decode(bytes) {
        let _ = (0..=u8::MAX).filter_map(|n| read.place(n)).count();
        for entry in data.get(BEFORE_KEYS..).unwrap_or_default().chunks(APART).take(64) {
            if let Some(key) = entry.first_chunk() {
                let _ = read.blocks(u64::from_le_bytes(*key));
            }
        }
    }
}

/// The head of a file of bodies, and what stands before each.
pub fn bodies(data: &[u8]) {
    if let Some(Ok(header)) = data.first_chunk().map(BodyHeader::decode) {
        assert_eq!(header.encode(), data[..BODY_HEADER_LEN]);
    }
    if let Some(Ok(prefix)) = data.first_chunk().map(BodyPrefix::decode) {
        assert_eq!(prefix.encode(), data[..BODY_PREFIX_LEN]);
    }
}

/// Stored leaf hashes, beside a segment that holds nothing.
pub fn leaf_file(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let layout = LogLayout::new(dir.path());
    let written = fs::create_dir_all(layout.segments())
        .and_then(|()| fs::write(layout.segment(0), data))
        .and_then(|()| fs::write(layout.leaf_hashes(0), data));
    if written.is_err() {
        return;
    }
    if let Ok(hashes) = LeafHashes::open(layout) {
        let size = hashes.size();
        let _ = hashes.root(0..size);
        let _ = hashes.inclusion(0, size);
        let _ = hashes.consistency(size / 2, size);
    }
}

/// A whole directory: the bytes say which files hold what. No anchor, so nothing is proven.
pub fn directory(data: &[u8]) {
    const FILES: [&str; 11] = [
        "checkpoint",
        "tenants/acme/audit.pub",
        "tenants/acme/checkpoint",
        "tenants/acme/checkpoints",
        "tenants/acme/tail-00000000000000000000.raw",
        "tenants/acme/segments/00000000000000000000.seg",
        "tenants/acme/segments/00000000000000000000.leaf",
        "tenants/acme/segments/00000000000000065536.seg",
        "tenants/acme/segments/00000000000000000000.body",
        "tenants/acme/segments/00000000000000000000.pruned",
        "cluster/keys",
    ];
    let Ok(dir) = tempfile::tempdir() else { return };
    if fs::create_dir_all(dir.path().join("tenants/acme/segments")).is_err() {
        return;
    }
    let mut rest = data;
    while let [which, low, high, more @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (content, after) = more.split_at(len);
        let name = FILES[usize::from(*which) % FILES.len()];
        let path = dir.path().join(name);
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(path, content);
        rest = after;
    }
    verify_copy(dir.path());
}

/// Verifies without an anchor: whatever is there, it is not proven.
pub fn verify_copy(dir: &Path) {
    if let Ok(report) = verify(dir, &VerifyOptions::default()) {
        assert_ne!(report.exit, Exit::Proven, "{report}");
        let _ = report.to_html(&provost_audit_verify::HtmlContext::default());
    }
}
