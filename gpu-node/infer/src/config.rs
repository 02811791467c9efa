//! Shapes of networks, read from `config.json` and checked once.
//!
//! Everything later trusts these numbers: no zero sizes, heads that divide, and bounds that keep a
//! hostile file from asking for absurd allocations.

use serde::Deserialize;

use crate::error::{FileContext, InferError};
use crate::rope::{RopeConfig, RopeScaling};
use crate::speech::WhisperConfig;

const MAX_LAYERS: usize = 512;
const MAX_WIDTH: usize = 1 << 18;
const MAX_VOCABULARY: usize = 1 << 22;
/// Longest context that a configuration may claim, in tokens.
const MAX_CONTEXT: usize = 1 << 22;

/// Family of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecoderFamily {
    Llama,
    Qwen3,
}

impl DecoderFamily {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// Shape of a causal decoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DecoderConfig {
    pub(crate) family: DecoderFamily,
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) context: usize,
    pub(crate) norm_eps: f32,
    pub(crate) rope: RopeConfig,
    pub(crate) tied: bool,
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
    /// Tokens that end an answer.
    pub(crate) end_tokens: Vec<u32>,
}

/// Shape of a BERT encoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EncoderConfig {
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) context: usize,
    pub(crate) token_types: usize,
    pub(crate) norm_eps: f32,
    pub(crate) activation: EncoderActivation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncoderActivation {
    Gelu,
    GeluTanh,
    Relu,
}

/// Shape of a network of a `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NetworkConfig {
    Decoder(DecoderConfig),
    Encoder(EncoderConfig),
    Speech(WhisperConfig),
}

impl NetworkConfig {
    /// Parses and checks a `config.json`.
    pub(crate) fn parse(bytes: &[u8], at: &FileContext) -> Result<Self, InferError> {
        let raw: RawConfig = serde_json::from_slice(bytes).map_err(|e| at.malformed(e))?;
        match raw.model_type.as_deref() {
            Some("llama") => raw.decoder(DecoderFamily::Llama, at).map(Self::Decoder),
            Some("qwen3") => raw.decoder(DecoderFamily::Qwen3, at).map(Self::Decoder),
            Some("bert") => raw.encoder(at).map(Self::Encoder),
            Some("whisper") => WhisperConfig::parse(bytes, at).map(Self::Speech),
            Some(other) => Err(at
                .unsupported(format!("model_type `{other}` is not supported; supported: bert, llama, qwen3, whisper"))),
            None => Err(at.malformed("`model_type` is missing")),
        }
    }
}

/// `eos_token_id` is a number or a list of numbers.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    rope_theta: Option<f32>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_sliding_window: Option<bool>,
    type_vocab_size: Option<usize>,
    position_embedding_type: Option<String>,
    eos_token_id: Option<TokenIds>,
}

#[derive(Clone, Deserialize)]
struct RawRope {
    rope_theta: Option<f32>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
}

impl RawConfig {
    fn decoder(self, family: DecoderFamily, at: &FileContext) -> Result<DecoderConfig, InferError> {
        if self.use_sliding_window == Some(true) {
            return Err(at.unsupported("sliding-window attention is not supported"));
        }
        match self.hidden_act.as_deref() {
            None | Some("silu" | "swish") => {}
            Some(other) => {
                return Err(at.unsupported(format!("activation `{other}` is not supported")));
            }
        }
        let hidden = required(self.hidden_size, "hidden_size", at)?;
        let heads = required(self.num_attention_heads, "num_attention_heads", at)?;
        let head_dim = match self.head_dim {
            Some(dim) => dim,
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        let config = DecoderConfig {
            family,
            vocabulary: required(self.vocab_size, "vocab_size", at)?,
            hidden,
            intermediate: required(self.intermediate_size, "intermediate_size", at)?,
            layers: required(self.num_hidden_layers, "num_hidden_layers", at)?,
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim,
            context: required(self.max_position_embeddings, "max_position_embeddings", at)?,
            norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope: self.rope(head_dim, at)?,
            tied: self.tie_word_embeddings.unwrap_or(false),
            attention_bias: self.attention_bias.unwrap_or(false),
            mlp_bias: self.mlp_bias.unwrap_or(false),
            end_tokens: self.eos_token_id.clone().map_or_else(Vec::new, TokenIds::into_vec),
        };
        config.check(at)?;
        Ok(config)
    }

    fn rope(&self, head_dim: usize, at: &FileContext) -> Result<RopeConfig, InferError> {
        let raw = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = raw.and_then(|rope| rope.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let scaling = match raw.and_then(|rope| Some((rope, rope.rope_type.as_deref()?))) {
            None | Some((_, "default")) => RopeScaling::None,
            Some((rope, "linear")) => RopeScaling::Linear(required(rope.factor, "rope factor", at)?),
            Some((rope, "llama3")) => RopeScaling::Llama3 {
                factor: required(rope.factor, "rope factor", at)?,
                low: required(rope.low_freq_factor, "low_freq_factor", at)?,
                high: required(rope.high_freq_factor, "high_freq_factor", at)?,
                original_context: required(
                    rope.original_max_position_embeddings,
                    "original_max_position_embeddings",
                    at,
                )?,
            },
            Some((_, other)) => {
                return Err(
                    at.unsupported(format!("rope type `{other}` is not supported; supported: default, linear, llama3"))
                );
            }
        };
        Ok(RopeConfig { theta, scaling, interleaved: false, head_dim })
    }

    fn encoder(self, at: &FileContext) -> Result<EncoderConfig, InferError> {
        if !matches!(self.position_embedding_type.as_deref(), None | Some("absolute")) {
            return Err(at.unsupported("only absolute position embeddings are supported"));
        }
        let activation = match self.hidden_act.as_deref() {
            None | Some("gelu") => EncoderActivation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => EncoderActivation::GeluTanh,
            Some("relu") => EncoderActivation::Relu,
            Some(other) => {
                return Err(at.unsupported(format!("activation `{other}` is not supported")));
            }
        };
        let config = EncoderConfig {
            vocabulary: required(self.vocab_size, "vocab_size", at)?,
            hidden: required(self.hidden_size, "hidden_size", at)?,
            intermediate: required(self.intermediate_size, "intermediate_size", at)?,
            layers: required(self.num_hidden_layers, "num_hidden_layers", at)?,
            heads: required(self.num_attention_heads, "num_attention_heads", at)?,
            context: required(self.max_position_embeddings, "max_position_embeddings", at)?,
            token_types: self.type_vocab_size.unwrap_or(2),
            norm_eps: self.layer_norm_eps.unwrap_or(1e-12),
            activation,
        };
        config.check(at)?;
        Ok(config)
    }
}

impl DecoderConfig {
    /// Checks sizes against each other and against the bounds.
    pub(crate) fn check(&self, at: &FileContext) -> Result<(), InferError> {
        bounded("layers", self.layers, MAX_LAYERS, at)?;
        bounded("vocabulary", self.vocabulary, MAX_VOCABULARY, at)?;
        bounded("hidden size", self.hidden, MAX_WIDTH, at)?;
        bounded("intermediate size", self.intermediate, MAX_WIDTH, at)?;
        bounded("attention heads", self.heads, MAX_WIDTH, at)?;
        bounded("key/value heads", self.kv_heads, self.heads, at)?;
        bounded("head size", self.head_dim, MAX_WIDTH, at)?;
        bounded("attention width", self.heads * self.head_dim, MAX_WIDTH, at)?;
        bounded("context", self.context, MAX_CONTEXT, at)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(at.malformed("key/value heads do not divide attention heads"));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(at.malformed("the head size is odd"));
        }
        self.rope.check(at)
    }
}

impl EncoderConfig {
    fn check(&self, at: &FileContext) -> Result<(), InferError> {
        bounded("layers", self.layers, MAX_LAYERS, at)?;
        bounded("vocabulary", self.vocabulary, MAX_VOCABULARY, at)?;
        bounded("hidden size", self.hidden, MAX_WIDTH, at)?;
        bounded("intermediate size", self.intermediate, MAX_WIDTH, at)?;
        bounded("attention heads", self.heads, self.hidden, at)?;
        bounded("context", self.context, MAX_CONTEXT, at)?;
        bounded("token types", self.token_types, MAX_VOCABULARY, at)?;
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(at.malformed("attention heads do not divide the hidden size"));
        }
        Ok(())
    }
}

fn required<T>(value: Option<T>, name: &str, at: &FileContext) -> Result<T, InferError> {
    value.ok_or_else(|| at.malformed(format!("`{name}` is missing")))
}

fn bounded(what: &str, value: usize, most: usize, at: &FileContext) -> Result<(), InferError> {
    if value == 0 || value > most {
        return Err(at.malformed(format!("{what} is {value}, must be 1 to {most}")));
    }
    Ok(())
}
