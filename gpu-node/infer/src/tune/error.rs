//! Why a fine-tuning ends without an adapter.

use std::fmt;
use std::path::Path;

use crate::error::InferError;

/// Bad lines that a message shows.
const SHOWN_LINES: usize = 20;

/// A line of the data that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number; the first is 1.
    pub line: u64,
    /// What is wrong with it.
    pub cause: String,
}

/// Why a fine-tuning ends without an adapter.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// A setting is out of range.
    #[error("PV-TUNE-SETTINGS: {0}")]
    Settings(String),
    /// The data cannot be read, or lines of it cannot be used. Nothing was trained.
    #[error("PV-TUNE-DATA: {0}")]
    Data(DataProblem),
    /// A variable of the adapter gets no gradient: it would never learn.
    #[error(
        "PV-TUNE-GRADIENT: {variable} {cause}; this is an error of the program: please report it with the base's config.json"
    )]
    Gradient {
        /// The tensor's name.
        variable: String,
        /// What is wrong.
        cause: &'static str,
    },
    /// The loss is no number any more.
    #[error("PV-TUNE-DIVERGED: the loss is no number at step {step}; begin anew with a smaller learning rate")]
    Diverged {
        /// The step.
        step: u64,
    },
    /// The folder cannot be used.
    #[error("PV-TUNE-FOLDER: {0}")]
    Folder(String),
    /// Another process, or another run of this one, trains in the folder just then.
    #[error("PV-TUNE-FOLDER: somebody trains in {0}; wait for the end of that")]
    InUse(String),
    /// Somebody has cancelled the task.
    #[error("PV-TUNE-CANCELLED: the task was cancelled; its last checkpoint is kept")]
    Cancelled,
    /// The base cannot be used.
    #[error(transparent)]
    Model(#[from] InferError),
}

/// What is wrong with the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataProblem {
    /// All of it.
    File(String),
    /// These lines, in order, and how many there are besides.
    Lines {
        /// The first of them.
        shown: Vec<BadLine>,
        /// Those after them.
        more: u64,
    },
}

impl DataProblem {
    /// Keeps the first lines and counts the rest.
    pub(super) fn of_lines(mut lines: Vec<BadLine>, beyond: u64) -> Self {
        let more = lines.len().saturating_sub(SHOWN_LINES) as u64 + beyond;
        lines.truncate(SHOWN_LINES);
        Self::Lines { shown: lines, more }
    }
}

impl fmt::Display for DataProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(cause) => f.write_str(cause),
            Self::Lines { shown, more } => {
                write!(f, "{} lines cannot be used, and nothing was trained", shown.len() as u64 + more)?;
                for BadLine { line, cause } in shown {
                    write!(f, "; line {line}: {cause}")?;
                }
                if *more > 0 {
                    write!(f, "; and {more} more")?;
                }
                Ok(())
            }
        }
    }
}

impl TuneError {
    pub(super) fn folder(file: &Path, cause: impl fmt::Display) -> Self {
        Self::Folder(format!("{}: {cause}", file.display()))
    }

    /// A failed computation.
    pub(super) fn compute(cause: candle_core::Error) -> Self {
        Self::Model(InferError::compute(cause))
    }
}
