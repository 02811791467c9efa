//! The shape of a Whisper model, read from `config.json` and checked once.

use serde::Deserialize;

use super::mel::FRAMES_A_POSITION;
use crate::error::{FileContext, InferError};

const MAX_LAYERS: usize = 128;
const MAX_WIDTH: usize = 1 << 14;
const MAX_VOCABULARY: usize = 1 << 20;
/// Most positions that a window has: two minutes.
const MAX_POSITIONS: usize = 6_000;
const MAX_BINS: usize = 512;

/// Shape of a speech model; every number is in its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WhisperConfig {
    pub(crate) vocabulary: usize,
    /// Bins of the mel spectrogram.
    pub(crate) bins: usize,
    pub(crate) hidden: usize,
    pub(crate) encoder: StackConfig,
    pub(crate) decoder: StackConfig,
}

/// One of its two stacks of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StackConfig {
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) positions: usize,
}

#[derive(Deserialize)]
struct Raw {
    vocab_size: Option<usize>,
    num_mel_bins: Option<usize>,
    d_model: Option<usize>,
    encoder_layers: Option<usize>,
    encoder_attention_heads: Option<usize>,
    encoder_ffn_dim: Option<usize>,
    max_source_positions: Option<usize>,
    decoder_layers: Option<usize>,
    decoder_attention_heads: Option<usize>,
    decoder_ffn_dim: Option<usize>,
    max_target_positions: Option<usize>,
    activation_function: Option<String>,
    scale_embedding: Option<bool>,
}

impl WhisperConfig {
    /// Parses and checks a `config.json` whose `model_type` is `whisper`.
    pub(crate) fn parse(bytes: &[u8], at: &FileContext) -> Result<Self, InferError> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| at.malformed(e))?;
        if !matches!(raw.activation_function.as_deref(), None | Some("gelu")) {
            return Err(at.unsupported("only the activation `gelu` is supported"));
        }
        if raw.scale_embedding == Some(true) {
            return Err(at.unsupported("scaled embeddings are not supported"));
        }
        let of = |name: &str, value: Option<usize>, most: usize| match value {
            None => Err(at.malformed(format!("`{name}` is missing"))),
            Some(value) if value == 0 || value > most => {
                Err(at.malformed(format!("`{name}` is {value}, must be 1 to {most}")))
            }
            Some(value) => Ok(value),
        };
        let hidden = of("d_model", raw.d_model, MAX_WIDTH)?;
        let config = Self {
            vocabulary: of("vocab_size", raw.vocab_size, MAX_VOCABULARY)?,
            bins: of("num_mel_bins", raw.num_mel_bins, MAX_BINS)?,
            hidden,
            encoder: StackConfig {
                layers: of("encoder_layers", raw.encoder_layers, MAX_LAYERS)?,
                heads: of("encoder_attention_heads", raw.encoder_attention_heads, hidden)?,
                intermediate: of("encoder_ffn_dim", raw.encoder_ffn_dim, MAX_WIDTH)?,
                positions: of("max_source_positions", raw.max_source_positions, MAX_POSITIONS)?,
            },
            decoder: StackConfig {
                layers: of("decoder_layers", raw.decoder_layers, MAX_LAYERS)?,
                heads: of("decoder_attention_heads", raw.decoder_attention_heads, hidden)?,
                intermediate: of("decoder_ffn_dim", raw.decoder_ffn_dim, MAX_WIDTH)?,
                positions: of("max_target_positions", raw.max_target_positions, MAX_POSITIONS)?,
            },
        };
        if !hidden.is_multiple_of(config.encoder.heads) || !hidden.is_multiple_of(config.decoder.heads) {
            return Err(at.malformed("attention heads do not divide `d_model`"));
        }
        Ok(config)
    }

    /// Frames of the spectrogram that it hears at a time: 3000, which are 30 seconds, of the published models.
    pub(crate) fn window_frames(&self) -> usize {
        self.encoder.positions * FRAMES_A_POSITION
    }
}
