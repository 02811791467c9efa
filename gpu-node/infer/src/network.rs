//! Building networks from checkpoints.

use std::sync::Arc;

use candle_core::quantized::QMatMul;

use crate::config::{DecoderConfig, DecoderFamily, EncoderConfig, NetworkConfig};
use crate::decoder::{Decoder, DecoderWeights, HeadNorms, Layer};
use crate::device::Place;
use crate::encoder::{Encoder, EncoderLayer, EncoderWeights, Norm};
use crate::error::InferError;
use crate::linear::{Linear, TokenTable};
use crate::safetensors_file::SafetensorsFiles;
use crate::speech::{self, Whisper};

/// Loaded weights: immutable and cheap to clone; the text side is not part of them.
#[derive(Clone, Debug)]
pub enum Network {
    /// Tokens to tokens.
    Decoder(Arc<Decoder>),
    /// Tokens to vectors.
    Encoder(Arc<Encoder>),
    /// Recordings to tokens.
    Speech(Arc<Whisper>),
}

impl Network {
    pub(crate) fn from_safetensors(
        config: NetworkConfig,
        files: &SafetensorsFiles,
        place: &Place,
    ) -> Result<Self, InferError> {
        Ok(match config {
            NetworkConfig::Decoder(config) => {
                let weights = decoder_weights(&config, files, place)?;
                Self::Decoder(Arc::new(Decoder::new(config, weights, place.clone())))
            }
            NetworkConfig::Encoder(config) => {
                let weights = encoder_weights(&config, files, place)?;
                Self::Encoder(Arc::new(Encoder::new(config, weights, place.clone())))
            }
            // The processor computes speech, whatever others compute on.
            NetworkConfig::Speech(config) => {
                Self::Speech(Arc::new(speech::load_weights(config, files, &Place::cpu())?))
            }
        })
    }
}

fn decoder_weights(
    config: &DecoderConfig,
    files: &SafetensorsFiles,
    place: &Place,
) -> Result<DecoderWeights, InferError> {
    let table = files.tensor("model.embed_tokens.weight", &[config.vocabulary, config.hidden], place)?;
    let tokens = TokenTable::new(QMatMul::Tensor(table.clone()));
    let output = match config.tied {
        true => Linear::dense(table, None),
        false => files.linear("lm_head", config.hidden, config.vocabulary, false, place)?,
    };
    let layers = (0..config.layers)
        .map(|index| decoder_layer(config, &format!("model.layers.{index}"), files, place))
        .collect::<Result<_, _>>()?;
    Ok(DecoderWeights { tokens, layers, norm: files.tensor("model.norm.weight", &[config.hidden], place)?, output })
}

fn decoder_layer(
    config: &DecoderConfig,
    prefix: &str,
    files: &SafetensorsFiles,
    place: &Place,
) -> Result<Layer, InferError> {
    let linear = |name: &str, inputs, outputs, bias| -> Result<Linear, InferError> {
        files.linear(&format!("{prefix}.{name}"), inputs, outputs, bias, place)
    };
    let norm = |name: &str, size| files.tensor(&format!("{prefix}.{name}.weight"), &[size], place);
    let (hidden, wide) = (config.hidden, config.intermediate);
    let queries = config.heads * config.head_dim;
    let keys = config.kv_heads * config.head_dim;
    let head_norms = match config.family {
        DecoderFamily::Llama => None,
        DecoderFamily::Qwen3 => Some(HeadNorms {
            query: norm("self_attn.q_norm", config.head_dim)?,
            key: norm("self_attn.k_norm", config.head_dim)?,
        }),
    };
    Ok(Layer {
        attention_norm: norm("input_layernorm", hidden)?,
        query: linear("self_attn.q_proj", hidden, queries, config.attention_bias)?,
        key: linear("self_attn.k_proj", hidden, keys, config.attention_bias)?,
        value: linear("self_attn.v_proj", hidden, keys, config.attention_bias)?,
        output: linear("self_attn.o_proj", queries, hidden, config.attention_bias)?,
        head_norms,
        mlp_norm: norm("post_attention_layernorm", hidden)?,
        gate: linear("mlp.gate_proj", hidden, wide, config.mlp_bias)?,
        up: linear("mlp.up_proj", hidden, wide, config.mlp_bias)?,
        down: linear("mlp.down_proj", wide, hidden, config.mlp_bias)?,
    })
}

fn encoder_weights(
    config: &EncoderConfig,
    files: &SafetensorsFiles,
    place: &Place,
) -> Result<EncoderWeights, InferError> {
    // Exports of a bare model have no prefix, those of a model with a head have `bert.`.
    let root = match files.contains("bert.embeddings.word_embeddings.weight") {
        true => "bert.",
        false => "",
    };
    let embedding = |name: &str, rows| {
        let name = format!("{root}embeddings.{name}.weight");
        files.tensor(&name, &[rows, config.hidden], place)
    };
    let types = embedding("token_type_embeddings", config.token_types)?;
    let token_type = types.get(0).map_err(InferError::compute)?;
    let layers = (0..config.layers)
        .map(|index| encoder_layer(config, &format!("{root}encoder.layer.{index}"), files, place))
        .collect::<Result<_, _>>()?;
    Ok(EncoderWeights {
        tokens: TokenTable::new(QMatMul::Tensor(embedding("word_embeddings", config.vocabulary)?)),
        positions: embedding("position_embeddings", config.context)?,
        token_type,
        norm: encoder_norm(config, &format!("{root}embeddings"), files, place)?,
        layers,
    })
}

fn encoder_layer(
    config: &EncoderConfig,
    prefix: &str,
    files: &SafetensorsFiles,
    place: &Place,
) -> Result<EncoderLayer, InferError> {
    let (hidden, wide) = (config.hidden, config.intermediate);
    let linear = |name: &str, inputs, outputs| files.linear(&format!("{prefix}.{name}"), inputs, outputs, true, place);
    let norm = |name: &str| encoder_norm(config, &format!("{prefix}.{name}"), files, place);
    Ok(EncoderLayer {
        query: linear("attention.self.query", hidden, hidden)?,
        key: linear("attention.self.key", hidden, hidden)?,
        value: linear("attention.self.value", hidden, hidden)?,
        output: linear("attention.output.dense", hidden, hidden)?,
        attention_norm: norm("attention.output")?,
        up: linear("intermediate.dense", hidden, wide)?,
        down: linear("output.dense", wide, hidden)?,
        mlp_norm: norm("output")?,
    })
}

fn encoder_norm(
    config: &EncoderConfig,
    prefix: &str,
    files: &SafetensorsFiles,
    place: &Place,
) -> Result<Norm, InferError> {
    let tensor = |part: &str| {
        let name = format!("{prefix}.LayerNorm.{part}");
        files.tensor(&name, &[config.hidden], place)
    };
    Ok(Norm { scale: tensor("weight")?, shift: tensor("bias")? })
}
