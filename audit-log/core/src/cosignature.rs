//! C2SP tlog-cosignature, version 1: a witness says that it saw a log at a size and time.
//!
//! Source: <https://c2sp.org/tlog-cosignature>. The signed message begins with its own header line,
//! so that a signature of one protocol can never be passed off as one of the other, and the key id
//! counts algorithm byte 4, so that a log's key and a witness's never share one.
//! Left out: ML-DSA-44 (byte 6); lines of it are passed over like those of unknown keys.

use crate::note::{NoteError, NoteSigner, NoteVerifier, SignedNote, key_id, parse_vkey, signature_line, vkey_text};

/// C2SP signature type of timestamped Ed25519 cosignatures.
const COSIGNATURE_V1: u8 = 4;
/// Bytes of a timestamped signature.
const SIGNATURE_LEN: usize = 8 + 64;

/// A named Ed25519 key that cosigns checkpoints: `NAME+KEYID+BASE64(4 || key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignerKey {
    /// The witness's name.
    pub name: String,
    /// The raw public key.
    pub public_key: [u8; 32],
}

impl CosignerKey {
    /// Parses the C2SP text form and checks its key id.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let (name, public_key) = parse_vkey(text, COSIGNATURE_V1)?;
        Ok(Self { name, public_key })
    }

    /// The C2SP key id.
    pub fn id(&self) -> [u8; 4] {
        key_id(&self.name, COSIGNATURE_V1, &self.public_key)
    }

    /// The C2SP text form, without a line end.
    pub fn to_text(&self) -> String {
        vkey_text(&self.name, COSIGNATURE_V1, &self.public_key)
    }

    /// A cosignature line of a checkpoint's text (with its final line end), as of `time_s` seconds
    /// since the Unix epoch.
    pub fn cosign(name: &str, text: &str, time_s: u64, signer: &dyn NoteSigner) -> String {
        let key = Self { name: name.to_owned(), public_key: signer.public_key() };
        let mut signature = time_s.to_be_bytes().to_vec();
        signature.extend_from_slice(&signer.sign(message(time_s, text).as_bytes()));
        signature_line(name, key.id(), &signature)
    }

    /// When this key cosigned the note, seconds since the Unix epoch; `None` when it did not. Of
    /// several valid lines the latest counts: a key says one thing, however often.
    ///
    /// A line that bears the key's name and id but does not verify fails: it is a forgery or damage.
    pub fn cosigned(&self, note: &SignedNote<'_>, verifier: &dyn NoteVerifier) -> Result<Option<u64>, NoteError> {
        let forged = || NoteError::Unsigned(self.name.clone());
        let id = self.id();
        let mut latest = None;
        for (name, found, signature) in note.signatures() {
            if name != self.name || found != id {
                continue;
            }
            let whole: &[u8; SIGNATURE_LEN] = signature.try_into().map_err(|_| forged())?;
            let (time, signature) = whole.split_first_chunk::<8>().ok_or_else(forged)?;
            let signature: [u8; 64] = signature.try_into().map_err(|_| forged())?;
            let time_s = u64::from_be_bytes(*time);
            let bounded = i64::try_from(time_s).is_ok();
            let text = message(time_s, note.text);
            if !bounded || !verifier.verify(&self.public_key, text.as_bytes(), &signature) {
                return Err(forged());
            }
            latest = latest.max(Some(time_s));
        }
        Ok(latest)
    }
}

fn message(time_s: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}
