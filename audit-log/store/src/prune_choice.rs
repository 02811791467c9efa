//! Which segments of a log are old enough to be pruned. Reads headers and footers, no records.

use provost_audit_core::{Hash, SEGMENT_BLOCKS, SEGMENT_HEADER_LEN, SEGMENT_LEAVES};
use provost_audit_verify::{LeafHashes, LogLayout, SegmentFile, after, first_kept};

/// Segments that are old enough.
pub(crate) struct Chosen {
    pub from: u64,
    pub to: u64,
    pub times: (u64, u64),
    pub root: Hash,
    pub chain: Hash,
}

/// From the front, until one is not old enough or reaches beyond `limit`.
pub(crate) fn choose(layout: &LogLayout, before_ns: u64, limit: u64) -> Result<Chosen, String> {
    let text = |e: &dyn ToString| e.to_string();
    let from = first_kept(layout).map_err(|e| text(&e))?;
    let mut chosen = Chosen { from, to: from, times: (u64::MAX, 0), root: Hash::ZERO, chain: Hash::ZERO };
    while chosen.to + SEGMENT_LEAVES <= limit {
        let Some(segment) = SegmentFile::open(layout, chosen.to).map_err(|e| text(&e))? else { break };
        let Some(footer) = segment.footer().map_err(|e| text(&e))? else { break };
        let times = times_of(&segment)?;
        if times.1 >= before_ns {
            break;
        }
        chosen.times = (chosen.times.0.min(times.0), chosen.times.1.max(times.1));
        chosen.chain = footer.chain_out;
        chosen.to += SEGMENT_LEAVES;
    }
    if chosen.to > chosen.from {
        let hashes = LeafHashes::open(layout.clone()).map_err(|e| text(&e))?;
        chosen.root = hashes.root(0..chosen.to).map_err(|e| text(&e))?;
    }
    Ok(chosen)
}

/// Earliest and latest time of a segment, from its blocks' headers.
fn times_of(segment: &SegmentFile) -> Result<(u64, u64), String> {
    let (mut times, mut offset) = ((u64::MAX, 0), SEGMENT_HEADER_LEN as u64);
    for n in (0..SEGMENT_BLOCKS).filter_map(|n| u8::try_from(n).ok()) {
        let header = segment.header(n, offset).map_err(|e| e.to_string())?;
        let header = header.ok_or("a segment ends before its last block")?;
        times = (times.0.min(header.min_time_ns), times.1.max(header.max_time_ns));
        offset = after(offset, &header);
    }
    Ok(times)
}
