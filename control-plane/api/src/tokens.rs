//! Bearer tokens: `pv_ID_SECRET`. Only a hash of the whole token is kept.

use std::{fmt::Write, io};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// Characters of a token's id; with the alphabet below 62 bits, enough to be unique.
const ID_CHARS: usize = 12;
const ID_ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Random bytes of a token's secret part.
const SECRET_BYTES: usize = 32;

/// A token that was just made.
pub(crate) struct Token {
    /// Not secret: part of the key's name, so that a token found in a log can be revoked.
    pub(crate) id: String,
    pub(crate) text: SecretString,
    pub(crate) hash: blake3::Hash,
}

/// Makes a token from the system's randomness.
pub(crate) fn make() -> io::Result<Token> {
    let no_randomness = |_| io::Error::other("no randomness");
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    rand::fill(&mut *secret).map_err(no_randomness)?;
    let mut id = String::with_capacity(ID_CHARS);
    while id.len() < ID_CHARS {
        let mut byte = [0];
        rand::fill(&mut byte).map_err(no_randomness)?;
        // 252 = 7 * 36: bytes above it would favour some letters.
        if byte[0] < 252 {
            id.push(char::from(ID_ALPHABET[usize::from(byte[0]) % ID_ALPHABET.len()]));
        }
    }
    let mut text = String::with_capacity(64);
    let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()));
    // Writing to a String cannot fail.
    let _ = write!(text, "pv_{id}_{}", *encoded);
    let hash = blake3::hash(text.as_bytes());
    Ok(Token { id, text: SecretString::from(text), hash })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn tokens_differ_and_have_their_form() {
        let (one, two) = (make().unwrap(), make().unwrap());
        let text = one.text.expose_secret();
        assert!(text.starts_with(&format!("pv_{}_", one.id)), "{text}");
        assert_eq!(text.len(), "pv__".len() + ID_CHARS + 43);
        assert_eq!(one.hash, blake3::hash(text.as_bytes()));
        assert_ne!(text, two.text.expose_secret());
        assert!(!format!("{:?}", one.text).contains(text));
    }
}
