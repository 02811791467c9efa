//! The BERT encoder, over ragged batches without padding.
//!
//! Rows of all texts run through the linear layers together and attention runs per text, so no
//! mask is needed and a text's vector does not depend on its neighbours.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};

use crate::config::{EncoderActivation, EncoderConfig};
use crate::device::Place;
use crate::linear::{Linear, TokenTable};

/// Weights of an encoder: immutable, shared by every request.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    device: Device,
    weights: EncoderWeights,
    /// Last: the tensors are in it.
    _place: Place,
}

/// What a checkpoint must provide.
#[derive(Debug)]
pub(crate) struct EncoderWeights {
    pub(crate) tokens: TokenTable,
    /// `[context, hidden]`
    pub(crate) positions: Tensor,
    /// The vector of token type 0, `[hidden]`.
    pub(crate) token_type: Tensor,
    pub(crate) norm: Norm,
    pub(crate) layers: Vec<EncoderLayer>,
}

#[derive(Debug)]
pub(crate) struct EncoderLayer {
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) attention_norm: Norm,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) mlp_norm: Norm,
}

#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) scale: Tensor,
    pub(crate) shift: Tensor,
}

impl Norm {
    fn apply(&self, x: &Tensor, eps: f32) -> Result<Tensor> {
        layer_norm(&x.contiguous()?, &self.scale, &self.shift, eps)
    }
}

impl Encoder {
    pub(crate) fn new(config: EncoderConfig, weights: EncoderWeights, place: Place) -> Self {
        Self { config, device: place.device().clone(), weights, _place: place }
    }

    /// Longest text, in tokens.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// Number of token ids.
    pub fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    /// Size of a vector.
    pub fn dimensions(&self) -> usize {
        self.config.hidden
    }

    /// Bytes that one forward pass over `rows` tokens needs besides weights, when no text is
    /// longer than `longest`.
    pub fn scratch_bytes(&self, rows: usize, longest: usize) -> u64 {
        let config = &self.config;
        let scores = 3 * config.heads * longest * longest;
        let activations = rows * (8 * config.hidden + 2 * config.intermediate);
        ((scores + activations) * size_of::<f32>()) as u64
    }

    /// Hidden states of each text's tokens, `[tokens, hidden]` a text.
    ///
    /// # Errors
    /// When a text is empty or too long, or a token is outside the vocabulary.
    pub fn hidden(&self, texts: &[&[u32]]) -> Result<Vec<Tensor>> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let mut x = self.embed(texts)?;
        for layer in &self.weights.layers {
            x = self.layer(layer, &x, &lengths)?;
        }
        let mut start = 0;
        lengths
            .iter()
            .map(|length| {
                let rows = x.narrow(0, start, *length);
                start += length;
                rows
            })
            .collect()
    }

    fn embed(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        for text in texts {
            if text.is_empty() || text.len() > self.config.context {
                candle_core::bail!("a text of {} tokens; 1 to {} fit", text.len(), self.config.context)
            }
            ids.extend_from_slice(text);
            positions.extend(0..text.len() as u32);
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.config.vocabulary) {
            candle_core::bail!("token {id} is outside the vocabulary")
        }
        let rows = ids.len();
        let tokens = self.weights.tokens.rows(&Tensor::from_vec(ids, rows, &self.device)?)?;
        let positions = Tensor::from_vec(positions, rows, &self.device)?;
        let positions = self.weights.positions.index_select(&positions, 0)?;
        let sum = (tokens + positions)?.broadcast_add(&self.weights.token_type)?;
        self.weights.norm.apply(&sum, self.config.norm_eps)
    }

    fn layer(&self, layer: &EncoderLayer, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let eps = self.config.norm_eps;
        let mixed = layer.output.forward(&self.attention(layer, x, lengths)?)?;
        let x = layer.attention_norm.apply(&(mixed + x)?, eps)?;
        let wide = layer.up.forward(&x)?;
        let wide = match self.config.activation {
            EncoderActivation::Gelu => wide.gelu_erf()?,
            EncoderActivation::GeluTanh => wide.gelu()?,
            EncoderActivation::Relu => wide.relu()?,
        };
        layer.mlp_norm.apply(&(layer.down.forward(&wide)? + x)?, eps)
    }

    fn attention(&self, layer: &EncoderLayer, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let heads = self.config.heads;
        let dim = self.config.hidden / heads;
        let split = |x: Tensor| -> Result<Tensor> {
            let rows = x.dim(0)?;
            x.reshape((rows, heads, dim))?.transpose(0, 1)?.contiguous()
        };
        let queries = split((layer.query.forward(x)? * (1.0 / (dim as f64).sqrt()))?)?;
        let keys = split(layer.key.forward(x)?)?;
        let values = split(layer.value.forward(x)?)?;
        let mut outputs = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for length in lengths {
            let queries = queries.narrow(1, start, *length)?;
            let keys = keys.narrow(1, start, *length)?;
            let scores = queries.matmul(&keys.transpose(1, 2)?)?;
            let mixed = softmax_last_dim(&scores)?.matmul(&values.narrow(1, start, *length)?)?;
            outputs.push(mixed.transpose(0, 1)?.contiguous()?.flatten_from(D::Minus2)?);
            start += length;
        }
        Tensor::cat(&outputs, 0)
    }
}
