//! A text that comes in chunks.
//!
//! Bytes are released once no later byte can make them part of a finding; until then they are held,
//! at most [`MAX_HELD`](crate::MAX_HELD) after a chunk. Some bytes that were released are kept for a
//! while: what stands before a value decides whether it is one. After a block nothing is released.

use std::{ops::Deref, sync::Arc};

use crate::{
    detectors::Cursor,
    finding::Finding,
    guard::{Blocked, Guard, count},
    kind::Counts,
    numbers::LOOK_BEHIND,
    replace::{Form, With},
    stand_in::{StandIns, Vault},
    tally::Tally,
};

/// From so many held bytes on, a scan waits for a quarter more: many small chunks would otherwise make
/// the work grow with the square of what is held.
const EAGER_MAX: usize = 1024;

/// One text on its way through a [`Guard`], borrowed or shared.
pub struct GuardStream<G> {
    guard: G,
    vault: Option<Arc<dyn Vault>>,
    /// Released bytes that still matter, then held ones from `cursor.from` on.
    buf: Vec<u8>,
    cursor: Cursor,
    /// The length of `buf` from which on a scan is worth it.
    scan_at: usize,
    found: Vec<Finding>,
    counts: Counts,
    tally: Tally,
    blocked: Option<Blocked>,
}

impl<G: Deref<Target = Guard>> GuardStream<G> {
    /// A text that has not begun.
    pub fn new(guard: G) -> GuardStream<G> {
        GuardStream {
            guard,
            vault: None,
            buf: Vec::new(),
            cursor: Cursor::default(),
            scan_at: 0,
            found: Vec::new(),
            counts: Counts::default(),
            tally: Tally::default(),
            blocked: None,
        }
    }

    /// With tokens of this vault; without one what would be tokenised is masked.
    #[must_use]
    pub fn with_vault(mut self, vault: Option<Arc<dyn Vault>>) -> GuardStream<G> {
        self.vault = vault;
        self
    }

    /// Takes a chunk and appends to `out` what may leave.
    ///
    /// # Errors
    /// A value was found that may not pass. What was released before holds no part of it; nothing more
    /// is released.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Blocked> {
        self.blocked.map_or(Ok(()), Err)?;
        self.buf.extend_from_slice(chunk);
        if self.buf.len() < self.scan_at {
            return Ok(());
        }
        self.release(false, out)
    }

    /// There is no more: appends the rest to `out`.
    ///
    /// # Errors
    /// As [`GuardStream::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Blocked> {
        self.blocked.map_or(Ok(()), Err)?;
        self.release(true, out)
    }

    /// What was found so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The same by kind and action.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.buf.len() - self.cursor.from
    }

    fn release(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), Blocked> {
        let from = self.cursor.from;
        let vault = self.vault.clone();
        let mut stand_ins = StandIns::new(vault.as_deref());
        let detectors = self.guard.detectors();
        let next = detectors.advance(&self.buf, self.cursor, last, &mut self.found, &mut stand_ins);
        self.counts.merge(&count(&self.found));
        self.guard.tally(&self.found, &mut self.tally);
        if let Some(blocked) = self.guard.blocked(&self.found) {
            self.blocked = Some(blocked);
            self.buf = Vec::new();
            self.cursor = Cursor::default();
            return Err(blocked);
        }
        let with = With { form: Form::Sent, vault: vault.as_deref() };
        let (part, found) = ((self.buf.as_slice(), from..next.from), (self.found.as_slice(), &*stand_ins.spots));
        self.guard.render(part, found, with, &mut self.tally, out);

        let gone = next.from.saturating_sub(LOOK_BEHIND);
        self.buf.drain(..gone);
        self.cursor =
            Cursor { from: next.from - gone, email_end: next.email_end.saturating_sub(gone), open: next.open };
        let held = self.held();
        self.scan_at = self.buf.len() + if held > EAGER_MAX { held / 4 } else { 0 };
        Ok(())
    }
}
