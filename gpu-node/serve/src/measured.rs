//! What weights have shown: how long they take to load, and how fast they answer.

use std::collections::HashMap;
use std::time::Duration;

use provost_gpu_vram::WeightsKey;

/// Weights of which something is remembered; beyond, all is forgotten.
const MOST: usize = 1024;
/// The part of the newest answer in the mean of paces.
const NEWEST_PART: f32 = 0.2;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Measured(HashMap<WeightsKey, OfWeights>);

/// What is remembered of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct OfWeights {
    /// How long they took to load last.
    pub(crate) load: Option<Duration>,
    /// Tokens that an answer makes in a second; 0: none has ended.
    pub(crate) tokens_per_s: f32,
}

impl Measured {
    pub(crate) fn of(&self, key: WeightsKey) -> OfWeights {
        self.0.get(&key).copied().unwrap_or_default()
    }

    /// Weights came in this time.
    pub(crate) fn loaded(&mut self, key: WeightsKey, took: Duration) {
        self.entry(key).load = Some(took);
    }

    /// An answer of so many tokens ended after this time.
    #[allow(clippy::cast_precision_loss, reason = "a mean")]
    pub(crate) fn answered(&mut self, key: WeightsKey, tokens: u64, took: Duration) {
        let seconds = took.as_secs_f32();
        if tokens == 0 || seconds <= 0.0 {
            return;
        }
        let (pace, of) = (tokens as f32 / seconds, self.entry(key));
        of.tokens_per_s = match of.tokens_per_s > 0.0 {
            true => of.tokens_per_s + NEWEST_PART * (pace - of.tokens_per_s),
            false => pace,
        };
    }

    fn entry(&mut self, key: WeightsKey) -> &mut OfWeights {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.clear();
        }
        self.0.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_follows_what_is_seen_and_nothing_is_no_pace() {
        let (mut measured, key) = (Measured::default(), WeightsKey::new([1; 32]));
        measured.answered(key, 0, Duration::from_secs(1));
        measured.answered(key, 1, Duration::ZERO);
        assert_eq!(measured.of(key), OfWeights::default());
        measured.answered(key, 100, Duration::from_secs(1));
        assert!((measured.of(key).tokens_per_s - 100.0).abs() < 0.01);
        measured.answered(key, 100, Duration::from_secs(2));
        assert!((measured.of(key).tokens_per_s - 90.0).abs() < 0.01);
        measured.loaded(key, Duration::from_secs(3));
        assert_eq!(measured.of(key).load, Some(Duration::from_secs(3)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut measured = Measured::default();
        for n in 0..2 * MOST {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            measured.loaded(WeightsKey::new(digest), Duration::ZERO);
        }
        assert!(measured.0.len() <= MOST);
    }
}
