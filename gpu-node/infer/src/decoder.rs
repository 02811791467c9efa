//! The causal decoder of the llama family, over ragged batches.
//!
//! One forward pass takes segments of several requests: the linear layers run over all rows at
//! once, attention runs per segment against that request's own cache, in one piece or in blocks. A prompt chunk and single
//! decoding steps are the same operation, so decoding is batched without padding. llama and qwen3
//! differ by qwen3's norms on queries and keys; dense and quantised weights differ only inside
//! [`Linear`].

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};

use crate::config::DecoderConfig;
use crate::device::Place;
use crate::error::InferError;
use crate::kernels;
use crate::kv_cache::{KeyValues, KvCache, KvPiece};
use crate::linear::{Linear, TokenTable};
use crate::lora::{Adapted, Adapter, Target};
use crate::paged::{BLOCK_POSITIONS, KvPool, KvShape};
use crate::rope::{Angles, Rope};

/// Weights of a decoder: immutable, shared by every request.
#[derive(Debug)]
pub struct Decoder {
    pub(crate) config: DecoderConfig,
    pub(crate) device: Device,
    pub(crate) rope: Rope,
    pub(crate) tokens: TokenTable,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Tensor,
    pub(crate) output: Linear,
    /// Last: the tensors are in it.
    place: Place,
}

/// The next tokens of one request and its cache.
pub struct Segment<'a> {
    /// Follow the positions already in `cache`.
    pub tokens: &'a [u32],
    /// The request's own.
    pub cache: &'a mut dyn KeyValues,
}

/// What a checkpoint must provide for one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Tensor,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) head_norms: Option<HeadNorms>,
    pub(crate) mlp_norm: Tensor,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// qwen3 normalises each head's queries and keys.
#[derive(Debug)]
pub(crate) struct HeadNorms {
    pub(crate) query: Tensor,
    pub(crate) key: Tensor,
}

/// What a checkpoint must provide outside the layers.
pub(crate) struct DecoderWeights {
    pub(crate) tokens: TokenTable,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Tensor,
    pub(crate) output: Linear,
}

impl Decoder {
    pub(crate) fn new(config: DecoderConfig, weights: DecoderWeights, place: Place) -> Self {
        Self {
            rope: Rope::new(&config.rope),
            config,
            device: place.device().clone(),
            tokens: weights.tokens,
            layers: weights.layers,
            norm: weights.norm,
            output: weights.output,
            place,
        }
    }

    /// Longest context, in tokens.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// Number of token ids.
    pub fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    /// Memory for the requests of this model, as many blocks as fit `capacity_bytes`.
    ///
    /// # Errors
    /// [`InferError::OutOfMemory`] when the device has not so much.
    pub fn kv_pool(&self, capacity_bytes: u64) -> std::result::Result<KvPool, InferError> {
        KvPool::new(self.kv_shape(), capacity_bytes, &self.place).map_err(|error| InferError::of_device(&error))
    }

    /// Bytes that a pool needs for one request of `positions`.
    pub fn kv_bytes(&self, positions: usize) -> u64 {
        self.kv_shape().block_bytes() * positions.div_ceil(BLOCK_POSITIONS) as u64
    }

    fn kv_shape(&self) -> KvShape {
        let DecoderConfig { layers, kv_heads, head_dim, .. } = self.config;
        KvShape { layers, kv_heads, head_dim, dtype: self.kv_dtype() }
    }

    /// How keys and values are kept. Where weights that make them are rounded to fewer bits, 16 take nothing from them and half
    /// the time to read; computed with are 32.
    fn kv_dtype(&self) -> DType {
        let is_rounded = |layer: &Layer| layer.key.is_rounded() && layer.value.is_rounded();
        if self.device.is_cpu() && self.layers.iter().all(is_rounded) { DType::F16 } else { DType::F32 }
    }

    /// A cache in one piece for one request of at most `positions`.
    pub fn cache(&self, positions: usize) -> KvCache {
        KvCache::new(self.config.layers, self.kv_dtype(), positions.min(self.config.context))
    }

    /// Bytes that one forward pass over `rows` new positions of a context of `positions` needs
    /// besides weights and cache: attention scores and the widest activations.
    pub fn scratch_bytes(&self, rows: usize, positions: usize) -> u64 {
        let config = &self.config;
        let scores = 3 * config.heads * positions;
        let activations = 4 * config.hidden + 3 * config.intermediate;
        let floats = rows * (scores + activations) + config.vocabulary;
        (floats * size_of::<f32>()) as u64
    }

    /// Runs all segments; returns the logits after each one's last token, `[segments][vocabulary]`.
    ///
    /// # Errors
    /// When a segment is empty, a token is outside the vocabulary, or a cache is full. Caches are
    /// unchanged then.
    pub fn forward(&self, segments: &mut [Segment<'_>]) -> Result<Vec<Vec<f32>>> {
        self.forward_with(segments, &[])
    }

    /// The same, each segment with an adapter of its own or none. `adapters` may be shorter: the rest have none. Rows without
    /// one are computed as if there were no adapters.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); and when an adapter was read for a model of another shape.
    pub fn forward_with(&self, segments: &mut [Segment<'_>], adapters: &[Option<&Adapter>]) -> Result<Vec<Vec<f32>>> {
        let hidden = self.hidden(segments, adapters)?;
        let mut last = Vec::with_capacity(segments.len());
        let mut rows = 0u32;
        for segment in segments.iter() {
            rows += segment.tokens.len() as u32;
            last.push(rows - 1);
        }
        let last = Tensor::from_vec(last, segments.len(), &self.device)?;
        let logits = self.logits(&hidden.index_select(&last, 0)?)?;
        commit(segments);
        logits.to_vec2()
    }

    /// Runs one segment; returns the logits after every token, `[tokens][vocabulary]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_all(&self, segment: Segment<'_>) -> Result<Vec<Vec<f32>>> {
        let mut segments = [segment];
        let hidden = self.hidden(&mut segments, &[])?;
        let logits = self.logits(&hidden)?;
        commit(&mut segments);
        logits.to_vec2()
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let normed = rms_norm(&hidden.contiguous()?, &self.norm, self.config.norm_eps)?;
        self.output.forward(&normed)?.to_dtype(DType::F32)
    }

    /// Hidden states of all rows, `[rows, hidden]`, before the last norm.
    fn hidden(&self, segments: &mut [Segment<'_>], adapters: &[Option<&Adapter>]) -> Result<Tensor> {
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        for segment in segments.iter() {
            if segment.tokens.is_empty() {
                candle_core::bail!("an empty segment")
            }
            ids.extend_from_slice(segment.tokens);
            let start = segment.cache.len();
            positions.extend(start..start + segment.tokens.len());
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.config.vocabulary) {
            candle_core::bail!("token {id} is outside the vocabulary")
        }
        let angles = self.rope.angles(&positions, &self.device)?;
        let rows = ids.len();
        let lengths: Vec<usize> = segments.iter().map(|segment| segment.tokens.len()).collect();
        let adapted = Adapted::new(&lengths, adapters, &self.device)?;
        let ids = Tensor::from_vec(ids, rows, &self.device)?;
        let mut x = self.tokens.rows(&ids)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm(&x, &layer.attention_norm, self.config.norm_eps)?;
            x = (x + self.attention(index, layer, &normed, &angles, &adapted, segments)?)?;
            let normed = rms_norm(&x, &layer.mlp_norm, self.config.norm_eps)?;
            let [gate, up] = Linear::together([&layer.gate, &layer.up], &normed)?;
            let gate = adapted.add(index, Target::Gate, &normed, gate)?;
            let up = adapted.add(index, Target::Up, &normed, up)?;
            let gated = if self.device.is_cpu() {
                kernels::gate(&gate, &up)?;
                gate
            } else {
                (silu(&gate)? * up)?
            };
            x = (x + adapted.add(index, Target::Down, &gated, layer.down.forward(&gated)?)?)?;
        }
        Ok(x)
    }

    fn attention(
        &self,
        index: usize,
        layer: &Layer,
        x: &Tensor,
        angles: &Angles,
        adapted: &Adapted<'_>,
        segments: &mut [Segment<'_>],
    ) -> Result<Tensor> {
        let config = &self.config;
        let norms = layer.head_norms.as_ref();
        let [queries, keys, values] = Linear::together([&layer.query, &layer.key, &layer.value], x)?;
        let queries = adapted.add(index, Target::Query, x, queries)?;
        let keys = adapted.add(index, Target::Key, x, keys)?;
        let values = adapted.add(index, Target::Value, x, values)?;
        let queries = self.split(queries, config.heads, norms.map(|n| &n.query))?;
        let keys = self.split(keys, config.kv_heads, norms.map(|n| &n.key))?;
        let values = self.split(values, config.kv_heads, None)?;
        let queries = angles.rotate(&queries.unsqueeze(0)?)?.squeeze(0)?;
        let keys = angles.rotate(&keys.unsqueeze(0)?)?.squeeze(0)?;

        let mut outputs = Vec::with_capacity(segments.len());
        let mut start = 0;
        for segment in segments.iter_mut() {
            let rows = segment.tokens.len();
            let held = segment.cache.append(index, &keys.narrow(1, start, rows)?, &values.narrow(1, start, rows)?)?;
            let queries = queries.narrow(1, start, rows)?;
            outputs.push(if rows == 1 && self.device.is_cpu() {
                kernels::attend_one(&queries, &held)?
            } else {
                let KvPiece { keys, values } = joined(held)?;
                self.attend(&queries, &kernels::kept_as(&keys, DType::F32)?, &kernels::kept_as(&values, DType::F32)?)?
            });
            start += rows;
        }
        let mixed = match outputs.as_slice() {
            [one] => one.clone(),
            many => Tensor::cat(many, 0)?,
        };
        adapted.add(index, Target::Output, &mixed, layer.output.forward(&mixed)?)
    }

    /// `[rows, heads * dim]` to `[heads, rows, dim]`, normalised per head where the model does so.
    fn split(&self, x: Tensor, heads: usize, norm: Option<&Tensor>) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let x = x.reshape((rows, heads, self.config.head_dim))?;
        let x = match norm {
            Some(norm) => rms_norm(&x.contiguous()?, norm, self.config.norm_eps)?,
            None => x,
        };
        x.transpose(0, 1)
    }

    /// Causal attention of the last rows over everything before them; `[rows, heads * dim]`.
    ///
    /// Heads that share keys are stacked as rows of one product, so keys are never repeated.
    fn attend(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let config = &self.config;
        let (heads, rows, dim) = queries.dims3()?;
        let groups = heads / config.kv_heads;
        let scale = 1.0 / (dim as f64).sqrt();
        let stacked = (config.kv_heads, groups * rows, dim);
        let keys = keys.transpose(1, 2)?;
        let weights = if self.device.is_cpu() {
            let scores = queries.contiguous()?.reshape(stacked)?.matmul(&keys)?;
            kernels::causal_softmax(&scores, rows, scale as f32)?;
            scores
        } else {
            let positions = keys.dim(2)?;
            let scores = (queries.contiguous()? * scale)?.reshape(stacked)?.matmul(&keys)?;
            let mask = causal_mask(rows, positions, &self.device)?;
            let masked = scores.reshape((heads, rows, positions))?.broadcast_add(&mask)?;
            softmax_last_dim(&masked)?.reshape((config.kv_heads, groups * rows, positions))?
        };
        let mixed = weights.matmul(values)?;
        mixed.reshape((heads, rows, dim))?.transpose(0, 1)?.contiguous()?.flatten_from(D::Minus2)
    }
}

fn commit(segments: &mut [Segment<'_>]) {
    for segment in segments {
        segment.cache.commit(segment.tokens);
    }
}

/// One piece of all.
pub(crate) fn joined(mut pieces: Vec<KvPiece>) -> Result<KvPiece> {
    if pieces.len() == 1
        && let Some(one) = pieces.pop()
    {
        return Ok(one);
    }
    let (keys, values): (Vec<Tensor>, Vec<Tensor>) = pieces.into_iter().map(|piece| (piece.keys, piece.values)).unzip();
    Ok(KvPiece { keys: Tensor::cat(&keys, 1)?, values: Tensor::cat(&values, 1)? })
}

/// 0 where a row may look, minus infinity where it may not: `[rows, positions]`.
pub(crate) fn causal_mask(rows: usize, positions: usize, device: &Device) -> Result<Tensor> {
    let before = positions - rows;
    let mask: Vec<f32> = (0..rows)
        .flat_map(|row| {
            (0..positions).map(move |position| if position <= before + row { 0.0 } else { f32::NEG_INFINITY })
        })
        .collect();
    Tensor::from_vec(mask, (rows, positions), device)
}
