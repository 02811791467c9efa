//! Several orders of the same things made one.
//!
//! Reciprocal rank fusion: G. V. Cormack, C. L. A. Clarke, S. Büttcher, "Reciprocal Rank Fusion outperforms Condorcet
//! and individual Rank Learning Methods", SIGIR 2009. It asks for ranks only, so that a cosine and a BM25 need not be
//! compared.

use std::collections::BTreeMap;

/// The constant of the paper: how much the first ranks stand out.
const K: f64 = 60.0;

/// What is in the lists, best first, with the sum of 1/(60 + rank). Of equal ones the lesser key comes first.
pub(super) fn fuse<T: Ord + Copy>(lists: &[&[T]]) -> Vec<(T, f64)> {
    let mut sums: BTreeMap<T, f64> = BTreeMap::new();
    for list in lists {
        let mut rank = K;
        for item in *list {
            rank += 1.0;
            *sums.entry(*item).or_default() += 1.0 / rank;
        }
    }
    let mut fused: Vec<(T, f64)> = sums.into_iter().collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_lists_have_comes_first() {
        let order = |lists: &[&[u8]]| fuse(lists).into_iter().map(|(item, _)| item).collect::<Vec<u8>>();
        assert_eq!(order(&[&[1, 2, 3], &[3, 4]]), [3, 1, 2, 4]);
        assert_eq!(order(&[&[2, 1], &[1, 2]]), [1, 2], "equal: the lesser key");
        assert_eq!(order(&[&[5, 6], &[]]), [5, 6]);
        assert!(fuse::<u8>(&[]).is_empty());
        let scores = fuse(&[&[1_u8][..], &[1][..]]);
        assert!((scores[0].1 - 2.0 / 61.0).abs() < 1e-12, "{scores:?}");
    }
}
