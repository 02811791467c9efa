//! Embedding texts, batch by batch, texts of several requests in one.

use std::sync::Arc;

use candle_core::{Result as TensorResult, Tensor};
use provost_types::{EmbedResponse, TokenUsage};

use crate::encoder::Encoder;
use crate::error::InferError;
use crate::text::{EmbeddingText, Pooling};

/// Tokens that one step computes, so that many texts do not hold up others; a single text may be
/// longer.
pub const EMBED_BATCH_TOKENS: usize = 512;
/// Most texts of one request.
const MAX_INPUTS: usize = 2048;

/// An encoder with its text side.
#[derive(Clone, Debug)]
pub struct EmbeddingModel {
    encoder: Arc<Encoder>,
    text: Arc<EmbeddingText>,
}

/// Texts on their way to vectors.
#[derive(Debug)]
pub struct EmbedJob {
    tokens: Vec<Vec<u32>>,
    vectors: Vec<Vec<f32>>,
    /// Its own: models that share weights may pool differently.
    pooling: Pooling,
}

/// A job's part in a step.
pub struct EmbedPart<'a> {
    /// Whose.
    pub job: &'a mut EmbedJob,
    /// Its next texts, this many; more than it has left is no error.
    pub texts: usize,
}

impl EmbeddingModel {
    /// Joins weights and text side.
    pub fn new(encoder: Arc<Encoder>, text: Arc<EmbeddingText>) -> Self {
        Self { encoder, text }
    }

    /// Tokenizes the texts; nothing is computed yet.
    ///
    /// # Errors
    /// [`InferError::Request`] when there are none or too many, or one is too long.
    pub fn start(&self, inputs: &[String]) -> Result<EmbedJob, InferError> {
        self.begin(EmbedJob::of(&self.text, inputs, self.encoder.context())?)
    }

    /// Begins a job whose texts were tokenized with the text side of this model.
    ///
    /// # Errors
    /// [`InferError::Request`] when a text has a token that the model does not know.
    pub fn begin(&self, job: EmbedJob) -> Result<EmbedJob, InferError> {
        job.tokens.iter().try_for_each(|text| InferError::check_tokens(text, self.encoder.vocabulary()))?;
        Ok(job)
    }

    /// Bytes that the job's largest step needs besides weights.
    pub fn memory_bytes(&self, job: &EmbedJob) -> u64 {
        let longest = job.tokens.iter().map(Vec::len).max().unwrap_or(0);
        let total: usize = job.tokens.iter().map(Vec::len).sum();
        let rows = total.min(EMBED_BATCH_TOKENS.max(longest));
        self.encoder.scratch_bytes(rows, longest)
    }

    /// Computes the next texts of several jobs in one pass; a job's whole answer once it is done. The
    /// jobs may come from any model with the same encoder.
    ///
    /// # Errors
    /// [`InferError::Failed`] when the computation failed; the inner one when a job's own vectors are
    /// unusable.
    pub fn step(
        &self,
        parts: &mut [EmbedPart<'_>],
    ) -> Result<Vec<Result<Option<EmbedResponse>, InferError>>, InferError> {
        let texts: Vec<&[u32]> = parts.iter().flat_map(|part| part.job.next(part.texts)).map(Vec::as_slice).collect();
        let mut hidden = self.encoder.hidden(&texts).map_err(InferError::compute)?.into_iter();
        Ok(parts
            .iter_mut()
            .map(|part| {
                let count = part.job.next(part.texts).len();
                let own: Vec<Tensor> = hidden.by_ref().take(count).collect();
                part.job.take_in(&own)
            })
            .collect())
    }
}

impl EmbedJob {
    /// Tokenizes texts for a model that reads at most `context` tokens of each. It needs no weights, and may be done on any
    /// thread.
    ///
    /// # Errors
    /// [`InferError::Request`] when there are none or too many, or one is too long.
    pub fn of(text: &EmbeddingText, inputs: &[String], context: usize) -> Result<Self, InferError> {
        if inputs.is_empty() || inputs.len() > MAX_INPUTS {
            return Err(InferError::Request(format!("{} inputs, must be 1 to {MAX_INPUTS}", inputs.len())));
        }
        let tokens = text.encode(inputs, context)?;
        Ok(Self { tokens, vectors: Vec::with_capacity(inputs.len()), pooling: text.pooling() })
    }

    /// Tokens of the text that comes `after` texts from now; none when there is no such text.
    pub fn length_of(&self, after: usize) -> Option<usize> {
        self.tokens.get(self.vectors.len() + after).map(Vec::len)
    }

    fn next(&self, texts: usize) -> &[Vec<u32>] {
        let rest = self.tokens.get(self.vectors.len()..).unwrap_or_default();
        rest.get(..texts).unwrap_or(rest)
    }

    fn take_in(&mut self, hidden: &[Tensor]) -> Result<Option<EmbedResponse>, InferError> {
        for hidden in hidden {
            let vector = pool(hidden, self.pooling).map_err(InferError::compute)?;
            if vector.iter().any(|x| !x.is_finite()) {
                return Err(InferError::Failed(
                    "the model's output is not a number; its weights may be damaged".to_owned(),
                ));
            }
            self.vectors.push(vector);
        }
        if self.vectors.len() < self.tokens.len() {
            return Ok(None);
        }
        let prompt = self.tokens.iter().map(|tokens| tokens.len() as u64).sum();
        let vectors = std::mem::take(&mut self.vectors);
        Ok(Some(EmbedResponse { vectors, usage: TokenUsage { prompt, completion: 0 } }))
    }
}

/// One vector of unit length from `[tokens, hidden]`.
fn pool(hidden: &Tensor, pooling: Pooling) -> TensorResult<Vec<f32>> {
    let vector = match pooling {
        Pooling::Mean => hidden.mean(0)?,
        Pooling::First => hidden.get(0)?,
    };
    let norm = vector.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
    vector.affine(1.0 / f64::from(norm.max(f32::MIN_POSITIVE)), 0.0)?.to_vec1()
}
