//! A stream's framing, for fuzz targets and the tests that run them: bytes in, nothing out.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{
    head::Head,
    lines::{LineBounds, Lines},
};

/// Bounds that are small, so that short inputs reach them.
const MAX_HEAD_BYTES: usize = 256;
const MAX_LINE_BYTES: usize = 1_024;
const SMALL_BYTES: usize = 64;

/// Reads a head and lines to the end or to the first fault. Panics where a line is longer than its bound, or
/// where what was read is not what came.
pub fn quic_stream(data: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    runtime.block_on(async {
        let large = Semaphore::new(1);
        let bounds = LineBounds { small_bytes: SMALL_BYTES, large: &large, patience: Duration::from_secs(1) };
        let mut lines = Lines::new(data);
        let mut rest = data;
        let mut max = MAX_HEAD_BYTES;
        while let Ok(Some(line)) = lines.next(max, bounds).await {
            assert!(line.len() <= max, "a line of {} bytes", line.len());
            let (came, after) = rest.split_at(line.len());
            assert_eq!(came, &line[..], "what was read is what came");
            rest = after.strip_prefix(b"\n").unwrap_or(after);
            if max == MAX_HEAD_BYTES {
                head(line);
            }
            max = MAX_LINE_BYTES;
        }
    });
}

fn head(line: Bytes) {
    let Ok(head) = Head::parse(line, MAX_HEAD_BYTES) else { return };
    assert!(head.path.starts_with("/mcp"), "it leads to {}", head.path);
    assert!(head.headers.len() <= 3);
}
