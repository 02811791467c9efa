//! On which node something lives that may live on one only.
//!
//! Rendezvous hashing: each node has a score for each key, and the highest of those that live wins. When
//! a node comes or goes only its own keys move. Nodes with the same view of who lives agree without a word.

/// The name with the highest score for the key.
pub(super) fn owner<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.max_by_key(|name| (score(key, name), *name))
}

fn score(key: &str, name: &str) -> [u8; 16] {
    let mut hash = blake3::Hasher::new_derive_key("provost 2026 owner of a key among nodes v1");
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key.as_bytes());
    hash.update(name.as_bytes());
    let mut score = [0; 16];
    hash.finalize_xof().fill(&mut score);
    score
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::owner;

    const NODES: [&str; 4] = ["dp-1", "dp-2", "dp-3", "dp-4"];

    #[test]
    fn every_node_gets_its_share_and_only_the_keys_of_a_node_that_goes_move() {
        let mut shares: BTreeMap<&str, u32> = BTreeMap::new();
        for n in 0..4_000 {
            let key = format!("acme\0plugin-{n}");
            let of_all = owner(&key, NODES.into_iter()).unwrap();
            *shares.entry(of_all).or_default() += 1;
            let of_three = owner(&key, NODES.into_iter().filter(|n| *n != "dp-2")).unwrap();
            assert!(of_three == of_all || of_all == "dp-2", "{key} moved for nothing");
            // The order in which nodes are known does not matter.
            assert_eq!(owner(&key, NODES.into_iter().rev()), Some(of_all));
        }
        assert!(shares.len() == 4 && shares.values().all(|n| (850..1_150).contains(n)), "{shares:?}");
        assert_eq!(owner("key", std::iter::empty()), None);
    }
}
