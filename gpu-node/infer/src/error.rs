//! What can go wrong between a model file and an answer.

/// By these names of the CUDA driver and of cuBLAS candle's errors say that there is no memory left.
const OUT_OF_MEMORY: [&str; 2] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];

/// A failure of this crate. Messages name the model and the file, never a path of this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// A file is missing or cannot be read.
    #[error("PV-MODEL-UNREADABLE: model `{model}`: {file}: {cause}; check that the file is there and readable")]
    Unreadable {
        /// The model's name.
        model: String,
        /// File within the model's directory.
        file: String,
        /// What the system said.
        cause: String,
    },
    /// A file is damaged or contradicts the model's configuration.
    #[error("PV-MODEL-MALFORMED: model `{model}`: {file}: {cause}; fetch the file again or correct it")]
    Malformed {
        /// The model's name.
        model: String,
        /// File within the model's directory.
        file: String,
        /// What is wrong.
        cause: String,
    },
    /// A sound model that this build cannot run.
    #[error("PV-MODEL-UNSUPPORTED: model `{model}`: {cause}")]
    Unsupported {
        /// The model's name.
        model: String,
        /// What is not supported, and what is.
        cause: String,
    },
    /// The files of a model that is declared are not on this node.
    #[error("PV-MODEL-MISSING: model `{model}`: {cause}; bring its files to this node")]
    Missing {
        /// The model's name.
        model: String,
        /// What is not there.
        cause: String,
    },
    /// The files are not what their digest says.
    #[error("PV-MODEL-DIGEST: model `{model}`: {cause}; import it again")]
    Tampered {
        /// The model's name.
        model: String,
        /// What is otherwise.
        cause: String,
    },
    /// The files are not what was declared of them.
    #[error("PV-MODEL-DIFFERS: model `{model}`: {cause}; correct its resource, or bring other files")]
    Differs {
        /// The model's name.
        model: String,
        /// What is otherwise.
        cause: String,
    },
    /// The request cannot be served by this model.
    #[error("PV-INFERENCE-REQUEST: {0}")]
    Request(String),
    /// The device that was named cannot be used.
    #[error("PV-GPU-DEVICE: `{device}` cannot be used: {cause}; write `auto` or `cpu` where there is no such device")]
    NoDevice {
        /// The device, as it was named.
        device: String,
        /// Why not.
        cause: String,
    },
    /// The device refused memory that the books had.
    #[error(
        "PV-GPU-EXHAUSTED: the device has less memory left than the node counts on; try again, or give models less of it"
    )]
    OutOfMemory,
    /// The device or the model failed while computing.
    #[error("PV-INFERENCE-FAILED: {0}; the node's log has the details")]
    Failed(String),
}

impl InferError {
    /// Refuses tokens for which a model of so many has no weights, as tokenizers of another model have: they would fail the
    /// pass over all requests of the batch.
    pub(crate) fn check_tokens(tokens: &[u32], vocabulary: usize) -> Result<(), Self> {
        match tokens.iter().find(|token| **token as usize >= vocabulary) {
            Some(token) => Err(Self::Request(format!(
                "the text has token {token}, for which the model has no weights; leave out what is no plain text"
            ))),
            None => Ok(()),
        }
    }

    /// A failed computation.
    pub(crate) fn compute(error: candle_core::Error) -> Self {
        Self::of_device(&error)
    }

    /// What a device said: that it has no memory left is told apart, since others may give theirs up for it.
    pub(crate) fn of_device(error: &candle_core::Error) -> Self {
        Self::out_of_memory(error).unwrap_or_else(|| {
            tracing::error!(%error, "computation failed");
            Self::Failed("the computation failed".to_owned())
        })
    }

    /// Some: the device has no memory left.
    pub(crate) fn out_of_memory(error: &candle_core::Error) -> Option<Self> {
        let text = error.to_string();
        let is_full = OUT_OF_MEMORY.iter().any(|name| text.contains(name));
        is_full.then(|| {
            tracing::warn!(%error, "the device has no memory left");
            Self::OutOfMemory
        })
    }
}

/// Names the model and file for errors of one file.
#[derive(Clone, Debug)]
pub(crate) struct FileContext {
    pub(crate) model: String,
    pub(crate) file: String,
}

impl FileContext {
    pub(crate) fn new(model: &str, file: &str) -> Self {
        Self { model: model.to_owned(), file: file.to_owned() }
    }

    pub(crate) fn malformed(&self, cause: impl std::fmt::Display) -> InferError {
        InferError::Malformed { model: self.model.clone(), file: self.file.clone(), cause: cause.to_string() }
    }

    pub(crate) fn unreadable(&self, cause: impl std::fmt::Display) -> InferError {
        InferError::Unreadable { model: self.model.clone(), file: self.file.clone(), cause: cause.to_string() }
    }

    pub(crate) fn unsupported(&self, cause: impl std::fmt::Display) -> InferError {
        InferError::Unsupported { model: self.model.clone(), cause: format!("{}: {cause}", self.file) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_apart() {
        for name in OUT_OF_MEMORY {
            let error = candle_core::Error::Msg(format!("DriverError({name}, \"out of memory\")"));
            assert_eq!(InferError::compute(error), InferError::OutOfMemory);
        }
        let other = candle_core::Error::Msg("CUDA_ERROR_ILLEGAL_ADDRESS".to_owned());
        assert!(matches!(InferError::compute(other), InferError::Failed(_)));
    }
}
