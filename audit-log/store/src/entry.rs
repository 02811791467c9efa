//! What is proposed to the audit group, and what its machine replies: bounded binary forms.
//!
//! Layout: one version byte, one kind byte, then numbers in little-endian and texts and bytes
//! behind their length.

use crate::subject_entry::{KeyCommand, KeyReply};
use bytes::Bytes;
use provost_audit_core::{Hash, LogId, MAX_CHECKPOINT_BYTES, MAX_LEAF, MAX_STORED_BODY};
use provost_types::Name;

use crate::retention_state::{RetentionCommand, RetentionReply};

/// Records in one entry.
pub(crate) const MAX_BATCH_RECORDS: usize = 1_024;
/// Bytes of leaves in one entry.
pub(crate) const MAX_BATCH_BYTES: usize = 4 << 20;
/// Logs that one checkpoint entry may name.
pub(crate) const MAX_HEADS: usize = 4_096;
/// The longest writer id, bytes.
const MAX_WRITER: usize = 255;
const VERSION: u8 = 1;
/// The kind of entries and replies about keys.
pub(crate) const KEYS_KIND: u8 = 40;
/// The longest entry or reply about keys, bytes: an erasure names all keys of one subject.
const MAX_KEYS_ENTRY: usize = 64 << 10;
/// Kind byte of [`Command::Cosigned`].
const COSIGNED: u8 = 16;
/// Kind byte of [`Command::SealAll`].
const SEAL_ALL: u8 = 17;
/// Kind byte of [`Command::Rotated`].
const ROTATED: u8 = 18;

/// An entry or a reply does not have its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an audit entry: {0}")]
pub struct EntryError(&'static str);

/// One leaf on its way to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendRecord {
    /// The log.
    pub log: LogId,
    /// The exact bytes to be stored.
    pub leaf: Bytes,
    /// The sealed body that is stored beside it, where the record names one.
    pub body: Option<Bytes>,
}

impl AppendRecord {
    /// About how long it is in an entry.
    pub(crate) fn encoded_len(&self) -> usize {
        self.leaf.len() + self.body.as_ref().map_or(0, Bytes::len) + 80
    }
}

/// A batch of leaves of one writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The writer.
    pub writer: String,
    /// Its start count; entries of older epochs are refused.
    pub epoch: u64,
    /// From 0 in each epoch, without gaps: a repeated batch is answered, not appended again.
    pub batch: u64,
    /// The leaves.
    pub records: Vec<AppendRecord>,
}

/// An entry of the audit group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Append a batch.
    Append(Append),
    /// Note the heads of all logs that grew since their last checkpoint, so that they can be
    /// signed.
    Seal,
    /// Take these signed heads as the consensus copy.
    Signed(Vec<String>),
    /// Make or destroy keys of bodies.
    Keys(KeyCommand),
    /// Keep or prune records.
    Retention(RetentionCommand),
    /// Publish this checkpoint, which witnesses have cosigned.
    Cosigned(String),
    /// As [`Command::Seal`], for logs that did not grow too: their next checkpoint has other signatures.
    SealAll,
    /// Another key signs from now on: heads that both keys signed, and which key follows which. One
    /// entry, so that there is no moment in which both keys sign for themselves.
    Rotated(Rotated),
}

/// The change of the key that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The record in the cluster's log that names the new key.
    pub record: u64,
    /// The raw Ed25519 key that signed until now.
    pub follows: [u8; 32],
    /// The one that signs from now on.
    pub public_key: [u8; 32],
    /// A checkpoint of every log, signed by both.
    pub notes: Vec<String>,
}

/// The head of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log.
    pub log: LogId,
    /// Leaves.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Hash,
    /// Running chain.
    pub chain: Hash,
}

/// What the machine replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Appended, now or when this batch came first: for each log its first index.
    Appended(Vec<(LogId, u64)>),
    /// A newer epoch of this writer has begun.
    Fenced {
        /// That epoch.
        epoch: u64,
    },
    /// Batches before this one are missing.
    OutOfOrder {
        /// The batch to send next.
        next: u64,
    },
    /// The batch contradicts the chain or its form; it was not appended.
    Invalid(String),
    /// Heads to sign.
    Sealed(Vec<Head>),
    /// Checkpoints taken.
    Taken(u32),
    /// What became of keys.
    Keys(KeyReply),
    /// The answer to an order about keeping records.
    Retention(RetentionReply),
}

impl Command {
    /// Whose command it is; `None`: a replica's own.
    pub fn writer(&self) -> Option<&str> {
        match self {
            Command::Append(append) => Some(&append.writer),
            Command::Seal
            | Command::SealAll
            | Command::Signed(_)
            | Command::Cosigned(_)
            | Command::Rotated(_)
            | Command::Retention(_)
            | Command::Keys(_) => None,
        }
    }

    /// The bytes to propose.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Command::Append(append) => {
                let leaves: usize = append.records.iter().map(AppendRecord::encoded_len).sum();
                out.reserve(leaves + 64);
                out.push(0);
                put_bytes(&mut out, append.writer.as_bytes());
                out.extend_from_slice(&append.epoch.to_le_bytes());
                out.extend_from_slice(&append.batch.to_le_bytes());
                out.extend_from_slice(&(append.records.len() as u32).to_le_bytes());
                for record in &append.records {
                    put_bytes(&mut out, record.log.tenant().as_bytes());
                    put_bytes(&mut out, &record.leaf);
                    put_bytes(&mut out, record.body.as_deref().unwrap_or_default());
                }
            }
            Command::Seal => out.push(1),
            Command::Signed(notes) => {
                out.push(2);
                put_notes(&mut out, notes);
            }
            Command::Cosigned(note) => {
                out.push(COSIGNED);
                put_bytes(&mut out, note.as_bytes());
            }
            Command::SealAll => out.push(SEAL_ALL),
            Command::Rotated(rotated) => {
                out.push(ROTATED);
                out.extend_from_slice(&rotated.record.to_le_bytes());
                out.extend_from_slice(&rotated.follows);
                out.extend_from_slice(&rotated.public_key);
                put_notes(&mut out, &rotated.notes);
            }
            Command::Retention(command) => {
                out.push(RETENTION);
                put_postcard(&mut out, command);
            }
            Command::Keys(command) => {
                out.push(KEYS_KIND);
                put_postcard(&mut out, command);
            }
        }
        out
    }

    /// Reads an entry; leaves share `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, EntryError> {
        let mut take = Take { bytes, at: 0 };
        if take.u8()? != VERSION {
            return Err(EntryError("unknown version"));
        }
        let command = match take.u8()? {
            0 => {
                let writer = take.text(MAX_WRITER)?;
                let (epoch, batch) = (take.u64()?, take.u64()?);
                let count = take.count(MAX_BATCH_RECORDS)?;
                let mut records = Vec::with_capacity(count);
                for _ in 0..count {
                    let log = take.log()?;
                    let range = take.range(MAX_LEAF)?;
                    let leaf = bytes.slice(range);
                    let range = take.range(MAX_STORED_BODY)?;
                    // An empty one is none: a sealed body is longer than its tag.
                    let body = (!range.is_empty()).then(|| bytes.slice(range));
                    records.push(AppendRecord { log, leaf, body });
                }
                Command::Append(Append { writer, epoch, batch, records })
            }
            1 => Command::Seal,
            2 => Command::Signed(take.notes()?),
            SEAL_ALL => Command::SealAll,
            ROTATED => Command::Rotated(Rotated {
                record: take.u64()?,
                follows: take.array()?,
                public_key: take.array()?,
                notes: take.notes()?,
            }),
            COSIGNED => Command::Cosigned(take.text(MAX_CHECKPOINT_BYTES)?),
            RETENTION => Command::Retention(take.postcard()?),
            KEYS_KIND => Command::Keys(take.postcard()?),
            _ => return Err(EntryError("unknown kind")),
        };
        take.end()?;
        Ok(command)
    }
}

impl Reply {
    /// The bytes of the reply.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Reply::Appended(places) => {
                out.push(0);
                out.extend_from_slice(&(places.len() as u32).to_le_bytes());
                for (log, first) in places {
                    put_bytes(&mut out, log.tenant().as_bytes());
                    out.extend_from_slice(&first.to_le_bytes());
                }
            }
            Reply::Fenced { epoch } => {
                out.push(1);
                out.extend_from_slice(&epoch.to_le_bytes());
            }
            Reply::OutOfOrder { next } => {
                out.push(2);
                out.extend_from_slice(&next.to_le_bytes());
            }
            Reply::Invalid(why) => {
                out.push(3);
                put_bytes(&mut out, why.as_bytes());
            }
            Reply::Sealed(heads) => {
                out.push(4);
                out.extend_from_slice(&(heads.len() as u32).to_le_bytes());
                for head in heads {
                    put_bytes(&mut out, head.log.tenant().as_bytes());
                    out.extend_from_slice(&head.size.to_le_bytes());
                    out.extend_from_slice(&head.root.0);
                    out.extend_from_slice(&head.chain.0);
                }
            }
            Reply::Taken(count) => {
                out.push(5);
                out.extend_from_slice(&count.to_le_bytes());
            }
            Reply::Keys(reply) => {
                out.push(KEYS_KIND);
                put_postcard(&mut out, reply);
            }
            Reply::Retention(reply) => {
                out.push(RETENTION);
                put_postcard(&mut out, reply);
            }
        }
        out
    }

    /// Reads a reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut take = Take { bytes, at: 0 };
        if take.u8()? != VERSION {
            return Err(EntryError("unknown version"));
        }
        let reply = match take.u8()? {
            0 => {
                let count = take.count(MAX_BATCH_RECORDS)?;
                let place = |_| Ok((take.log()?, take.u64()?));
                Reply::Appended((0..count).map(place).collect::<Result<_, EntryError>>()?)
            }
            1 => Reply::Fenced { epoch: take.u64()? },
            2 => Reply::OutOfOrder { next: take.u64()? },
            3 => Reply::Invalid(take.text(MAX_LEAF)?),
            4 => {
                let count = take.count(MAX_HEADS)?;
                let head = |_| {
                    let (log, size) = (take.log()?, take.u64()?);
                    Ok(Head { log, size, root: take.hash()?, chain: take.hash()? })
                };
                Reply::Sealed((0..count).map(head).collect::<Result<_, EntryError>>()?)
            }
            5 => Reply::Taken(take.u32()?),
            KEYS_KIND => Reply::Keys(take.postcard()?),
            RETENTION => Reply::Retention(take.postcard()?),
            _ => return Err(EntryError("unknown kind")),
        };
        take.end()?;
        Ok(reply)
    }
}

/// Kind of entries and replies about keeping records.
const RETENTION: u8 = 32;
/// The longest of them, bytes.
const MAX_RETENTION: usize = 16 * 1024;

/// The bytes of such an entry, behind their length. (Only allocation could fail.)
fn put_postcard(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    put_bytes(out, &postcard::to_stdvec(value).unwrap_or_default());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_notes(out: &mut Vec<u8>, notes: &[String]) {
    out.extend_from_slice(&(notes.len() as u32).to_le_bytes());
    notes.iter().for_each(|note| put_bytes(out, note.as_bytes()));
}

struct Take<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let found = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        self.at += N;
        found.copied().ok_or(EntryError("it is cut"))
    }

    fn notes(&mut self) -> Result<Vec<String>, EntryError> {
        let count = self.count(MAX_HEADS)?;
        (0..count).map(|_| self.text(MAX_CHECKPOINT_BYTES)).collect()
    }

    fn u8(&mut self) -> Result<u8, EntryError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, EntryError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, EntryError> {
        self.array().map(u64::from_le_bytes)
    }

    fn hash(&mut self) -> Result<Hash, EntryError> {
        self.array().map(Hash)
    }

    fn count(&mut self, max: usize) -> Result<usize, EntryError> {
        let count = self.u32()? as usize;
        if count > max { Err(EntryError("too many items")) } else { Ok(count) }
    }

    fn range(&mut self, max: usize) -> Result<std::ops::Range<usize>, EntryError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(EntryError("an item is too long"));
        }
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let range = self.at..end.ok_or(EntryError("it is cut"))?;
        self.at = range.end;
        Ok(range)
    }

    fn text(&mut self, max: usize) -> Result<String, EntryError> {
        let range = self.range(max)?;
        let bytes = self.bytes.get(range).unwrap_or_default();
        String::from_utf8(bytes.to_vec()).map_err(|_| EntryError("a text is not UTF-8"))
    }

    fn postcard<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, EntryError> {
        let range = self.range(MAX_RETENTION.max(MAX_KEYS_ENTRY))?;
        let bytes = self.bytes.get(range).unwrap_or_default();
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            _ => Err(EntryError("an entry cannot be read")),
        }
    }

    fn log(&mut self) -> Result<LogId, EntryError> {
        let name = self.text(Name::MAX_LEN)?;
        if name.is_empty() {
            return Ok(LogId::CLUSTER);
        }
        Name::new(&name).map(|n| LogId(Some(n))).map_err(|_| EntryError("not a tenant's name"))
    }

    fn end(&self) -> Result<(), EntryError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(EntryError("bytes follow its end")) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Command {
        let acme = LogId(Some(Name::new("acme").unwrap()));
        let records = vec![
            AppendRecord { log: acme, leaf: Bytes::from_static(b"{}"), body: Some(Bytes::from_static(b"sealed")) },
            AppendRecord { log: LogId::CLUSTER, leaf: Bytes::from_static(b""), body: None },
        ];
        Command::Append(Append { writer: "n1".to_owned(), epoch: 3, batch: 9, records })
    }

    #[test]
    fn round_trips() {
        let keys = Command::Keys(KeyCommand::Recorded(7));
        let release = Command::Retention(RetentionCommand::Release(LogId::CLUSTER, "case-7".to_owned()));
        let rotated = Rotated { record: 5, follows: [1; 32], public_key: [2; 32], notes: vec!["note".to_owned()] };
        for command in [
            example(),
            Command::Seal,
            Command::SealAll,
            Command::Signed(vec!["note".to_owned()]),
            Command::Cosigned("n".to_owned()),
            Command::Rotated(rotated),
            release,
            keys,
        ] {
            let bytes = Bytes::from(command.encode());
            assert_eq!(Command::decode(&bytes), Ok(command));
            for cut in 0..bytes.len() {
                assert!(Command::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
            }
        }
        let head = Head { log: LogId::CLUSTER, size: 1, root: Hash::ZERO, chain: Hash::ZERO };
        for reply in [
            Reply::Appended(vec![(LogId::CLUSTER, 7)]),
            Reply::Fenced { epoch: 2 },
            Reply::OutOfOrder { next: 4 },
            Reply::Invalid("why".to_owned()),
            Reply::Sealed(vec![head]),
            Reply::Taken(2),
            Reply::Keys(KeyReply::Stale { generation: 3 }),
            Reply::Retention(RetentionReply::Refused("why".to_owned())),
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            let _ = Reply::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = Command::decode(&Bytes::from(bytes));
        }
    }
}
