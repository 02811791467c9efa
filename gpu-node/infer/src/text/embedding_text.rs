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
    /// batches need no padding here, and a text is never cut silently. What texts spell stays text: the special tokens of an
    /// embedding are those that the tokenizer puts around it.
    pub(crate) fn new(mut tokenizer: Tokenizer, pooling: Pooling) -> Self {
        tokenizer.with_padding(None);
        // Removing truncation cannot fail; setting one could.
        let _ = tokenizer.with_truncation(None);
        tokenizer.set_encode_special_tokens(true);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_spells_a_special_token_stays_text() {
        let document = r###"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
            {"id": 5, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
            "normalizer": null, "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": null,
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[SEP]", 5]},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9,
                "vocab": {"[UNK]": 0, "a": 1, "[": 2, "SEP": 3, "]": 4, "[SEP]": 5}}}"###;
        let text = EmbeddingText::new(Tokenizer::from_bytes(document).unwrap(), Pooling::Mean);
        assert_eq!(text.encode(&["a[SEP]a".to_owned()], 9).unwrap(), [vec![5, 1, 2, 3, 4, 1, 5]]);
    }
}
