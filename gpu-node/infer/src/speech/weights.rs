//! Building a speech model from a checkpoint.

use candle_core::quantized::QMatMul;

use super::config::{StackConfig, WhisperConfig};
use super::whisper::{Attention, Convolution, DecoderLayer, Ear, Layer, Norm, Whisper};
use crate::device::Place;
use crate::error::InferError;
use crate::linear::{Linear, TokenTable};
use crate::safetensors_file::SafetensorsFiles;

/// Places that a convolution looks at.
const KERNEL: usize = 3;

/// Reads the tensors of one model.
struct Reader<'a> {
    files: &'a SafetensorsFiles,
    place: &'a Place,
    hidden: usize,
}

/// Reads the weights, which have the names that transformers gives them.
pub(crate) fn load(config: WhisperConfig, files: &SafetensorsFiles, place: &Place) -> Result<Whisper, InferError> {
    let reader = Reader { files, place, hidden: config.hidden };
    let table = reader.table("decoder.embed_tokens", config.vocabulary)?;
    let tokens = TokenTable::new(QMatMul::Tensor(table.clone()));
    let StackConfig { layers, intermediate, .. } = config.encoder;
    let encoder = (0..layers).map(|n| reader.layer(&format!("encoder.layers.{n}"), intermediate));
    let encoder = encoder.collect::<Result<_, _>>()?;
    let StackConfig { layers, intermediate, .. } = config.decoder;
    let decoder = (0..layers).map(|n| reader.decoder_layer(&format!("decoder.layers.{n}"), intermediate));
    let decoder = decoder.collect::<Result<_, _>>()?;
    Ok(Whisper {
        ear: Ear {
            first: reader.convolution("encoder.conv1", config.bins)?,
            second: reader.convolution("encoder.conv2", config.hidden)?,
            positions: reader.table("encoder.embed_positions", config.encoder.positions)?,
        },
        encoder,
        encoder_norm: reader.norm("encoder.layer_norm")?,
        output: Linear::dense(table, None),
        tokens,
        positions: reader.table("decoder.embed_positions", config.decoder.positions)?,
        decoder,
        decoder_norm: reader.norm("decoder.layer_norm")?,
        device: place.device().clone(),
        config,
    })
}

impl Reader<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<candle_core::Tensor, InferError> {
        self.files.tensor(&format!("model.{name}"), shape, self.place)
    }

    fn table(&self, name: &str, rows: usize) -> Result<candle_core::Tensor, InferError> {
        self.tensor(&format!("{name}.weight"), &[rows, self.hidden])
    }

    fn norm(&self, name: &str) -> Result<Norm, InferError> {
        let part = |part: &str| self.tensor(&format!("{name}.{part}"), &[self.hidden]);
        Ok(Norm { scale: part("weight")?, shift: part("bias")? })
    }

    fn convolution(&self, name: &str, inputs: usize) -> Result<Convolution, InferError> {
        Ok(Convolution {
            kernel: self.tensor(&format!("{name}.weight"), &[self.hidden, inputs, KERNEL])?,
            bias: self.tensor(&format!("{name}.bias"), &[self.hidden])?,
        })
    }

    fn linear(&self, name: &str, (inputs, outputs): (usize, usize), bias: bool) -> Result<Linear, InferError> {
        self.files.linear(&format!("model.{name}"), inputs, outputs, bias, self.place)
    }

    fn attention(&self, name: &str) -> Result<Attention, InferError> {
        let square = (self.hidden, self.hidden);
        let part = |part: &str, bias| self.linear(&format!("{name}.{part}"), square, bias);
        Ok(Attention {
            query: part("q_proj", true)?,
            // A bias of the keys would add the same to every score of a row, which changes nothing.
            key: part("k_proj", false)?,
            value: part("v_proj", true)?,
            output: part("out_proj", true)?,
        })
    }

    fn layer(&self, name: &str, wide: usize) -> Result<Layer, InferError> {
        Ok(Layer {
            attention_norm: self.norm(&format!("{name}.self_attn_layer_norm"))?,
            attention: self.attention(&format!("{name}.self_attn"))?,
            mlp_norm: self.norm(&format!("{name}.final_layer_norm"))?,
            up: self.linear(&format!("{name}.fc1"), (self.hidden, wide), true)?,
            down: self.linear(&format!("{name}.fc2"), (wide, self.hidden), true)?,
        })
    }

    fn decoder_layer(&self, name: &str, wide: usize) -> Result<DecoderLayer, InferError> {
        Ok(DecoderLayer {
            own: self.layer(name, wide)?,
            heard_norm: self.norm(&format!("{name}.encoder_attn_layer_norm"))?,
            heard: self.attention(&format!("{name}.encoder_attn"))?,
        })
    }
}
