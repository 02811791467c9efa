//! C2SP signed-note: text, a blank line, signature lines; and verifier keys ("vkeys").
//!
//! Source: <https://c2sp.org/signed-note>. Only Ed25519 (algorithm byte 1) is understood here, and
//! witness cosignatures (byte 4) in `cosignature`;
//! lines of other algorithms or other keys are kept and ignored, as the specification asks.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::hash::Hash;

/// The most signature lines that are read.
pub const MAX_SIGNATURES: usize = 64;
/// C2SP algorithm identifier of Ed25519.
const ED25519: u8 = 1;
/// An em dash and a space open each signature line.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// Makes Ed25519 signatures. The key never enters this crate.
pub trait NoteSigner {
    /// The raw public key.
    fn public_key(&self) -> [u8; 32];
    /// Signs `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// Checks Ed25519 signatures.
pub trait NoteVerifier {
    /// Whether `signature` of `message` was made by `public_key`.
    fn verify(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;
}

/// Why a note or a key cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// Not a C2SP verifier key.
    #[error("not a C2SP Ed25519 verifier key (NAME+HASH+BASE64): {0}")]
    Key(&'static str),
    /// No signature of the wanted key holds.
    #[error("no valid signature of key `{0}`")]
    Unsigned(String),
}

/// A named Ed25519 public key: `NAME+KEYID+BASE64(1 || key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    /// The key's name: the log's origin.
    pub name: String,
    /// The raw public key.
    pub public_key: [u8; 32],
}

impl VerifierKey {
    /// Parses the C2SP text form and checks its key id.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let (name, public_key) = parse_vkey(text, ED25519)?;
        Ok(Self { name, public_key })
    }

    /// The C2SP key id: first four bytes of `SHA-256(name || "\n" || 1 || key)`.
    pub fn id(&self) -> [u8; 4] {
        key_id(&self.name, ED25519, &self.public_key)
    }

    /// The C2SP text form, without a line end.
    pub fn to_text(&self) -> String {
        vkey_text(&self.name, ED25519, &self.public_key)
    }

    /// Signs `text` (which ends in a line end) and gives the whole note.
    pub fn sign(name: &str, text: &str, signer: &dyn NoteSigner) -> String {
        format!("{text}\n{}", Self::signature_line(name, text, signer))
    }

    /// One signature line for `text`, to be added to a note.
    pub fn signature_line(name: &str, text: &str, signer: &dyn NoteSigner) -> String {
        let key = Self { name: name.to_owned(), public_key: signer.public_key() };
        signature_line(name, key.id(), &signer.sign(text.as_bytes()))
    }
}

/// A signature line: em dash, name, base64 of key id and signature.
pub(crate) fn signature_line(name: &str, id: [u8; 4], signature: &[u8]) -> String {
    let mut blob = id.to_vec();
    blob.extend_from_slice(signature);
    format!("{SIGNATURE_MARK}{name} {}\n", BASE64.encode(blob))
}

/// The C2SP key id: first four bytes of `SHA-256(name || "\n" || algorithm || key)`.
pub(crate) fn key_id(name: &str, algorithm: u8, public_key: &[u8; 32]) -> [u8; 4] {
    let mut input = name.as_bytes().to_vec();
    input.extend_from_slice(&[b'\n', algorithm]);
    input.extend_from_slice(public_key);
    let [a, b, c, d, ..] = Hash::of(&input).0;
    [a, b, c, d]
}

/// The text form of a key of 32 bytes: `NAME+KEYID+BASE64(algorithm || key)`.
pub(crate) fn vkey_text(name: &str, algorithm: u8, public_key: &[u8; 32]) -> String {
    let mut key = vec![algorithm];
    key.extend_from_slice(public_key);
    format!("{name}+{}+{}", hex::encode(key_id(name, algorithm, public_key)), BASE64.encode(key))
}

/// Name and key of a text form of this algorithm; its key id must belong to them.
pub(crate) fn parse_vkey(text: &str, algorithm: u8) -> Result<(String, [u8; 32]), NoteError> {
    let mut parts = text.trim_end().splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key("three parts are needed"));
    };
    let key = BASE64.decode(key).map_err(|_| NoteError::Key("base64"))?;
    let Some((found, key)) = key.split_first() else { return Err(NoteError::Key("the key is empty")) };
    if *found != algorithm {
        return Err(NoteError::Key("the algorithm is another (1 signs notes, 4 cosigns checkpoints)"));
    }
    let public_key = key.try_into().map_err(|_| NoteError::Key("32 key bytes are needed"))?;
    check_name(name)?;
    if hex::encode(key_id(name, algorithm, &public_key)) != id {
        return Err(NoteError::Key("the key id does not belong to this name and key"));
    }
    Ok((name.to_owned(), public_key))
}

/// A note as read; nothing about its signatures has been checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote<'a> {
    /// The signed text, with its final line end.
    pub text: &'a str,
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> SignedNote<'a> {
    /// Reads one note.
    pub fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(NoteError::Malformed("it holds a control character"));
        }
        // The last one: a note's text may hold empty lines.
        let split = note.rfind("\n\n").ok_or(NoteError::Malformed("no blank line"))?;
        let (text, rest) = (&note[..=split], &note[split + 2..]);
        if !rest.ends_with('\n') {
            return Err(NoteError::Malformed("the last signature line does not end"));
        }
        let mut signatures = Vec::new();
        for line in rest.split_terminator('\n') {
            if signatures.len() == MAX_SIGNATURES {
                return Err(NoteError::Malformed("too many signatures"));
            }
            let line = line
                .strip_prefix(SIGNATURE_MARK)
                .ok_or(NoteError::Malformed("a signature line opens with an em dash"))?;
            let (name, blob) = line.split_once(' ').ok_or(NoteError::Malformed("a signature has a name"))?;
            check_name(name)?;
            let blob = BASE64.decode(blob).map_err(|_| NoteError::Malformed("signature base64"))?;
            if blob.len() < 5 {
                return Err(NoteError::Malformed("the signature is too short"));
            }
            signatures.push((name, blob));
        }
        if signatures.is_empty() {
            return Err(NoteError::Malformed("no signature"));
        }
        Ok(Self { text, signatures })
    }

    /// The signature lines: name, key id, what follows the key id.
    pub fn signatures(&self) -> impl Iterator<Item = (&'a str, [u8; 4], &[u8])> {
        self.signatures.iter().filter_map(|(name, blob)| {
            let (id, signature) = blob.split_first_chunk::<4>()?;
            Some((*name, *id, signature))
        })
    }

    /// Checks that `key` signed the text.
    ///
    /// A line that bears the key's name and id but does not verify fails the note at once, as the
    /// specification asks: it is a forgery or damage, not another key.
    pub fn check(&self, key: &VerifierKey, verifier: &dyn NoteVerifier) -> Result<(), NoteError> {
        let unsigned = || NoteError::Unsigned(key.name.clone());
        let id = key.id();
        let mut good = false;
        for (name, found, signature) in self.signatures() {
            if name != key.name || found != id {
                continue;
            }
            let signature: [u8; 64] = signature.try_into().map_err(|_| unsigned())?;
            if !verifier.verify(&key.public_key, self.text.as_bytes(), &signature) {
                return Err(unsigned());
            }
            good = true;
        }
        if good { Ok(()) } else { Err(unsigned()) }
    }
}

/// Splits a file of notes that follow each other, each with one blank line after it.
///
/// The last piece may be cut short (a crash while appending): it is given back as it is, and
/// parsing it fails.
pub fn split_notes(file: &str) -> Vec<&str> {
    let mut notes = Vec::new();
    let mut rest = file;
    while !rest.is_empty() {
        let end = rest.find("\n\n").and_then(|body| rest[body + 2..].find("\n\n").map(|sig| body + 2 + sig + 1));
        match end {
            Some(end) => {
                notes.push(&rest[..end]);
                rest = &rest[end + 1..];
            }
            None => {
                notes.push(rest);
                break;
            }
        }
    }
    notes
}

fn check_name(name: &str) -> Result<(), NoteError> {
    if name.is_empty() || name.contains('+') || name.chars().any(char::is_whitespace) {
        return Err(NoteError::Malformed("a key name has no space and no plus sign"));
    }
    Ok(())
}
