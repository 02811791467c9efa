//! What can go wrong between a model file and an answer.

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
        tracing::error!(%error, "computation failed");
        Self::Failed("the computation failed".to_owned())
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
