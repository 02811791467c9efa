//! How fast the bus is: what copies of weights are held against.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Result;
use candle_core::cuda_backend::WrapErr as _;

use super::copies::pinned;
use super::{Cuda, MemoryPool};

/// Copies of which the best counts.
const COPIES: usize = 5;

/// Bytes a second from page-locked memory to the device.
pub(in crate::device) fn copy_rate(cuda: &Arc<Cuda>, bytes: u64) -> Result<f64> {
    let count = usize::try_from(bytes / size_of::<f32>() as u64).unwrap_or(usize::MAX).max(1);
    let stream = cuda.device.cuda_stream();
    let from = pinned(stream.context(), count).w()?;
    let pool = MemoryPool::new(cuda)?;
    let mut best = 0f64;
    for _ in 0..COPIES {
        let began = Instant::now();
        let copied = pool.upload_copy(&from, &[count])?;
        cuda.settle_uploads()?;
        let seconds = began.elapsed().as_secs_f64();
        drop(copied);
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate = (count * size_of::<f32>()) as f64 / seconds.max(f64::MIN_POSITIVE);
        best = best.max(rate);
    }
    Ok(best)
}
