//! What is trained.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::config::DecoderConfig;
use crate::lora::Target;

/// The adapter in the making: for each layer and target a pair of variables.
pub(super) struct Variables {
    pairs: BTreeMap<(usize, Target), Pair>,
    scale: f64,
}

struct Pair {
    /// `[rank, inputs]`.
    a: Var,
    /// `[outputs, rank]`.
    b: Var,
}

/// How B begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Zero: the adapter changes nothing at first. A gets no gradient then, since what it says is multiplied by B.
    Plain,
    /// Anything: every variable changes what comes out, and must get a gradient.
    Probe,
}

impl Variables {
    /// Variables for these targets in all layers. A is uniform within one over the root of its inputs, as in PEFT.
    pub(super) fn new(
        base: &DecoderConfig,
        targets: &[Target],
        (rank, scale): (usize, f64),
        beginning: Beginning,
        random: &mut ChaCha8Rng,
    ) -> Result<Self> {
        let mut pairs = BTreeMap::new();
        for layer in 0..base.layers {
            for target in targets {
                let (inputs, outputs) = target.shape(base);
                let bound = |width: usize| 1.0 / (width as f32).sqrt();
                let a = uniform((rank, inputs), bound(inputs), random)?;
                let b = match beginning {
                    Beginning::Plain => Tensor::zeros((outputs, rank), candle_core::DType::F32, &Device::Cpu)?,
                    Beginning::Probe => uniform((outputs, rank), bound(rank), random)?,
                };
                pairs.insert((layer, *target), Pair { a: Var::from_tensor(&a)?, b: Var::from_tensor(&b)? });
            }
        }
        Ok(Self { pairs, scale })
    }

    /// Adds to `y`, which a layer of the base made of `x`, what the adapter says.
    pub(super) fn add(&self, layer: usize, target: Target, x: &Tensor, y: Tensor) -> Result<Tensor> {
        match self.pairs.get(&(layer, target)) {
            None => Ok(y),
            Some(Pair { a, b }) => y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * self.scale)?,
        }
    }

    /// All variables in a fixed order, by the names of their tensors.
    pub(super) fn named(&self) -> impl Iterator<Item = (String, &Var)> {
        self.pairs.iter().flat_map(|((layer, target), Pair { a, b })| {
            [(target.tensor(*layer, "lora_A"), a), (target.tensor(*layer, "lora_B"), b)]
        })
    }
}

fn uniform((rows, columns): (usize, usize), bound: f32, random: &mut ChaCha8Rng) -> Result<Tensor> {
    let values = (0..rows * columns).map(|_| (random.random::<f32>() * 2.0 - 1.0) * bound).collect::<Vec<_>>();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu)
}
