//! Choosing the next token.

use provost_types::ChatRequest;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::InferError;

/// Highest temperature that is accepted.
const MAX_TEMPERATURE: f32 = 10.0;

/// How to choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    temperature: f32,
    top_p: f32,
    seed: Option<u64>,
}

impl Sampling {
    /// The request's wishes, checked.
    ///
    /// # Errors
    /// [`InferError::Request`] when a number is out of range.
    pub fn of(request: &ChatRequest) -> Result<Self, InferError> {
        if !(0.0..=MAX_TEMPERATURE).contains(&request.temperature) {
            return Err(InferError::Request(format!(
                "temperature is {}, must be 0 to {MAX_TEMPERATURE}",
                request.temperature
            )));
        }
        if !(request.top_p > 0.0 && request.top_p <= 1.0) {
            return Err(InferError::Request(format!("top_p is {}, must be above 0 and at most 1", request.top_p)));
        }
        Ok(Self { temperature: request.temperature, top_p: request.top_p, seed: request.seed })
    }

    /// All tokens by their likelihood at a temperature that was checked.
    pub(crate) fn at(temperature: f32) -> Self {
        Self { temperature, top_p: 1.0, seed: None }
    }
}

/// The choice of one request, with its own random sequence.
///
/// The generator is a fixed algorithm (ChaCha with 8 rounds): a seed means the same in every
/// version.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    /// A sampler; without a seed it starts anywhere.
    pub fn new(sampling: Sampling) -> Self {
        let seed = sampling.seed.unwrap_or_else(rand::random);
        Self { sampling, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Picks a token.
    ///
    /// # Errors
    /// [`InferError::Failed`] when the logits are not numbers, as damaged weights produce.
    pub fn pick(&mut self, logits: &[f32]) -> Result<u32, InferError> {
        let (best, highest) = logits.iter().copied().enumerate().filter(|(_, logit)| !logit.is_nan()).fold(
            (0, f32::NEG_INFINITY),
            |best, next| {
                if next.1 > best.1 { next } else { best }
            },
        );
        if !highest.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
            return Err(InferError::Failed(
                "the model's output is not a number; its weights may be damaged".to_owned(),
            ));
        }
        if self.sampling.temperature == 0.0 {
            return Ok(best as u32);
        }
        let weights: Vec<f32> =
            logits.iter().map(|logit| ((logit - highest) / self.sampling.temperature).exp()).collect();
        let candidates = self.nucleus(&weights);
        let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut point = self.random.random::<f32>() * total;
        for (token, weight) in &candidates {
            point -= weight;
            if point <= 0.0 {
                return Ok(*token);
            }
        }
        // Rounding can leave a sliver above the last candidate.
        Ok(candidates.last().map_or(best as u32, |(token, _)| *token))
    }

    /// The most likely tokens that together hold `top_p` of the weight.
    fn nucleus(&self, weights: &[f32]) -> Vec<(u32, f32)> {
        // What has no weight, as what a grammar forbids, must not be picked by the last rounding either.
        let all = weights.iter().enumerate().map(|(id, w)| (id as u32, *w)).filter(|(_, weight)| *weight > 0.0);
        if self.sampling.top_p >= 1.0 {
            return all.collect();
        }
        let total: f32 = weights.iter().sum();
        // A token below this share cannot be in the nucleus; sorting the rest is cheap.
        let floor = total * (1.0 - self.sampling.top_p) / weights.len().max(2) as f32;
        let mut likely: Vec<(u32, f32)> = all.filter(|(_, weight)| *weight >= floor).collect();
        likely.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut sum = 0.0;
        let mut keep = 0;
        while keep < likely.len() && sum < total * self.sampling.top_p {
            sum += likely[keep].1;
            keep += 1;
        }
        likely.truncate(keep.max(1));
        likely
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_p: f32, seed: u64) -> Sampler {
        Sampler::new(Sampling { temperature, top_p, seed: Some(seed) })
    }

    fn counts(temperature: f32, top_p: f32, logits: &[f32]) -> Vec<usize> {
        let mut sampler = sampler(temperature, top_p, 7);
        let mut counts = vec![0; logits.len()];
        for _ in 0..4000 {
            counts[sampler.pick(logits).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_best() {
        assert_eq!(sampler(0.0, 1.0, 1).pick(&[1.0, 3.0, 3.0]).unwrap(), 1);
    }

    #[test]
    fn a_seed_repeats() {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32).collect();
        let run = |seed| -> Vec<u32> {
            let mut sampler = sampler(1.0, 0.9, seed);
            (0..20).map(|_| sampler.pick(&logits).unwrap()).collect()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        // exp(0) : exp(ln 3) = 1 : 3
        let counts = counts(1.0, 1.0, &[0.0, 3f32.ln()]);
        assert!((2850..3150).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn a_higher_temperature_is_flatter() {
        let sharp = counts(0.5, 1.0, &[0.0, 1.0])[0];
        let flat = counts(2.0, 1.0, &[0.0, 1.0])[0];
        assert!(sharp + 300 < flat, "{sharp} {flat}");
    }

    #[test]
    fn the_nucleus_leaves_out_the_tail() {
        // Shares: 0.6, 0.3, 0.1
        let logits = [0.6f32.ln(), 0.3f32.ln(), 0.1f32.ln()];
        assert_eq!(counts(1.0, 0.5, &logits)[1..], [0, 0]);
        let two = counts(1.0, 0.8, &logits);
        assert!(two[1] > 0 && two[2] == 0, "{two:?}");
    }

    #[test]
    fn damaged_logits_are_an_error() {
        assert!(sampler(1.0, 1.0, 1).pick(&[f32::NAN, 1.0]).is_err());
        assert!(sampler(0.0, 1.0, 1).pick(&[f32::NEG_INFINITY; 3]).is_err());
        assert!(sampler(0.0, 1.0, 1).pick(&[]).is_err());
    }
}
