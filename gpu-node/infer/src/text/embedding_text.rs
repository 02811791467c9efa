//! Tokenizer and pooling of an embedding model.

use tokenizers::Tokenizer;

use crate::error::InferError;

/// How token vectors become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    First,
}

/// The text side of an embedding model.
#[derive(Debug)]
pub struct EmbeddingText {
    tokenizer: Tokenizer,
    pooling: Pooling,
}

impl EmbeddingText {
    /// Joins the parts. Padding and truncation that a tokenizer file may ask for are turned off:
    /// batches need no padding here, and a text is never cut silently.
    pub(crate) fn new(mut tokenizer: Tokenizer, pooling: Pooling) -> Self {
        tokenizer.with_padding(None);
        // Removing truncation cannot fail; setting one could.
        let _ = tokenizer.with_truncation(None);
        Self { tokenizer, pooling }
    }

    /// The tokens of each text, special tokens included.
    ///
    /// # Errors
    /// [`InferError::Request`] when a text cannot be tokenized or has more than `most` tokens.
    pub fn encode(&self, texts: &[String], most: usize) -> Result<Vec<Vec<u32>>, InferError> {
        let mut tokens = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let encoding = self
                .tokenizer
                .encode_fast(text.as_str(), true)
                .map_err(|error| InferError::Request(format!("input {index} cannot be tokenized: {error}")))?;
            let ids = encoding.get_ids();
            if ids.is_empty() {
                return Err(InferError::Request(format!("input {index} has no tokens")));
            }
            if ids.len() > most {
                return Err(InferError::Request(format!(
                    "input {index} has {} tokens, the model reads at most {most}; shorten or split it",
                    ids.len()
                )));
            }
            tokens.push(ids.to_vec());
        }
        Ok(tokens)
    }

    pub(crate) fn pooling(&self) -> Pooling {
        self.pooling
    }
}
