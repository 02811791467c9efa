//! Why a model was not stored.

use std::io;
use std::path::Path;

use provost_gpu_infer::InferError;

/// Why a model was not stored; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was to be imported is no model that can be served.
    #[error(transparent)]
    Model(#[from] InferError),
    /// There is not enough room.
    #[error("PV-MODEL-STORE-FULL: there is no room for {bytes} bytes in {place}; free some, or use another disk")]
    Full {
        /// Bytes of the model.
        bytes: u64,
        /// Where.
        place: String,
    },
    /// There is enough room, but not beside what is to stay free.
    #[error(
        "PV-MODEL-STORE-FULL: of {free} bytes that are free in {place} a model needs {bytes}, and {reserve} stay free \
         (`gpu.disk_reserve_mib`); free some, or use another disk"
    )]
    NoRoom {
        /// Bytes that are still to come.
        bytes: u64,
        /// Bytes that are free and that nothing else is to come into.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
        /// Where.
        place: String,
    },
    /// Another import is under way.
    #[error("PV-MODEL-STORE-BUSY: another import into {place} is under way; try again when it has ended")]
    Busy {
        /// Where.
        place: String,
    },
    /// The files changed while they were read.
    #[error("PV-MODEL-STORE-CHANGED: {file} changed while it was imported; import it when nothing writes to it")]
    Changed {
        /// Which.
        file: String,
    },
    /// A file cannot be read or written.
    #[error("PV-MODEL-STORE-IO: {place}: {cause}; check that it is there, and who may use it")]
    Io {
        /// Which.
        place: String,
        /// What the system said.
        cause: String,
    },
}

impl StoreError {
    pub(crate) fn io(place: &Path, cause: &io::Error) -> Self {
        Self::Io { place: place.display().to_string(), cause: cause.to_string() }
    }
}
