//! Which examples a step looks at: all of them in an order of chance, then all of them in another.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Random numbers for a purpose, the same in every version (ChaCha with 8 rounds).
pub(super) fn random(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose);
    random
}

/// The order of examples: what stands where follows from the seed alone.
pub(super) struct Order {
    seed: u64,
    count: usize,
    /// The round that `places` is of.
    round: Option<u64>,
    places: Vec<usize>,
}

impl Order {
    /// Of `count` examples, at least one.
    pub(super) fn new(seed: u64, count: usize) -> Self {
        Self { seed, count: count.max(1), round: None, places: Vec::new() }
    }

    /// The example at a place of the endless row of rounds.
    pub(super) fn at(&mut self, place: u64) -> usize {
        let count = self.count as u64;
        let (round, at) = (place / count, (place % count) as usize);
        if self.round != Some(round) {
            self.places = (0..self.count).collect();
            // Stream 0 is that of the first weights.
            let mut random = random(self.seed, round + 1);
            for last in (1..self.count).rev() {
                self.places.swap(last, random.random_range(0..=last));
            }
            self.round = Some(round);
        }
        self.places.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_every_example_once_in_an_order_of_its_own() {
        let row = |from: u64, to: u64| {
            let mut order = Order::new(7, 10);
            (from..to).map(|place| order.at(place)).collect::<Vec<_>>()
        };
        let all = row(0, 30);
        let rounds: Vec<&[usize]> = all.chunks(10).collect();
        for round in &rounds {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(rounds[0], rounds[1]);
        assert_eq!(row(13, 30), all[13..], "from anywhere");
    }
}
