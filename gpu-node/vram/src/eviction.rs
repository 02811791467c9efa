//! Which weights to give up: the set that costs least and frees enough.

use std::cmp::Ordering;

use crate::WeightsKey;

/// Up to this many candidates every set is looked at (4,096 of them); beyond, a greedy choice.
const EXACT_BELOW: usize = 12;

/// Weights that could be evicted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) key: WeightsKey,
    pub(crate) bytes: u64,
    pub(crate) refs: u32,
    /// H: microseconds of reloading a byte, weighted.
    pub(crate) worth: f64,
    pub(crate) last_use: u64,
}

impl Candidate {
    /// Least worth first; among equals the least recently used.
    pub(crate) fn by_worth(a: &Self, b: &Self) -> Ordering {
        a.worth.total_cmp(&b.worth).then(a.last_use.cmp(&b.last_use))
    }

    /// What giving it up costs.
    fn cost(&self) -> f64 {
        self.worth * self.bytes as f64
    }
}

/// The cheapest set that frees `lacking` bytes; none when all of them do not.
pub(crate) fn cheapest_set(mut candidates: Vec<Candidate>, lacking: u64) -> Option<Vec<Candidate>> {
    let all: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    if all < lacking {
        return None;
    }
    candidates.sort_by(Candidate::by_worth);
    Some(match candidates.len() <= EXACT_BELOW {
        true => exact(&candidates, lacking),
        false => greedy(&candidates, lacking),
    })
}

/// Looks at every set. The order of `candidates` decides among equals: earlier ones go.
fn exact(candidates: &[Candidate], lacking: u64) -> Vec<Candidate> {
    let members = |set: u32| candidates.iter().enumerate().filter(move |(bit, _)| set & (1 << bit) != 0);
    let mut best: Option<(f64, u32)> = None;
    for set in 0..1u32 << candidates.len() {
        let freed: u64 = members(set).map(|(_, candidate)| candidate.bytes).sum();
        if freed < lacking {
            continue;
        }
        let cost: f64 = members(set).map(|(_, candidate)| candidate.cost()).sum();
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, set));
        }
    }
    best.map(|(_, set)| members(set).map(|(_, candidate)| *candidate).collect()).unwrap_or_default()
}

/// Takes from the least worth upwards until enough is freed, then spares, from the most worth
/// downwards, what turned out not to be needed.
fn greedy(candidates: &[Candidate], lacking: u64) -> Vec<Candidate> {
    let mut freed = 0;
    let mut chosen: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if freed >= lacking {
            break;
        }
        freed += candidate.bytes;
        chosen.push(*candidate);
    }
    chosen.reverse();
    chosen.retain(|candidate| {
        let spared = freed - candidate.bytes >= lacking;
        if spared {
            freed -= candidate.bytes;
        }
        !spared
    });
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sizes: &[(u64, f64)]) -> Vec<Candidate> {
        let candidate = |(n, (bytes, worth)): (usize, &(u64, f64))| Candidate {
            key: WeightsKey::new([u8::try_from(n).unwrap(); 32]),
            bytes: *bytes,
            refs: 0,
            worth: *worth,
            last_use: n as u64,
        };
        sizes.iter().enumerate().map(candidate).collect()
    }

    fn sizes(chosen: &[Candidate]) -> Vec<u64> {
        chosen.iter().map(|candidate| candidate.bytes).collect()
    }

    #[test]
    fn the_set_is_cheapest_as_a_whole() {
        // One at a time by worth a byte would take 90, which costs 90; 10 costs 50 and is enough.
        assert_eq!(sizes(&cheapest_set(of(&[(90, 1.0), (10, 5.0)]), 10).unwrap()), [10]);
        assert_eq!(sizes(&cheapest_set(of(&[(90, 1.0), (10, 5.0)]), 11).unwrap()), [90]);
        assert_eq!(sizes(&cheapest_set(of(&[(30, 1.0), (30, 2.0), (70, 1.0)]), 60).unwrap()), [70]);
        assert!(cheapest_set(of(&[(30, 1.0)]), 31).is_none());
    }

    #[test]
    fn many_candidates_are_chosen_greedily_and_none_needlessly() {
        let many: Vec<(u64, f64)> = (0..40).map(|n| (1 + n % 7, 1.0 + (n % 5) as f64)).collect();
        for lacking in 1..=100 {
            let chosen = cheapest_set(of(&many), lacking).unwrap();
            let freed: u64 = chosen.iter().map(|candidate| candidate.bytes).sum();
            assert!(freed >= lacking);
            assert!(chosen.iter().all(|candidate| freed - candidate.bytes < lacking), "one of them is not needed");
        }
    }
}
