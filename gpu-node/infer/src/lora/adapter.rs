//! The weights of an adapter.

use std::collections::{BTreeMap, HashSet};

use candle_core::{Result, Tensor};

use super::{AdapterFiles, Target};
use crate::config::DecoderConfig;
use crate::device::Place;
use crate::error::InferError;

/// A loaded adapter: immutable, shared by every request of its model.
#[derive(Debug)]
pub struct Adapter {
    digest: [u8; 32],
    bytes: u64,
    rank: usize,
    /// The widest layer that it changes, in and out together.
    widest: usize,
    layers: Vec<BTreeMap<Target, Low>>,
    /// Last: the tensors are in it.
    _place: Place,
}

/// What is added to one linear layer.
#[derive(Debug)]
pub(super) struct Low {
    /// `[rank, inputs]`.
    a: Tensor,
    /// `[outputs, rank]`.
    b: Tensor,
    scale: f64,
}

impl Adapter {
    /// Reads an adapter for a base of this shape. Every tensor that the configuration calls for must be there with the right
    /// shape, and no other.
    pub(crate) fn load(
        files: &AdapterFiles,
        base: &DecoderConfig,
        place: &Place,
    ) -> std::result::Result<Self, InferError> {
        let digest = files.digest()?;
        let config = files.config()?;
        let tensors = files.tensors()?;
        let mut expected = HashSet::new();
        let mut layers = Vec::with_capacity(base.layers);
        for layer in 0..base.layers {
            let mut targets = BTreeMap::new();
            for target in &config.targets {
                let (inputs, outputs) = target.shape(base);
                let (a, b) = (target.tensor(layer, "lora_A"), target.tensor(layer, "lora_B"));
                let low = Low {
                    a: tensors.tensor(&a, &[config.rank, inputs], place)?,
                    b: tensors.tensor(&b, &[outputs, config.rank], place)?,
                    scale: config.scale,
                };
                expected.extend([a, b]);
                targets.insert(*target, low.for_base(*target, base).map_err(InferError::compute)?);
            }
            layers.push(targets);
        }
        let stranger = tensors.names().filter(|name| !expected.contains(*name)).min();
        if let Some(name) = stranger {
            let at = files.at(super::TENSORS_FILE);
            return Err(at.unsupported(format!(
                "tensor `{name}` belongs to no layer of `target_modules` in a base of {} layers",
                base.layers
            )));
        }
        // Equal digests mean equal adapters: what others know of this digest is used for it.
        if files.digest()? != digest {
            return Err(files.at(super::TENSORS_FILE).malformed("it changed while it was read"));
        }
        place.settle()?;
        let widths = config.targets.iter().map(|target| target.shape(base)).map(|(inputs, outputs)| inputs + outputs);
        Ok(Self {
            digest,
            bytes: tensors.resident_bytes(),
            rank: config.rank,
            widest: widths.max().unwrap_or(0),
            layers,
            _place: place.clone(),
        })
    }

    /// Digest of its files: adapters with equal digests are equal.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that it needs beside the base for `rows` of a pass.
    pub(crate) fn scratch_bytes(&self, rows: usize) -> u64 {
        (rows * (self.rank + self.widest) * size_of::<f32>()) as u64
    }

    pub(super) fn low(&self, layer: usize, target: Target) -> Option<&Low> {
        self.layers.get(layer).and_then(|targets| targets.get(&target))
    }
}

impl Low {
    /// What is added for rows of `x`: `s(xA)B`.
    pub(super) fn delta(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.a.t()?)?.matmul(&self.b.t()?)? * self.scale
    }

    /// GGUF stores the rows of llama's queries and keys so that neighbours pair up; adapters are written for halves that do.
    fn for_base(self, target: Target, base: &DecoderConfig) -> Result<Self> {
        let heads = match target {
            Target::Query if base.rope.interleaved => base.heads,
            Target::Key if base.rope.interleaved => base.kv_heads,
            _ => return Ok(self),
        };
        let (outputs, rank) = self.b.dims2()?;
        let halves = self.b.reshape((heads, 2, base.head_dim / 2, rank))?;
        let b = halves.transpose(1, 2)?.contiguous()?.reshape((outputs, rank))?;
        Ok(Self { b, ..self })
    }
}
