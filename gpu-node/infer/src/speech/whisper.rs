//! Whisper's networks (Radford et al., 2022): an encoder that hears a window, and a decoder that writes what was said.
//!
//! The encoder is run layer by layer by whoever owns the computation, since all of it takes long. The decoder keeps keys and
//! values of its tokens in a cache, and those of what was heard in [`Heard`], made once a window.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};

use super::config::{StackConfig, WhisperConfig};
use crate::decoder::{causal_mask, joined};
use crate::kv_cache::{KeyValues, KvCache, KvPiece};
use crate::linear::{Linear, TokenTable};

/// What the published models were trained with.
const NORM_EPS: f32 = 1e-5;

/// Weights of a speech model: immutable, shared by every request.
#[derive(Debug)]
pub struct Whisper {
    pub(crate) config: WhisperConfig,
    pub(crate) device: Device,
    pub(crate) ear: Ear,
    pub(crate) encoder: Vec<Layer>,
    pub(crate) encoder_norm: Norm,
    pub(crate) tokens: TokenTable,
    /// `[context, hidden]`
    pub(crate) positions: Tensor,
    pub(crate) decoder: Vec<DecoderLayer>,
    pub(crate) decoder_norm: Norm,
    /// The token table once more, as the output layer.
    pub(crate) output: Linear,
}

/// From a spectrogram to the rows of the encoder: two convolutions over time, of which the second takes every other place.
#[derive(Debug)]
pub(crate) struct Ear {
    pub(crate) first: Convolution,
    pub(crate) second: Convolution,
    /// `[positions, hidden]`
    pub(crate) positions: Tensor,
}

/// Kernel (`[out, in, 3]`) and bias (`[out]`).
#[derive(Debug)]
pub(crate) struct Convolution {
    pub(crate) kernel: Tensor,
    pub(crate) bias: Tensor,
}

/// What both stacks have in each layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Norm,
    pub(crate) attention: Attention,
    pub(crate) mlp_norm: Norm,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// A layer that also attends to what was heard.
#[derive(Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) own: Layer,
    pub(crate) heard_norm: Norm,
    pub(crate) heard: Attention,
}

#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
}

#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) scale: Tensor,
    pub(crate) shift: Tensor,
}

/// What a window sounds like to each layer of the decoder.
#[derive(Debug)]
pub struct Heard {
    /// Keys and values, `[heads, positions, dim]`.
    layers: Vec<(Tensor, Tensor)>,
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(&x.contiguous()?, &self.scale, &self.shift, NORM_EPS)
    }
}

impl Convolution {
    /// `[1, in, length]` to `[1, out, length / stride]`, with the activation.
    fn apply(&self, x: &Tensor, stride: usize) -> Result<Tensor> {
        let channels = self.bias.dim(0)?;
        let y = x.contiguous()?.conv1d(&self.kernel, 1, stride, 1, 1)?;
        y.broadcast_add(&self.bias.reshape((1, channels, 1))?)?.gelu_erf()
    }
}

impl Attention {
    /// Keys and values of `x`, `[heads, rows, dim]` each.
    fn keys_and_values(&self, x: &Tensor, heads: usize) -> Result<(Tensor, Tensor)> {
        Ok((split(&self.key.forward(x)?, heads)?, split(&self.value.forward(x)?, heads)?))
    }

    /// Rows of `x` attend to these keys and values; `mask` is added to the scores.
    fn attend(
        &self,
        x: &Tensor,
        (keys, values): (&Tensor, &Tensor),
        heads: usize,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let queries = split(&self.query.forward(x)?, heads)?;
        let dim = queries.dim(D::Minus1)?;
        let queries = (queries * (1.0 / (dim as f64).sqrt()))?;
        let scores = queries.matmul(&keys.transpose(1, 2)?)?;
        let scores = match mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let mixed = softmax_last_dim(&scores)?.matmul(&values.contiguous()?)?;
        self.output.forward(&mixed.transpose(0, 1)?.contiguous()?.flatten_from(D::Minus2)?)
    }
}

impl Layer {
    fn mlp(&self, x: Tensor) -> Result<Tensor> {
        let wide = self.up.forward(&self.mlp_norm.apply(&x)?)?.gelu_erf()?;
        x + self.down.forward(&wide)?
    }
}

/// `[rows, heads * dim]` to `[heads, rows, dim]`.
fn split(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    x.reshape((rows, heads, width / heads))?.transpose(0, 1)?.contiguous()
}

impl Whisper {
    /// Longest text of a window with what comes before it, in tokens.
    pub fn context(&self) -> usize {
        self.config.decoder.positions
    }

    /// Number of token ids.
    pub fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    /// Layers of the encoder.
    pub(crate) fn encoder_layers(&self) -> usize {
        self.encoder.len()
    }

    /// Bytes that hearing one window and writing its text need besides weights.
    pub fn scratch_bytes(&self) -> u64 {
        let WhisperConfig { vocabulary, bins, hidden, encoder, decoder } = self.config.clone();
        let positions = encoder.positions;
        // A convolution over a window unfolds it to three times its size.
        let ear = 4 * self.config.window_frames() * (bins + hidden);
        let hearing = 3 * encoder.heads * positions * positions + positions * (8 * hidden + 2 * encoder.intermediate);
        let kept = 2 * decoder.layers * hidden * (positions + 2 * decoder.positions);
        let rows = decoder.positions;
        let writing = 3 * decoder.heads * rows * (positions + rows)
            + rows * (8 * hidden + 2 * decoder.intermediate)
            + 4 * vocabulary;
        ((ear.max(hearing).max(writing) + kept) * size_of::<f32>()) as u64
    }

    /// The rows of a window, `[positions, hidden]`, before the first layer. `mel` has its bins frame after frame, each bin in
    /// one piece.
    ///
    /// # Errors
    /// When the spectrogram is not as long as a window.
    pub(crate) fn listen(&self, mel: Vec<f32>) -> Result<Tensor> {
        let shape = (1, self.config.bins, self.config.window_frames());
        let mel = Tensor::from_vec(mel, shape, &self.device)?;
        let x = self.ear.second.apply(&self.ear.first.apply(&mel, 1)?, 2)?;
        x.squeeze(0)?.transpose(0, 1)?.contiguous()? + &self.ear.positions
    }

    /// Runs one layer of the encoder.
    pub(crate) fn encode_layer(&self, index: usize, x: &Tensor) -> Result<Tensor> {
        let Some(layer) = self.encoder.get(index) else { candle_core::bail!("the encoder has no layer {index}") };
        let StackConfig { heads, .. } = self.config.encoder;
        let normed = layer.attention_norm.apply(x)?;
        let (keys, values) = layer.attention.keys_and_values(&normed, heads)?;
        layer.mlp((x + layer.attention.attend(&normed, (&keys, &values), heads, None)?)?)
    }

    /// The encoder's answer, of the rows behind the last layer.
    pub(crate) fn encoded(&self, x: &Tensor) -> Result<Tensor> {
        self.encoder_norm.apply(x)
    }

    /// Hears a whole window at once: `[positions, hidden]`.
    ///
    /// # Errors
    /// When the spectrogram is not as long as a window, or the device failed.
    pub fn encode(&self, mel: Vec<f32>) -> Result<Tensor> {
        let mut x = self.listen(mel)?;
        for index in 0..self.encoder_layers() {
            x = self.encode_layer(index, &x)?;
        }
        self.encoded(&x)
    }

    /// What the decoder attends to, of the encoder's answer.
    ///
    /// # Errors
    /// When the device failed.
    pub fn heard(&self, encoded: &Tensor) -> Result<Heard> {
        let heads = self.config.decoder.heads;
        let of = |layer: &DecoderLayer| layer.heard.keys_and_values(encoded, heads);
        Ok(Heard { layers: self.decoder.iter().map(of).collect::<Result<_>>()? })
    }

    /// A cache for the tokens of one window.
    pub fn cache(&self) -> KvCache {
        KvCache::new(self.decoder.len(), DType::F32, self.context())
    }

    /// Reads more tokens; the logits after each, `[tokens][vocabulary]`.
    ///
    /// # Errors
    /// When there are no tokens, one is outside the vocabulary, or they do not fit the context. The cache is unchanged then.
    pub fn read(&self, tokens: &[u32], heard: &Heard, cache: &mut KvCache) -> Result<Vec<Vec<f32>>> {
        let (rows, before) = (tokens.len(), cache.len());
        if rows == 0 || before + rows > self.context() {
            candle_core::bail!("{rows} tokens after {before}; {} fit", self.context())
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= self.config.vocabulary) {
            candle_core::bail!("token {id} is outside the vocabulary")
        }
        let heads = self.config.decoder.heads;
        let ids = Tensor::from_vec(tokens.to_vec(), rows, &self.device)?;
        let mut x = (self.tokens.rows(&ids)? + self.positions.narrow(0, before, rows)?)?;
        let mask = match rows {
            1 => None,
            rows => Some(causal_mask(rows, before + rows, &self.device)?),
        };
        for (index, (layer, (heard_keys, heard_values))) in self.decoder.iter().zip(&heard.layers).enumerate() {
            let normed = layer.own.attention_norm.apply(&x)?;
            let (keys, values) = layer.own.attention.keys_and_values(&normed, heads)?;
            let KvPiece { keys, values } = joined(cache.append(index, &keys, &values)?)?;
            x = (x + layer.own.attention.attend(&normed, (&keys, &values), heads, mask.as_ref())?)?;
            let normed = layer.heard_norm.apply(&x)?;
            x = (x + layer.heard.attend(&normed, (heard_keys, heard_values), heads, None)?)?;
            x = layer.own.mlp(x)?;
        }
        let logits = self.output.forward(&self.decoder_norm.apply(&x)?)?.to_vec2()?;
        cache.commit(tokens);
        Ok(logits)
    }
}
