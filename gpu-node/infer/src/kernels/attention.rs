//! Attention of one position over all before it.

use candle_core::{DType, Layout, Result, Storage, Tensor, WithDType};
use half::f16;

use super::lanes;
use super::softmax::softmax;
use super::threads::for_each;
use super::wide::{self, Plain, Wide, Widen};
use crate::kv_cache::KvPiece;

/// Positions that are widened at a time: with their queries they stay in the fastest memory.
const WIDENED: usize = 16;

/// What the query of one head, `[heads, 1, dim]`, makes of the keys and values of all positions up to its own, whose pieces
/// follow each other: `[1, heads * dim]`. They are read where they lie, and computed with as `f32`.
///
/// # Errors
/// When queries are not `f32` or keys and values neither `f32` nor `f16`, all on the processor, or the shapes do not belong together.
pub(crate) fn attend_one(queries: &Tensor, pieces: &[KvPiece]) -> Result<Tensor> {
    if pieces.first().is_none_or(|piece| piece.keys.dtype() != DType::F16) {
        return attend_over::<f32>(queries, pieces, Plain);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(hardware) = wide::with_f16c() {
        return attend_over::<f16>(queries, pieces, hardware);
    }
    attend_over::<f16>(queries, pieces, Plain)
}

/// A number as keys and values are kept.
trait Kept: WithDType {
    /// The same numbers as `f32`, in `room` where they are of another kind.
    fn floats<'a>(kept: &'a [Self], room: &'a mut [f32], widen: impl Widen) -> &'a [f32];
}

impl Kept for f32 {
    #[inline(always)]
    fn floats<'a>(kept: &'a [Self], _: &'a mut [f32], _: impl Widen) -> &'a [f32] {
        kept
    }
}

impl Kept for f16 {
    #[inline(always)]
    fn floats<'a>(kept: &'a [Self], room: &'a mut [f32], widen: impl Widen) -> &'a [f32] {
        widen.widen(kept, room);
        room.get(..kept.len()).unwrap_or_default()
    }
}

fn attend_over<T: Kept>(queries: &Tensor, pieces: &[KvPiece], widen: impl Widen) -> Result<Tensor> {
    let (heads, rows, dim) = queries.dims3()?;
    let kv_heads = pieces.first().map_or(Ok(0), |piece| piece.keys.dim(0))?;
    if rows != 1 || dim == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        candle_core::bail!("{rows} rows of {heads} heads of {dim} over {kv_heads}")
    }
    if queries.dtype() != DType::F32 {
        candle_core::bail!("queries must be f32")
    }
    let queries: Vec<f32> = queries.flatten_all()?.to_vec1()?;
    let held: Vec<_> =
        pieces.iter().map(|piece| (piece.keys.storage_and_layout(), piece.values.storage_and_layout())).collect();
    let mut read = Vec::with_capacity(held.len());
    for ((keys, keys_at), (values, values_at)) in &held {
        let (keys, values) = (Rows::<T>::of(keys, keys_at)?, Rows::<T>::of(values, values_at)?);
        if [keys.heads, values.heads] != [kv_heads; 2]
            || [keys.dim, values.dim] != [dim; 2]
            || keys.positions != values.positions
        {
            candle_core::bail!("keys and values of different shapes")
        }
        read.push((keys, values));
    }
    let positions: usize = read.iter().map(|(keys, _)| keys.positions).sum();
    let groups = heads / kv_heads;
    let mut mixed = vec![0.0f32; heads * dim];
    let parts: Vec<_> = mixed.chunks_mut(groups * dim).zip(queries.chunks(groups * dim)).enumerate().collect();
    for_each(parts, 2 * heads * positions * dim, |(head, (mixed, queries))| {
        let pieces = read.iter().map(|(keys, values)| (keys.of_head(*head), values.of_head(*head))).collect();
        wide::run(Head { pieces, queries, mixed, dim, positions, widen });
    });
    Tensor::from_vec(mixed, (1, heads * dim), &candle_core::Device::Cpu)
}

/// Keys or values of positions that lie in a row.
struct Rows<'a, T> {
    /// From the first position of the first head.
    data: &'a [T],
    head_stride: usize,
    heads: usize,
    positions: usize,
    dim: usize,
}

impl<'a, T: WithDType> Rows<'a, T> {
    fn of(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        let (heads, positions, dim) = layout.shape().dims3()?;
        let (Storage::Cpu(storage), &[head_stride, position_stride, 1]) = (storage, layout.stride()) else {
            candle_core::bail!("keys and values must lie in a row on the processor")
        };
        let data = storage.as_slice::<T>()?.get(layout.start_offset()..).unwrap_or_default();
        let last = heads.saturating_sub(1) * head_stride + positions * dim;
        if position_stride != dim || last > data.len() {
            candle_core::bail!("keys and values must lie in a row")
        }
        Ok(Self { data, head_stride, heads, positions, dim })
    }

    fn of_head(&self, head: usize) -> &'a [T] {
        let start = head * self.head_stride;
        self.data.get(start..start + self.positions * self.dim).unwrap_or_default()
    }
}

/// The query heads that share one head of keys and values.
struct Head<'a, T, W> {
    /// Keys and values, a position after the other.
    pieces: Vec<(&'a [T], &'a [T])>,
    queries: &'a [f32],
    mixed: &'a mut [f32],
    dim: usize,
    positions: usize,
    widen: W,
}

impl<T: Kept, W: Widen> Wide for Head<'_, T, W> {
    #[inline(always)]
    fn run(self) {
        let Self { pieces, queries, mixed, dim, positions, widen } = self;
        if positions == 0 {
            return;
        }
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores = vec![0.0f32; queries.len() / dim * positions];
        let mut room = vec![0.0f32; WIDENED * dim];
        let mut at = 0;
        for (keys, _) in &pieces {
            for keys in keys.chunks(WIDENED * dim) {
                for key in T::floats(keys, &mut room, widen).chunks_exact(dim) {
                    for (query, scores) in queries.chunks_exact(dim).zip(scores.chunks_exact_mut(positions)) {
                        if let Some(score) = scores.get_mut(at) {
                            *score = lanes::dot(query, key);
                        }
                    }
                    at += 1;
                }
            }
        }
        for scores in scores.chunks_exact_mut(positions) {
            softmax(scores, scale);
        }
        let mut at = 0;
        for (_, values) in &pieces {
            for values in values.chunks(4 * dim) {
                let values = T::floats(values, &mut room, widen);
                for (mixed, weights) in mixed.chunks_exact_mut(dim).zip(scores.chunks_exact(positions)) {
                    mix(mixed, values, weights.get(at..).unwrap_or_default());
                }
                at += values.len() / dim;
            }
        }
    }
}

/// Adds up to four values, each with its weight.
#[inline(always)]
fn mix(mixed: &mut [f32], values: &[f32], weights: &[f32]) {
    let dim = mixed.len();
    if let (Some((a, rest)), Some(weights)) = (values.split_at_checked(dim), weights.first_chunk::<4>())
        && let Some((b, rest)) = rest.split_at_checked(dim)
        && let Some((c, d)) = rest.split_at_checked(dim)
        && d.len() == dim
    {
        for ((((mixed, a), b), c), d) in mixed.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *mixed += (weights[0] * a + weights[1] * b) + (weights[2] * c + weights[3] * d);
        }
        return;
    }
    for (value, weight) in values.chunks_exact(dim).zip(weights) {
        for (mixed, value) in mixed.iter_mut().zip(value) {
            *mixed += weight * value;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;
    use candle_nn::ops::softmax_last_dim;

    use super::*;

    const KV_HEADS: usize = 3;

    fn numbers(shape: (usize, usize, usize), seed: usize) -> Tensor {
        let count = shape.0 * shape.1 * shape.2;
        let numbers: Vec<f32> =
            (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    }

    /// With candle's operations.
    fn expected(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Vec<f32> {
        let (heads, _, dim) = queries.dims3().unwrap();
        let stacked = queries.reshape((KV_HEADS, heads / KV_HEADS, dim)).unwrap();
        let scores = (stacked.matmul(&keys.transpose(1, 2).unwrap()).unwrap() / (dim as f64).sqrt()).unwrap();
        softmax_last_dim(&scores).unwrap().matmul(values).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn it_is_attention_wherever_keys_and_values_lie() {
        for (groups, dim, positions) in [(1usize, 8usize, 1usize), (2, 16, 5), (4, 24, 37), (2, 128, 500)] {
            let queries = numbers((KV_HEADS * groups, 1, dim), 1);
            // A pool that is longer than what one request has of it.
            let (keys, values) =
                (numbers((KV_HEADS, 2 * positions, dim), 2), numbers((KV_HEADS, 2 * positions, dim), 3));
            let piece = |from: usize, count: usize| KvPiece {
                keys: keys.narrow(1, from, count).unwrap(),
                values: values.narrow(1, from, count).unwrap(),
            };
            let cut = positions / 3;
            let mut ways = vec![vec![piece(0, positions)]];
            if cut > 0 {
                // The end of the pool first: pieces follow each other in their order, not in the pool's.
                ways.push(vec![piece(2 * positions - cut, cut), piece(1, positions - cut)]);
            }
            for pieces in ways {
                let join = |pieces: Vec<Tensor>| Tensor::cat(&pieces, 1).unwrap().contiguous().unwrap();
                let whole_keys = join(pieces.iter().map(|piece| piece.keys.contiguous().unwrap()).collect());
                let whole_values = join(pieces.iter().map(|piece| piece.values.contiguous().unwrap()).collect());
                let found = |pieces: &[KvPiece]| -> Vec<f32> {
                    attend_one(&queries, pieces).unwrap().flatten_all().unwrap().to_vec1().unwrap()
                };
                let worst = |found: &[f32], expected: &[f32]| {
                    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
                };
                let whole = worst(&found(&pieces), &expected(&queries, &whole_keys, &whole_values));
                assert!(whole < 1e-5, "{groups} groups of {dim} over {positions} in {}: {whole}", pieces.len());
                // The same of what 16 bits hold: only where it lies and how it is read is another thing.
                let halves = |tensor: &Tensor| tensor.to_dtype(DType::F16).unwrap();
                let in_halves: Vec<KvPiece> = pieces
                    .iter()
                    .map(|piece| KvPiece { keys: halves(&piece.keys), values: halves(&piece.values) })
                    .collect();
                let rounded = |tensor: &Tensor| halves(tensor).to_dtype(DType::F32).unwrap();
                let expected = expected(&queries, &rounded(&whole_keys), &rounded(&whole_values));
                let half = worst(&found(&in_halves), &expected);
                assert!(half < 1e-5, "{groups} groups of {dim} over {positions} of 16 bits: {half}");
            }
        }
    }

    #[test]
    fn shapes_that_do_not_belong_together_are_errors() {
        let queries = numbers((6, 1, 8), 1);
        let piece = |heads, dim| KvPiece { keys: numbers((heads, 4, dim), 2), values: numbers((heads, 4, dim), 3) };
        assert!(attend_one(&queries, &[piece(3, 8)]).is_ok());
        assert!(attend_one(&queries, &[]).is_err());
        assert!(attend_one(&queries, &[piece(4, 8)]).is_err());
        assert!(attend_one(&queries, &[piece(3, 16)]).is_err());
        assert!(attend_one(&queries, &[piece(3, 8), piece(2, 8)]).is_err());
        assert!(attend_one(&numbers((6, 2, 8), 1), &[piece(3, 8)]).is_err());
        let half = |tensor: Tensor| tensor.to_dtype(DType::F16).unwrap();
        let KvPiece { keys, values } = piece(3, 8);
        assert!(attend_one(&queries, &[KvPiece { keys: half(keys.clone()), values: values.clone() }]).is_err());
        assert!(attend_one(&queries, &[KvPiece { keys, values: half(values) }]).is_err());
    }
}
