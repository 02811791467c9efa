//! C2SP tlog-checkpoint: the signed head of one log.
//!
//! Text: origin, size, base64 root, then two extension lines of ours: `chain BASE64` (the running
//! chain after `size` leaves) and `time NANOSECONDS` (when it was signed, so that an auditor can
//! tell a stale copy). Source: <https://c2sp.org/tlog-checkpoint>.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    hash::Hash,
    note::{NoteError, NoteSigner, NoteVerifier, SignedNote, VerifierKey},
};

/// The longest checkpoint note that is read, in bytes.
pub const MAX_CHECKPOINT_BYTES: usize = 16 * 1024;

/// The head of a log at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's origin.
    pub origin: String,
    /// Leaves covered.
    pub size: u64,
    /// RFC 6962 root of those leaves.
    pub root: Hash,
    /// Running chain after those leaves.
    pub chain: Hash,
    /// When it was signed: nanoseconds since the Unix epoch.
    pub time_ns: u64,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text inside.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
}

impl Checkpoint {
    /// The text to be signed.
    pub fn to_text(&self) -> String {
        format!(
            "{}\n{}\n{}\nchain {}\ntime {}\n",
            self.origin,
            self.size,
            BASE64.encode(self.root.0),
            BASE64.encode(self.chain.0),
            self.time_ns,
        )
    }

    /// Signs it under the key name that C2SP recommends: the origin.
    pub fn sign(&self, signer: &dyn NoteSigner) -> String {
        VerifierKey::sign(&self.origin, &self.to_text(), signer)
    }

    /// Reads a note without checking its signature.
    pub fn parse_unchecked(note: &str) -> Result<Self, CheckpointError> {
        if note.len() > MAX_CHECKPOINT_BYTES {
            return Err(CheckpointError::Malformed("too long"));
        }
        Self::parse_text(SignedNote::parse(note)?.text)
    }

    /// Reads a note and checks that `public_key` signed it under its origin's name.
    pub fn parse_signed(
        note: &str,
        public_key: &[u8; 32],
        verifier: &dyn NoteVerifier,
    ) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse_unchecked(note)?;
        let key = VerifierKey { name: checkpoint.origin.clone(), public_key: *public_key };
        SignedNote::parse(note)?.check(&key, verifier)?;
        Ok(checkpoint)
    }

    /// The tree head in it, as every C2SP log has one.
    pub fn tree_head(&self) -> TreeHead {
        TreeHead { origin: self.origin.clone(), size: self.size, root: self.root }
    }

    fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let TreeHead { origin, size, root } = TreeHead::parse_text(text)?;
        let mut lines = text.split_terminator('\n').skip(3);
        let mut line = |what| lines.next().ok_or(CheckpointError::Malformed(what));
        let chain = line("no chain")?.strip_prefix("chain ");
        let chain = base64_hash(chain.ok_or(CheckpointError::Malformed("no chain"))?)?;
        let time = line("no time")?.strip_prefix("time ");
        let time_ns = decimal(time.ok_or(CheckpointError::Malformed("no time"))?)?;
        Ok(Self { origin, size, root, chain, time_ns })
    }
}

/// What the first three lines of any C2SP checkpoint say; extension lines are opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// The log's origin.
    pub origin: String,
    /// Leaves covered.
    pub size: u64,
    /// RFC 6962 root of those leaves.
    pub root: Hash,
}

impl TreeHead {
    /// Reads the text of a note (its signed part).
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split_terminator('\n');
        if text.split_terminator('\n').any(str::is_empty) {
            return Err(CheckpointError::Malformed("an empty line"));
        }
        let mut line = |what| lines.next().ok_or(CheckpointError::Malformed(what));
        let origin = line("no origin")?.to_owned();
        let size = decimal(line("no size")?)?;
        let root = base64_hash(line("no root")?)?;
        Ok(Self { origin, size, root })
    }
}

/// ASCII decimal without leading zeros, as C2SP asks.
pub(crate) fn decimal(text: &str) -> Result<u64, CheckpointError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let wrong = CheckpointError::Malformed("not a decimal number");
    if plain { text.parse().map_err(|_| wrong) } else { Err(wrong) }
}

pub(crate) fn base64_hash(text: &str) -> Result<Hash, CheckpointError> {
    let wrong = CheckpointError::Malformed("not a base64 SHA-256 value");
    let bytes = BASE64.decode(text).map_err(|_| wrong.clone())?;
    Ok(Hash(bytes.try_into().map_err(|_| wrong)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::note::split_notes;

    /// Not a signature scheme: enough to test what is signed and by which name.
    struct Toy;
    impl NoteSigner for Toy {
        fn public_key(&self) -> [u8; 32] {
            [7; 32]
        }
        fn sign(&self, message: &[u8]) -> [u8; 64] {
            let mut out = [0; 64];
            out[..32].copy_from_slice(&Hash::of(message).0);
            out
        }
    }
    impl NoteVerifier for Toy {
        fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
            key == &[7; 32] && &Toy.sign(message) == signature
        }
    }

    fn example() -> Checkpoint {
        Checkpoint {
            origin: "provost/acme".to_owned(),
            size: 12,
            root: Hash([3; 32]),
            chain: Hash([4; 32]),
            time_ns: 1_763_683_200_000_000_000,
        }
    }

    #[test]
    fn round_trip_and_forgeries() {
        let note = example().sign(&Toy);
        assert_eq!(Checkpoint::parse_signed(&note, &[7; 32], &Toy), Ok(example()));
        assert!(Checkpoint::parse_signed(&note, &[8; 32], &Toy).is_err(), "another key");
        let grown = note.replacen("\n12\n", "\n13\n", 1);
        assert!(Checkpoint::parse_signed(&grown, &[7; 32], &Toy).is_err(), "size changed");
        let renamed = note.replace("provost/acme", "provost/evil");
        assert!(Checkpoint::parse_signed(&renamed, &[7; 32], &Toy).is_err(), "origin changed");
        let stripped = note.split("\n\n").next().unwrap().to_owned() + "\n\n";
        assert!(Checkpoint::parse_unchecked(&stripped).is_err(), "signature stripped");
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                let read = Checkpoint::parse_signed(&text, &[7; 32], &Toy);
                assert!(read.is_err(), "byte {at} changed and the note still holds");
            }
        }
    }

    #[test]
    fn keys_carry_their_id() {
        // The example key of the C2SP signed-note specification.
        let text = "example.com/foo+530de95a+AbpPZVrZLhiCASHZU8WLCMJcxCL5CunyAz6HVX2W9Gvz";
        let made = VerifierKey { name: "provost/acme".to_owned(), public_key: [7; 32] };
        assert_eq!(VerifierKey::parse(&made.to_text()), Ok(made.clone()));
        let wrong = made.to_text().replacen("acme+", "acmf+", 1);
        assert!(VerifierKey::parse(&wrong).is_err());
        // Whatever that key's id is, ours is computed from name and key and must be four bytes.
        let id = text.split('+').nth(1).unwrap();
        assert_eq!(id.len(), 8);
    }

    #[test]
    fn notes_follow_each_other() {
        let note = example().sign(&Toy);
        let file = format!("{note}\n{note}\n");
        assert_eq!(split_notes(&file), vec![note.as_str(), note.as_str()]);
        let cut = &file[..file.len() - 20];
        let parts = split_notes(cut);
        assert_eq!(parts.len(), 2);
        assert!(Checkpoint::parse_signed(parts[1], &[7; 32], &Toy).is_err());
        assert_eq!(split_notes(&note), vec![note.as_str()], "a single note needs no blank line");
        assert!(split_notes("").is_empty());
    }
}
