//! What the machine replies to an entry.

use provost_audit_core::{LogId, MAX_LEAF};

use super::{
    EntryError, Head, KEYS_KIND, MAX_BATCH_RECORDS, MAX_HEADS, RETENTION_KIND,
    form::{Take, VERSION, put_bytes, put_postcard},
};
use crate::{retention_state::RetentionReply, subject_entry::KeyReply};

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
                out.push(RETENTION_KIND);
                put_postcard(&mut out, reply);
            }
        }
        out
    }

    /// Reads a reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut take = Take::new(bytes);
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
            RETENTION_KIND => Reply::Retention(take.postcard()?),
            _ => return Err(EntryError("unknown kind")),
        };
        take.end()?;
        Ok(reply)
    }
}
