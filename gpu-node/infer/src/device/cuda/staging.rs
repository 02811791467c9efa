//! Page-locked memory through which values go to the device, piece by piece.

use std::sync::Arc;

use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream};

use super::Pinned;
use super::copies::pinned;

/// Values of a piece: 32 MiB, which takes the bus longer than to begin the next one.
const PIECE: usize = 8 << 20;
/// Pieces: one is filled while the other is copied.
const PIECES: usize = 2;

/// See the module.
pub(super) struct Staging {
    pieces: [Piece; PIECES],
    next: usize,
    uploads: Arc<CudaStream>,
}

struct Piece {
    memory: Pinned,
    /// When its last copy is done.
    copied: Option<CudaEvent>,
}

impl Staging {
    pub(super) fn new(context: &Arc<CudaContext>, uploads: &Arc<CudaStream>) -> Result<Self, DriverError> {
        let piece = || Ok::<_, DriverError>(Piece { memory: pinned(context, PIECE)?, copied: None });
        Ok(Self { pieces: [piece()?, piece()?], next: 0, uploads: Arc::clone(uploads) })
    }

    /// Begins to copy; returns once the last piece is under way.
    pub(super) fn copy(&mut self, from: &[f32], to: &mut CudaSlice<f32>) -> Result<(), DriverError> {
        for (at, part) in from.chunks(PIECE).enumerate() {
            let piece = &mut self.pieces[self.next];
            self.next = (self.next + 1) % PIECES;
            // The device reads page-locked memory while the program goes on: it is not written before that is over.
            if let Some(copied) = piece.copied.take() {
                copied.synchronize()?;
            }
            let memory = &mut piece.memory.as_mut_slice()?[..part.len()];
            memory.copy_from_slice(part);
            let start = at * PIECE;
            let mut there = to.slice_mut(start..start + part.len());
            self.uploads.memcpy_htod(&*memory, &mut there)?;
            piece.copied = Some(self.uploads.record_event(None)?);
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The memory is freed after this, and the device may still read it.
        if let Err(error) = self.uploads.synchronize() {
            tracing::error!(%error, "copies to the device did not end");
        }
    }
}
