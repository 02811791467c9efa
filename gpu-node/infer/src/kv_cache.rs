//! Keys and values of one request: what a forward pass needs of them, and the plain form.

use candle_core::{DType, Device, Result, Tensor};

use crate::kernels::kept_as;

/// Positions are allocated in steps of this many, then by doubling.
const FIRST_POSITIONS: usize = 64;

/// Keys and values of some positions, each `[kv_heads, positions, head_dim]`.
#[derive(Clone, Debug)]
pub struct KvPiece {
    /// What later positions compare themselves with.
    pub keys: Tensor,
    /// What they take over.
    pub values: Tensor,
}

/// The keys and values of one request, as a forward pass uses them.
///
/// A pass writes every layer at the same position and only then moves the position on: after a
/// failure in the middle the cache still describes the state before the pass.
pub trait KeyValues {
    /// Positions held.
    fn len(&self) -> usize;

    /// True before the first forward pass.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes new positions of a layer (`[kv_heads, new, head_dim]`, `f32`) and returns all `len + new` of them: in one piece where
    /// several are new, in order and as they lie where one is; as they are kept, of 16 or 32 bits.
    ///
    /// # Errors
    /// When they do not fit, or the device failed.
    fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<Vec<KvPiece>>;

    /// Moves on after a forward pass over `tokens`.
    fn commit(&mut self, tokens: &[u32]);
}

/// Keys and values in one piece that grows by copying: for a request that has no pool.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<LayerCache>>,
    dtype: DType,
    len: usize,
    limit: usize,
}

#[derive(Debug)]
struct LayerCache {
    keys: Tensor,
    values: Tensor,
}

impl KvCache {
    /// An empty cache for at most `limit` positions, kept as `dtype`: `f32`, or on the processor `f16`.
    pub(crate) fn new(layers: usize, dtype: DType, limit: usize) -> Self {
        Self { layers: (0..layers).map(|_| None).collect(), dtype, len: 0, limit }
    }
}

impl KeyValues for KvCache {
    fn len(&self) -> usize {
        self.len
    }

    fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<Vec<KvPiece>> {
        let (heads, new, dim) = keys.dims3()?;
        let needed = self.len + new;
        if needed > self.limit {
            candle_core::bail!("{needed} positions do not fit a cache of {}", self.limit)
        }
        let (keys, values) = (kept_as(keys, self.dtype)?, kept_as(values, self.dtype)?);
        let (dtype, len, limit) = (self.dtype, self.len, self.limit);
        let Some(slot) = self.layers.get_mut(layer) else { candle_core::bail!("the cache has no layer {layer}") };
        let held = slot.as_ref().map_or(0, |cache| cache.keys.dims()[1]);
        if held < needed {
            let room = needed.max(held * 2).max(FIRST_POSITIONS).min(limit);
            *slot = Some(LayerCache {
                keys: grown(slot.as_ref().map(|c| &c.keys), (heads, room, dim), dtype, len, keys.device())?,
                values: grown(slot.as_ref().map(|c| &c.values), (heads, room, dim), dtype, len, values.device())?,
            });
        }
        let Some(cache) = slot else { candle_core::bail!("the cache of layer {layer} was not allocated") };
        cache.keys.slice_set(&keys.contiguous()?, 1, len)?;
        cache.values.slice_set(&values.contiguous()?, 1, len)?;
        Ok(vec![KvPiece { keys: cache.keys.narrow(1, 0, needed)?, values: cache.values.narrow(1, 0, needed)? }])
    }

    fn commit(&mut self, tokens: &[u32]) {
        self.len += tokens.len();
    }
}

/// A larger tensor that begins with the first `len` positions of `old`.
fn grown(
    old: Option<&Tensor>,
    shape: (usize, usize, usize),
    dtype: DType,
    len: usize,
    device: &Device,
) -> Result<Tensor> {
    let new = Tensor::zeros(shape, dtype, device)?;
    if let Some(old) = old.filter(|_| len > 0) {
        new.slice_set(&old.narrow(1, 0, len)?.contiguous()?, 1, 0)?;
    }
    Ok(new)
}
