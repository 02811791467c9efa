//! The softmax of attention, of one row and of the rows of a prompt.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};

use super::exp::exp;
use super::lanes;
use super::threads::for_each;
use super::wide::{self, Wide};

/// Rows that one thread takes at a time.
const ROWS_AT_A_TIME: usize = 16;
/// What one element costs, in operations of the simplest kind.
const OPERATIONS: usize = 16;

/// Turns scores, `[_, _, positions]`, into weights in place: the softmax of `scale` times the scores. The last dimension but one
/// is groups of `rows` each, and the last `rows` positions are those of the rows: each sees those up to its own, and the weights
/// of the others are 0.
///
/// # Errors
/// When the scores are not `f32` in one piece on the processor, or there are fewer positions than rows.
pub(crate) fn causal_softmax(scores: &Tensor, rows: usize, scale: f32) -> Result<()> {
    scores.inplace_op1(&CausalSoftmax { rows, scale })
}

struct CausalSoftmax {
    rows: usize,
    scale: f32,
}

impl InplaceOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (_, _, positions) = layout.shape().dims3()?;
        let (CpuStorage::F32(scores), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("scores must be f32 in one piece")
        };
        let Some(scores) = scores.get_mut(start..end) else { candle_core::bail!("scores lie outside their storage") };
        let Some(before) = positions.checked_sub(self.rows) else {
            candle_core::bail!("{} rows of {positions} positions", self.rows)
        };
        if scores.is_empty() || self.rows == 0 {
            return Ok(());
        }
        let operations = OPERATIONS * scores.len();
        let parts: Vec<_> = scores.chunks_mut(ROWS_AT_A_TIME * positions).enumerate().collect();
        for_each(parts, operations, |(part, scores)| {
            let first = *part * ROWS_AT_A_TIME;
            wide::run(Rows { scores, positions, first, rows: self.rows, before, scale: self.scale });
        });
        Ok(())
    }
}

/// Some rows of scores.
struct Rows<'a> {
    scores: &'a mut [f32],
    positions: usize,
    /// The first one's number among all.
    first: usize,
    /// Of a group.
    rows: usize,
    /// Positions before the first of a group.
    before: usize,
    scale: f32,
}

impl Wide for Rows<'_> {
    #[inline(always)]
    fn run(self) {
        for (row, scores) in self.scores.chunks_mut(self.positions).enumerate() {
            let seen = self.before + (self.first + row) % self.rows + 1;
            let (seen, hidden) = scores.split_at_mut(seen.min(self.positions));
            softmax(seen, self.scale);
            hidden.fill(0.0);
        }
    }
}

/// The softmax of `scale` times the scores, in place; `scale` is above 0.
#[inline(always)]
pub(super) fn softmax(scores: &mut [f32], scale: f32) {
    let highest = lanes::highest(scores);
    for score in scores.iter_mut() {
        *score = exp((*score - highest) * scale);
    }
    let whole = 1.0 / lanes::sum(scores);
    for score in scores.iter_mut() {
        *score *= whole;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;
    use candle_nn::ops::softmax_last_dim;

    use super::*;
    use crate::decoder::causal_mask;

    #[test]
    fn it_is_the_softmax_of_masked_scores() {
        let (heads, groups, scale) = (3, 2, 0.125);
        for (rows, positions) in [(1usize, 1usize), (2, 2), (5, 40), (33, 300)] {
            let count = heads * groups * rows * positions;
            let scores: Vec<f32> = (0..count).map(|i| ((i * 7919) % 1000) as f32 / 20.0 - 25.0).collect();
            let stacked = (heads, groups * rows, positions);
            let scores = Tensor::from_vec(scores, stacked, &Device::Cpu).unwrap();
            let mask = causal_mask(rows, positions, &Device::Cpu).unwrap();
            let masked = (&scores * f64::from(scale)).unwrap().reshape((heads * groups, rows, positions)).unwrap();
            let expected = softmax_last_dim(&masked.broadcast_add(&mask).unwrap()).unwrap();
            let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
            causal_softmax(&scores, rows, scale).unwrap();
            let found: Vec<f32> = scores.flatten_all().unwrap().to_vec1().unwrap();
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{rows} rows of {positions}: {worst}");
        }
    }

    #[test]
    fn what_is_no_number_stays_so_and_other_rows_do_not_hear_of_it() {
        let mut scores = vec![0.5f32; 2 * 40];
        scores[7] = f32::NAN;
        let scores = Tensor::from_vec(scores, (1, 2, 40), &Device::Cpu).unwrap();
        causal_softmax(&scores, 1, 1.0).unwrap();
        let rows = scores.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        assert!(rows[0].iter().all(|weight| weight.is_nan()), "{:?}", rows[0]);
        assert!(rows[1].iter().all(|weight| (weight - 0.025).abs() < 1e-7), "{:?}", rows[1]);
    }

    #[test]
    fn shapes_that_cannot_be_are_errors() {
        let scores = Tensor::zeros((1, 4, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(causal_softmax(&scores, 4, 1.0).is_err());
        assert!(causal_softmax(&scores.transpose(1, 2).unwrap(), 1, 1.0).is_err());
    }
}
