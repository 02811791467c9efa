//! The bytes that each token stands for.
//!
//! A token need not be whole UTF-8: byte-level and byte-fallback vocabularies split characters.
//! Streaming therefore works on bytes, and only whole characters leave
//! [`IncrementalText`](super::IncrementalText).

use std::collections::HashMap;

use tokenizers::Tokenizer;
use toktrie::TokTrie;

use super::calls::CallForm;

/// How a vocabulary writes bytes in its token texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// Each character stands for a byte (GPT-2's alphabet).
    ByteLevel,
    /// `▁` is a space and `<0xNN>` a byte (SentencePiece with byte fallback).
    ByteFallback,
    /// Anything else: ask the tokenizer's own decoder.
    Decoder,
}

/// From token to bytes.
#[derive(Debug)]
pub(crate) struct TokenBytes {
    scheme: Scheme,
    /// Added tokens: their text, or nothing for special ones but marks of calls.
    added: HashMap<u32, Vec<u8>>,
    strips_first_space: bool,
}

impl TokenBytes {
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        // The decoder's parts are private types; their serialised form names them.
        let decoder = serde_json::to_string(&tokenizer.get_decoder()).unwrap_or_default();
        let scheme = if decoder.contains("\"ByteLevel\"") {
            Scheme::ByteLevel
        } else if decoder.contains("\"ByteFallback\"") {
            Scheme::ByteFallback
        } else {
            Scheme::Decoder
        };
        let added = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .map(|(id, token)| {
                // Calls are found by their marks, which some vocabularies call special.
                let is_mark = [CallForm::OPEN, CallForm::CLOSE].contains(&token.content.as_str());
                let text = if token.special && !is_mark { Vec::new() } else { token.content.into_bytes() };
                (id, text)
            })
            .collect();
        Self { scheme, added, strips_first_space: scheme == Scheme::ByteFallback && decoder.contains("\"Strip\"") }
    }

    /// True when decoding drops the space in front of the first word.
    pub(crate) fn strips_first_space(&self) -> bool {
        self.strips_first_space
    }

    /// True when each token stands for bytes of its own, wherever it comes.
    pub(crate) fn are_plain(&self) -> bool {
        self.scheme != Scheme::Decoder
    }

    /// The bytes of a token as grammars know it: those of a special one are no text.
    pub(crate) fn word(&self, tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
        let bytes = self.bytes(tokenizer, None, token);
        match tokenizer.id_to_token(token) {
            Some(name) if bytes.is_empty() => [&[TokTrie::SPECIAL_TOKEN_MARKER][..], name.as_bytes()].concat(),
            _ => bytes,
        }
    }

    /// The bytes of `token` when it follows `previous`.
    pub(crate) fn bytes(&self, tokenizer: &Tokenizer, previous: Option<u32>, token: u32) -> Vec<u8> {
        if let Some(bytes) = self.added.get(&token) {
            return bytes.clone();
        }
        if self.scheme == Scheme::Decoder {
            return decoded_after(tokenizer, previous, token);
        }
        let Some(text) = tokenizer.id_to_token(token) else {
            return Vec::new();
        };
        match self.scheme {
            Scheme::ByteLevel => byte_level(&text),
            _ => byte_fallback(&text),
        }
    }
}

/// What the decoder adds for `token` after `previous`, as text may depend on the word before.
fn decoded_after(tokenizer: &Tokenizer, previous: Option<u32>, token: u32) -> Vec<u8> {
    let decode = |ids: &[u32]| tokenizer.decode(ids, true).unwrap_or_default();
    let Some(previous) = previous else {
        return decode(&[token]).into_bytes();
    };
    let before = decode(&[previous]);
    let both = decode(&[previous, token]);
    match both.strip_prefix(&before) {
        Some(added) => added.as_bytes().to_vec(),
        None => decode(&[token]).into_bytes(),
    }
}

fn byte_level(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 onwards.
fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

fn byte_fallback(text: &str) -> Vec<u8> {
    let byte = text
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .filter(|digits| digits.len() == 2)
        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
    match byte {
        Some(byte) => vec![byte],
        None => text.replace('\u{2581}', " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_covers_every_byte_once() {
        let mut seen = [0u32; 256];
        for code in 0..0x144u32 {
            if let Some(byte) = char::from_u32(code).and_then(byte_of) {
                seen[usize::from(byte)] += 1;
            }
        }
        assert_eq!(seen, [1; 256]);
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
    }

    #[test]
    fn byte_fallback_reads_bytes_and_spaces() {
        assert_eq!(byte_fallback("<0xE2>"), vec![0xe2]);
        assert_eq!(byte_fallback("▁word"), b" word".to_vec());
        assert_eq!(byte_fallback("<0xZZ>"), b"<0xZZ>".to_vec());
    }
}
