//! The hash of a pushed state, which a control-plane node and a data-plane node compare.
//!
//! Each document and each data key is an element of 256 bits (keyed BLAKE3);
//! a state's sum is the sum of its elements modulo 2^256, so that a change costs what changed;
//! the hash is BLAKE3 over revision and sum. It finds mistakes, not forgers: the stream is
//! authenticated, and sums of this size do not resist somebody who may choose many documents.
//! It is part of the wire: two builds that define it differently take each other's states for wrong.

/// Public keys that keep the three uses of the hash apart.
const RESOURCE: &[u8; 32] = b"provost push 1 resource         ";
const KEY: &[u8; 32] = b"provost push 1 data key         ";
const STATE: &[u8; 32] = b"provost push 1 state            ";

/// One document or data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element([u8; 32]);

impl Element {
    /// Of a resource's document, byte for byte as it is sent.
    pub fn of_document(json: &[u8]) -> Self {
        Self(*blake3::keyed_hash(RESOURCE, json).as_bytes())
    }

    /// Of a wrapped data key.
    pub fn of_key(term: u64, wrapped: &str) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(KEY);
        Self(*hasher.update(&term.to_le_bytes()).update(wrapped.as_bytes()).finalize().as_bytes())
    }

    fn limbs(self) -> [u64; 4] {
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(self.0.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        limbs
    }
}

/// The sum of a state's elements, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum([u64; 4]);

impl Sum {
    /// Adds an element.
    pub fn add(&mut self, element: Element) {
        let mut carry = false;
        for (limb, other) in self.0.iter_mut().zip(element.limbs()) {
            let (sum, over) = limb.overflowing_add(other);
            let (sum, again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || again);
        }
    }

    /// Takes an element away that was added.
    pub fn remove(&mut self, element: Element) {
        let mut borrow = false;
        for (limb, other) in self.0.iter_mut().zip(element.limbs()) {
            let (rest, under) = limb.overflowing_sub(other);
            let (rest, again) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, under || again);
        }
    }

    /// The hash of the state that these elements are at a revision.
    pub fn hash(&self, revision: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(STATE);
        hasher.update(&revision.to_le_bytes());
        for limb in self.0 {
            hasher.update(&limb.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(limbs: [u64; 4]) -> Element {
        let mut bytes = [0; 32];
        for (i, limb) in limbs.iter().enumerate() {
            bytes[i * 8..i * 8 + 8].copy_from_slice(&limb.to_le_bytes());
        }
        Element(bytes)
    }

    #[test]
    fn sums_carry_over_limbs_and_come_back() {
        for (a, b, expect) in [
            ([u64::MAX, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]),
            ([u64::MAX, u64::MAX, u64::MAX, 0], [1, 0, 0, 0], [0, 0, 0, 1]),
            ([u64::MAX; 4], [1, 0, 0, 0], [0; 4]),
            ([5, 0, u64::MAX, 7], [u64::MAX, u64::MAX, 0, 1], [4, 0, 0, 9]),
        ] {
            let mut sum = Sum::default();
            sum.add(element(a));
            sum.add(element(b));
            assert_eq!(sum.0, expect, "{a:?} + {b:?}");
            sum.remove(element(a));
            assert_eq!(sum.0, b, "{a:?} + {b:?} - {a:?}");
        }
    }

    /// Nodes of other builds have these values: a change of the definition is a change of the wire.
    #[test]
    fn the_definition_stays_as_it_is() {
        let mut sum = Sum::default();
        let mut hashes = vec![hex(&sum.hash(0))];
        sum.add(Element::of_document(br#"{"a":1}"#));
        sum.add(Element::of_document(br#"{"b":2}"#));
        sum.add(Element::of_key(7, "AA=="));
        hashes.push(hex(&sum.hash(42)));
        sum.remove(Element::of_document(br#"{"a":1}"#));
        hashes.push(hex(&sum.hash(43)));
        assert_eq!(hashes, GOLDEN);
    }

    const GOLDEN: [&str; 3] = [
        "ff2019f63a7e21ad1585559cde69ea24751f114a70b9ecc08b88b14929088ba7",
        "b780e7a3310faf28507b6d952f676ab14c5975458fd154a24c7eda59119d25b3",
        "b77cd0b138ad5fe7319a6c5b17559f0d100c640804acb124e0a0fe2571d11aaa",
    ];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }
}
