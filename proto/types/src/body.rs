//! What the audit log keeps of a call's arguments and results, and under whose key.
//!
//! A body is sealed where the call is served, under a key that belongs to one subject of one
//! tenant for one calendar month. The log holds a keyed commitment to it and, beside the log, the
//! sealed bytes. Whoever has the key can open and check a body; once the key is destroyed nobody
//! can do either. `provost-sealed` does the sealing.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::Zeroizing;

use crate::{AuditUnavailable, BoxFuture, Name};

/// Longer bodies are committed to, and not kept: bytes before sealing.
pub const MAX_BODY_BYTES: usize = 256 << 10;

/// The name of a subject's key: random, and says nothing of the subject.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no key id: 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id has 32 lower-case hexadecimal digits")]
pub struct NotAKeyId;

impl FromStr for KeyId {
    type Err = NotAKeyId;
    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = plain.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|n| Self(n.to_be_bytes())).ok_or(NotAKeyId)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// A subject as records may name it instead of by its name: it follows from the name and a key of
/// the tenant's, so it is the same throughout the tenant and says nothing to anybody without that
/// key. Written `p-` and 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pseudonym(pub [u8; 16]);

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p-{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A calendar month in UTC, written `2026-11`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month {
    /// Months since January of year 0.
    count: u32,
}

/// A text is no month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a month is written YYYY-MM, such as 2026-11")]
pub struct NotAMonth;

impl Month {
    /// January 1970.
    pub const EPOCH: Self = Self { count: 1970 * 12 };

    /// The month that holds a moment, in nanoseconds since the Unix epoch.
    pub fn of_ns(time_ns: u64) -> Self {
        const DAY_NS: u64 = 86_400_000_000_000;
        // From days to a civil date; March begins the year, so that leap days come last.
        let days = time_ns / DAY_NS + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 2 } else { from_march - 10 };
        let year = era * 400 + year_of_era + u64::from(month < 2);
        // The largest moment is in the year 2554.
        Self { count: u32::try_from(year * 12 + month).unwrap_or(u32::MAX) }
    }

    /// As a number that sorts and is stored; see [`Month::from_number`].
    pub fn number(self) -> u32 {
        self.count
    }

    /// From [`Month::number`].
    pub fn from_number(count: u32) -> Self {
        Self { count }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month) = (self.count / 12, self.count % 12 + 1);
        if year > 9_999 {
            return write!(f, "{year}-{month:02}");
        }
        // Each body that is sealed is bound to its month: written at once, as formatting two numbers costs several times as much.
        let digit = |n: u32| b'0' + (n % 10) as u8;
        let text = [
            digit(year / 1_000),
            digit(year / 100),
            digit(year / 10),
            digit(year),
            b'-',
            digit(month / 10),
            digit(month),
        ];
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Month {
    type Err = NotAMonth;
    fn from_str(text: &str) -> Result<Self, NotAMonth> {
        let (year, month) = text.split_once('-').ok_or(NotAMonth)?;
        let digits = |t: &str, n| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(NotAMonth);
        }
        let (year, month): (u32, u32) = (year.parse().map_err(|_| NotAMonth)?, month.parse().map_err(|_| NotAMonth)?);
        if (1..=12).contains(&month) { Ok(Self { count: year * 12 + month - 1 }) } else { Err(NotAMonth) }
    }
}

/// What the log holds of one body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Keyed commitment to the body as it stands after redaction.
    pub commit: [u8; 32],
    /// The key that it is sealed and committed under.
    pub key: KeyId,
    /// Its length after redaction, bytes.
    pub len: u64,
    /// SHA-256 of the redaction policy, where one applied.
    pub redaction: Option<[u8; 32]>,
    /// The sealed bytes, or why there are none.
    pub kept: KeptBody,
}

/// What is stored beside the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBody {
    /// The sealed bytes.
    Sealed(SealedBytes),
    /// Nothing: it is longer than [`MAX_BODY_BYTES`].
    TooLong,
    /// Nothing: the node is configured so.
    CommitmentOnly,
}

/// Sealed bytes and the SHA-256 of them, by which the record names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBytes {
    /// SHA-256 of `bytes`.
    pub sha256: [u8; 32],
    /// Version, nonce, ciphertext, tag.
    #[serde(with = "hex_text")]
    pub bytes: Bytes,
}

/// A key of one subject for one month, as writers get it.
#[derive(Clone)]
pub struct SubjectKey {
    /// Its name.
    pub id: KeyId,
    /// The subject's pseudonym.
    pub subject: Pseudonym,
    secret: Zeroizing<[u8; 32]>,
}

impl SubjectKey {
    /// A key, its name and whose it is.
    pub fn new(id: KeyId, subject: Pseudonym, secret: [u8; 32]) -> Self {
        Self { id, subject, secret: Zeroizing::new(secret) }
    }

    /// The key itself.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKey({}, …)", self.id)
    }
}

/// Where writers get keys from: the audit group, here or through another node.
pub trait SubjectKeys: Send + Sync {
    /// The key of `subject` for `month`; made at its first use. It is durable when this resolves:
    /// what is sealed under it can be opened after any crash.
    fn key<'a>(
        &'a self,
        tenant: &'a Name,
        subject: &'a str,
        month: Month,
    ) -> BoxFuture<'a, Result<SubjectKey, AuditUnavailable>>;

    /// Changes whenever keys that were handed out may have been destroyed since: what a writer
    /// remembers of older generations must be asked for again.
    fn generation(&self) -> u64;
}

/// Bytes as hexadecimal text in JSON, plain in binary forms.
mod hex_text {
    use super::{Bytes, Deserialize, Deserializer, Serializer};
    use serde::de::Error as _;

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        if !s.is_human_readable() {
            return s.serialize_bytes(bytes);
        }
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
        let text: String = bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect();
        s.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        if !d.is_human_readable() {
            return Bytes::deserialize(d);
        }
        let text = String::deserialize(d)?;
        let value = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.map(Bytes::from).ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_the_calendar() {
        const SECOND: u64 = 1_000_000_000;
        for (seconds, expect) in [
            (0, "1970-01"),
            (951_782_399, "2000-02"),
            (951_868_799, "2000-02"),
            (951_868_800, "2000-03"),
            (1_793_491_199, "2026-10"),
            (1_793_491_200, "2026-11"),
            (1_798_761_599, "2026-12"),
            (1_798_761_600, "2027-01"),
            (18_446_744_073, "2554-07"),
        ] {
            let month = Month::of_ns(seconds * SECOND);
            assert_eq!(month.to_string(), expect);
            assert_eq!(expect.parse(), Ok(month));
            assert_eq!(Month::from_number(month.number()), month);
        }
        for n in [0, 11, 12 * 999 + 5, 12 * 9_999 + 11, 12 * 10_000, u32::MAX] {
            assert_eq!(Month::from_number(n).to_string(), format!("{:04}-{:02}", n / 12, n % 12 + 1));
        }
        for bad in ["", "2026", "2026-13", "2026-00", "26-01", "2026-1", "+026-01"] {
            assert_eq!(bad.parse::<Month>(), Err(NotAMonth), "{bad}");
        }
    }

    #[test]
    fn key_ids_are_one_text_only() {
        let id = KeyId([0xA0; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "a0", &"A0".repeat(16), &format!("+{}", "0".repeat(31))] {
            assert_eq!(bad.parse::<KeyId>(), Err(NotAKeyId), "{bad}");
        }
    }
}
