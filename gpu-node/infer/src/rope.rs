//! Rotary position embedding (Su et al., 2021) with the scalings that llama models use.
//!
//! Angles are computed for the positions of each forward pass: a few hundred sines cost less than
//! one layer, and a long context needs no table.

use candle_core::{Device, Tensor};

use crate::error::{FileContext, InferError};

/// How positions turn into angles.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeConfig {
    pub(crate) theta: f32,
    pub(crate) scaling: RopeScaling,
    /// GGUF stores llama's heads so that neighbours pair up; elsewhere halves pair up.
    pub(crate) interleaved: bool,
    pub(crate) head_dim: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RopeScaling {
    None,
    Linear(f32),
    Llama3 {
        factor: f32,
        low: f32,
        high: f32,
        original_context: usize,
    },
    /// Divisors per frequency, as GGUF's `rope_freqs.weight` has them.
    Divisors(Vec<f32>),
}

impl RopeConfig {
    pub(crate) fn check(&self, at: &FileContext) -> Result<(), InferError> {
        let positive = |x: f32| x.is_finite() && x > 0.0;
        let sound = positive(self.theta)
            && match &self.scaling {
                RopeScaling::None => true,
                RopeScaling::Linear(factor) => positive(*factor),
                RopeScaling::Llama3 { factor, low, high, original_context } => {
                    positive(*factor) && positive(*low) && *high > *low && *original_context > 0
                }
                RopeScaling::Divisors(divisors) => {
                    divisors.len() == self.head_dim / 2 && divisors.iter().all(|d| positive(*d))
                }
            };
        if sound { Ok(()) } else { Err(at.malformed("the rotary embedding's parameters are out of range")) }
    }
}

/// Inverse frequencies of one model.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    inverse_frequencies: Vec<f32>,
    interleaved: bool,
}

/// Cosines and sines of the rows of one forward pass, each of shape `[rows, head_dim / 2]`.
pub(crate) struct Angles {
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
}

impl Rope {
    pub(crate) fn new(config: &RopeConfig) -> Self {
        let dim = config.head_dim;
        let base = (0..dim).step_by(2).map(|i| 1.0 / config.theta.powf(i as f32 / dim as f32));
        let inverse_frequencies = match &config.scaling {
            RopeScaling::None => base.collect(),
            RopeScaling::Linear(factor) => base.map(|f| f / factor).collect(),
            RopeScaling::Divisors(divisors) => base.zip(divisors).map(|(f, d)| f / d).collect(),
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                base.map(|f| llama3(f, *factor, *low, *high, *original_context as f32)).collect()
            }
        };
        Self { inverse_frequencies, interleaved: config.interleaved }
    }

    pub(crate) fn angles(&self, positions: &[usize], device: &Device) -> candle_core::Result<Angles> {
        let half = self.inverse_frequencies.len();
        let mut cos = Vec::with_capacity(positions.len() * half);
        let mut sin = Vec::with_capacity(positions.len() * half);
        for position in positions {
            for frequency in &self.inverse_frequencies {
                let (s, c) = (*position as f32 * frequency).sin_cos();
                cos.push(c);
                sin.push(s);
            }
        }
        let shape = (positions.len(), half);
        Ok(Angles {
            cos: Tensor::from_vec(cos, shape, device)?,
            sin: Tensor::from_vec(sin, shape, device)?,
            interleaved: self.interleaved,
        })
    }
}

impl Angles {
    /// The same as [`rotate`](Self::rotate), and lets gradients pass, which the fused operation drops without a word.
    pub(crate) fn rotate_tracked(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if self.interleaved {
            candle_nn::rotary_emb::rope_i_slow(x, &self.cos, &self.sin)
        } else {
            candle_nn::rotary_emb::rope_slow(x, &self.cos, &self.sin)
        }
    }

    /// Rotates `x` of shape `[1, heads, rows, head_dim]`.
    pub(crate) fn rotate(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = x.contiguous()?;
        if self.interleaved {
            candle_nn::rotary_emb::rope_i(&x, &self.cos, &self.sin)
        } else {
            candle_nn::rotary_emb::rope(&x, &self.cos, &self.sin)
        }
    }
}

/// Llama 3.1's rule: long wavelengths are stretched, short ones kept, the middle blended.
fn llama3(frequency: f32, factor: f32, low: f32, high: f32, original_context: f32) -> f32 {
    let wavelength = 2.0 * std::f32::consts::PI / frequency;
    if wavelength < original_context / high {
        frequency
    } else if wavelength > original_context / low {
        frequency / factor
    } else {
        let smooth = (original_context / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
