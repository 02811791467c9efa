//! An entry of the audit group.

use bytes::Bytes;
use provost_audit_core::{LogId, MAX_CHECKPOINT_BYTES, MAX_LEAF, MAX_STORED_BODY};

use super::{
    Append, AppendRecord, EntryError, KEYS_KIND, MAX_BATCH_RECORDS, RETENTION_KIND, Rotated,
    form::{Take, VERSION, put_bytes, put_notes, put_postcard},
};
use crate::{retention_state::RetentionCommand, subject_entry::KeyCommand};

/// The longest writer id, bytes.
const MAX_WRITER: usize = 255;
/// Kind byte of [`Command::Cosigned`].
const COSIGNED: u8 = 16;
/// Kind byte of [`Command::SealAll`].
const SEAL_ALL: u8 = 17;
/// Kind byte of [`Command::Rotated`].
const ROTATED: u8 = 18;

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
                out.push(RETENTION_KIND);
                put_postcard(&mut out, command);
            }
            Command::Keys(command) => {
                out.push(KEYS_KIND);
                put_postcard(&mut out, command);
            }
        }
        out
    }

    /// Where an entry appends: the log of each record, and whether a body stands beside it. `None`: it is another
    /// entry, or cannot be read.
    pub(crate) fn appends(bytes: &[u8]) -> Option<Vec<(LogId, bool)>> {
        let mut take = Take::new(bytes);
        if (take.u8().ok()?, take.u8().ok()?) != (VERSION, 0) {
            return None;
        }
        let _writer = take.range(MAX_WRITER).ok()?;
        let (_epoch, _batch) = (take.u64().ok()?, take.u64().ok()?);
        let count = take.count(MAX_BATCH_RECORDS).ok()?;
        let mut appends: Vec<(LogId, bool)> = Vec::with_capacity(count);
        for _ in 0..count {
            let log = take.log_after(appends.last().map(|(log, _)| log)).ok()?;
            let _leaf = take.range(MAX_LEAF).ok()?;
            let body = take.range(MAX_STORED_BODY).ok()?;
            appends.push((log, !body.is_empty()));
        }
        take.end().ok()?;
        Some(appends)
    }

    /// Reads an entry; leaves share `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, EntryError> {
        let mut take = Take::new(bytes);
        if take.u8()? != VERSION {
            return Err(EntryError("unknown version"));
        }
        let command = match take.u8()? {
            0 => {
                let writer = take.text(MAX_WRITER)?;
                let (epoch, batch) = (take.u64()?, take.u64()?);
                let count = take.count(MAX_BATCH_RECORDS)?;
                let mut records: Vec<AppendRecord> = Vec::with_capacity(count);
                for _ in 0..count {
                    let log = take.log_after(records.last().map(|record| &record.log))?;
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
            RETENTION_KIND => Command::Retention(take.postcard()?),
            KEYS_KIND => Command::Keys(take.postcard()?),
            _ => return Err(EntryError("unknown kind")),
        };
        take.end()?;
        Ok(command)
    }
}
