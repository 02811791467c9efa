//! The forward pass of training: the decoder of [`crate::decoder`] over one whole conversation, of operations that gradients pass.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::{log_softmax, rms_norm_slow, silu, softmax};

use super::examples::Example;
use super::frozen::Frozen;
use super::variables::Variables;
use crate::decoder::{Decoder, Layer, causal_mask};
use crate::lora::Target;
use crate::rope::Angles;

/// A base with dense weights.
pub(super) struct Trainee<'a> {
    decoder: &'a Decoder,
    layers: Vec<[Frozen; 7]>,
    output: Frozen,
}

impl<'a> Trainee<'a> {
    /// None where the base is quantised.
    pub(super) fn new(decoder: &'a Decoder) -> Option<Self> {
        let frozen = |layer: &Layer| {
            Some([
                Frozen::of(&layer.query)?,
                Frozen::of(&layer.key)?,
                Frozen::of(&layer.value)?,
                Frozen::of(&layer.output)?,
                Frozen::of(&layer.gate)?,
                Frozen::of(&layer.up)?,
                Frozen::of(&layer.down)?,
            ])
        };
        let layers = decoder.layers.iter().map(frozen).collect::<Option<_>>()?;
        Some(Self { decoder, layers, output: Frozen::of(&decoder.output)? })
    }

    /// Minus the logarithm of the likelihood of an answer, times `weight`: one number.
    pub(super) fn loss(&self, example: &Example, variables: &Variables, weight: f64) -> Result<Tensor> {
        let Example { tokens, answer } = example;
        let [inputs @ .., _] = tokens.as_slice() else { candle_core::bail!("an example without tokens") };
        let learned = tokens.get(*answer..).unwrap_or_default();
        let hidden = self.hidden(inputs, variables)?;
        // The row before a token says how likely it is.
        let rows = hidden.narrow(0, answer.saturating_sub(1), learned.len())?.contiguous()?;
        let normed = rms_norm_slow(&rows, &self.decoder.norm, self.decoder.config.norm_eps)?;
        let likely = log_softmax(&self.output.forward(&normed)?, D::Minus1)?;
        let learned = Tensor::from_vec(learned.to_vec(), (learned.len(), 1), &self.decoder.device)?;
        likely.gather(&learned, 1)?.sum_all()? * -weight
    }

    /// The logits after every token, `[tokens, vocabulary]`.
    #[cfg(test)]
    fn logits(&self, tokens: &[u32], variables: &Variables) -> Result<Tensor> {
        let hidden = self.hidden(tokens, variables)?;
        let normed = rms_norm_slow(&hidden, &self.decoder.norm, self.decoder.config.norm_eps)?;
        self.output.forward(&normed)
    }

    fn hidden(&self, tokens: &[u32], variables: &Variables) -> Result<Tensor> {
        let decoder = self.decoder;
        let count = tokens.len();
        let positions: Vec<usize> = (0..count).collect();
        let angles = decoder.rope.angles(&positions, &decoder.device)?;
        let mask = causal_mask(count, count, &decoder.device)?;
        let ids = Tensor::from_vec(tokens.to_vec(), count, &decoder.device)?;
        let mut x = decoder.tokens.rows(&ids)?;
        for (index, (layer, frozen)) in decoder.layers.iter().zip(&self.layers).enumerate() {
            let block = Block { trainee: self, index, layer, frozen, variables };
            x = (&x + block.attention(&block.norm(&x, &layer.attention_norm)?, &angles, &mask)?)?;
            let normed = block.norm(&x, &layer.mlp_norm)?;
            let gated = (silu(&block.linear(Target::Gate, &normed)?)? * block.linear(Target::Up, &normed)?)?;
            x = (&x + block.linear(Target::Down, &gated)?)?;
        }
        Ok(x)
    }
}

/// One layer of one pass.
struct Block<'a> {
    trainee: &'a Trainee<'a>,
    index: usize,
    layer: &'a Layer,
    frozen: &'a [Frozen; 7],
    variables: &'a Variables,
}

impl Block<'_> {
    fn norm(&self, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
        rms_norm_slow(x, scale, self.trainee.decoder.config.norm_eps)
    }

    fn linear(&self, target: Target, x: &Tensor) -> Result<Tensor> {
        let [query, key, value, output, gate, up, down] = self.frozen;
        let frozen = match target {
            Target::Query => query,
            Target::Key => key,
            Target::Value => value,
            Target::Output => output,
            Target::Gate => gate,
            Target::Up => up,
            Target::Down => down,
        };
        self.variables.add(self.index, target, x, frozen.forward(x)?)
    }

    /// `[rows, heads * dim]` to `[heads, rows, dim]`, normalised per head where the model does so.
    fn split(&self, x: &Tensor, heads: usize, norm: Option<&Tensor>) -> Result<Tensor> {
        let x = x.reshape((x.dim(0)?, heads, self.trainee.decoder.config.head_dim))?;
        let x = match norm {
            Some(norm) => self.norm(&x, norm)?,
            None => x,
        };
        x.transpose(0, 1)?.contiguous()
    }

    fn attention(&self, x: &Tensor, angles: &Angles, mask: &Tensor) -> Result<Tensor> {
        let config = &self.trainee.decoder.config;
        let norms = self.layer.head_norms.as_ref();
        let queries = self.split(&self.linear(Target::Query, x)?, config.heads, norms.map(|n| &n.query))?;
        let keys = self.split(&self.linear(Target::Key, x)?, config.kv_heads, norms.map(|n| &n.key))?;
        let values = self.split(&self.linear(Target::Value, x)?, config.kv_heads, None)?;
        let queries = angles.rotate_tracked(&queries.unsqueeze(0)?)?.squeeze(0)?;
        let keys = angles.rotate_tracked(&keys.unsqueeze(0)?)?.squeeze(0)?.contiguous()?;

        // Heads that share keys are stacked as rows of one product.
        let (heads, rows, dim) = queries.dims3()?;
        let stacked = (config.kv_heads, heads / config.kv_heads * rows, dim);
        let queries = (queries.contiguous()? * (1.0 / (dim as f64).sqrt()))?.reshape(stacked)?;
        let scores = queries.matmul(&keys.transpose(1, 2)?)?;
        let scores = scores.reshape((heads, rows, rows))?.broadcast_add(mask)?;
        let shares = softmax(&scores, D::Minus1)?.reshape((stacked.0, stacked.1, rows))?;
        let mixed = shares.matmul(&values)?.reshape((heads, rows, dim))?;
        let mixed = mixed.transpose(0, 1)?.contiguous()?.reshape((rows, heads * dim))?;
        self.linear(Target::Output, &mixed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::order::random;
    use super::super::variables::Beginning;
    use super::*;
    use crate::decoder::Segment;
    use crate::network::Network;
    use crate::source::ModelSource;

    fn decoder(name: &str) -> Arc<Decoder> {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
        let path = Path::new(&root).join("tests/fixtures").join(name);
        match ModelSource::open(name, &path).unwrap().load_network().unwrap() {
            Network::Decoder(decoder) => decoder,
            Network::Encoder(_) | Network::Speech(_) => panic!("no decoder"),
        }
    }

    fn variables(decoder: &Decoder, beginning: Beginning) -> Variables {
        let mut random = random(3, 0);
        Variables::new(&decoder.config, &Target::ALL, (4, 2.0), beginning, &mut random).unwrap()
    }

    #[test]
    fn training_computes_what_serving_does() {
        for name in ["tiny-chat", "tiny-qwen3"] {
            let decoder = decoder(name);
            let trainee = Trainee::new(&decoder).unwrap();
            let tokens: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % 250).collect();
            let ours = trainee.logits(&tokens, &variables(&decoder, Beginning::Plain)).unwrap();
            let mut cache = decoder.cache(tokens.len());
            let served = decoder.forward_all(Segment { tokens: &tokens, cache: &mut cache }).unwrap();
            let rows = ours.to_vec2::<f32>().unwrap();
            let worst = rows.iter().flatten().zip(served.iter().flatten()).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < 1e-4, "{name}: {worst}");
        }
    }

    /// The gradient against differences of the loss, for a value of each variable.
    #[test]
    fn gradients_are_the_slopes_of_the_loss() {
        const STEP: f32 = 1e-2;
        for name in ["tiny-chat", "tiny-qwen3"] {
            let decoder = decoder(name);
            let trainee = Trainee::new(&decoder).unwrap();
            let variables = variables(&decoder, Beginning::Probe);
            let example = Example { tokens: (0..12).map(|i| (i * 31 + 5) % 250).collect(), answer: 5 };
            let loss = || trainee.loss(&example, &variables, 1.0).unwrap();
            let gradients = loss().backward().unwrap();
            for (tensor, var) in variables.named() {
                let gradient = gradients.get(var).expect("it has one").flatten_all().unwrap();
                let gradient = gradient.to_vec1::<f32>().unwrap();
                let before = var.as_tensor().copy().unwrap();
                let values = before.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                // The value with the steepest slope, so that rounding does not drown it.
                let (at, slope) =
                    gradient.iter().copied().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap();
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[at] += by;
                    var.set(&Tensor::from_vec(values, before.dims(), before.device()).unwrap()).unwrap();
                    loss().to_scalar::<f32>().unwrap()
                };
                let measured = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                var.set(&before).unwrap();
                let tolerance = 0.05 * slope.abs() + 2e-3;
                assert!((measured - slope).abs() < tolerance, "{name} {tensor}: {measured} and {slope}");
            }
        }
    }
}
