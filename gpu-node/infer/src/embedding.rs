//! Embedding texts, batch by batch.

use std::sync::Arc;

use candle_core::{Result as TensorResult, Tensor};
use provost_types::{EmbedResponse, TokenUsage};

use crate::encoder::Encoder;
use crate::error::InferError;
use crate::text::{EmbeddingText, Pooling};

/// Tokens that one step computes, so that many texts do not hold up others.
const BATCH_TOKENS: usize = 512;
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
        if inputs.is_empty() || inputs.len() > MAX_INPUTS {
            return Err(InferError::Request(format!("{} inputs, must be 1 to {MAX_INPUTS}", inputs.len())));
        }
        Ok(EmbedJob {
            tokens: self.text.encode(inputs, self.encoder.context())?,
            vectors: Vec::with_capacity(inputs.len()),
        })
    }

    /// Bytes that the job's largest step needs besides weights.
    pub fn memory_bytes(&self, job: &EmbedJob) -> u64 {
        let longest = job.tokens.iter().map(Vec::len).max().unwrap_or(0);
        let total: usize = job.tokens.iter().map(Vec::len).sum();
        let rows = total.min(BATCH_TOKENS.max(longest));
        self.encoder.scratch_bytes(rows, longest)
    }

    /// Computes the next batch; the whole answer once all texts are done.
    ///
    /// # Errors
    /// [`InferError::Failed`] when the computation failed.
    pub fn step(&self, job: &mut EmbedJob) -> Result<Option<EmbedResponse>, InferError> {
        let batch = job.next_batch();
        let vectors = self.vectors(&batch).map_err(InferError::compute)?;
        if vectors.iter().flatten().any(|x| !x.is_finite()) {
            return Err(InferError::Failed(
                "the model's output is not a number; its weights may be damaged".to_owned(),
            ));
        }
        job.vectors.extend(vectors);
        if job.vectors.len() < job.tokens.len() {
            return Ok(None);
        }
        let prompt = job.tokens.iter().map(|tokens| tokens.len() as u64).sum();
        Ok(Some(EmbedResponse {
            vectors: std::mem::take(&mut job.vectors),
            usage: TokenUsage { prompt, completion: 0 },
        }))
    }

    fn vectors(&self, batch: &[&[u32]]) -> TensorResult<Vec<Vec<f32>>> {
        self.encoder.hidden(batch)?.iter().map(|hidden| pool(hidden, self.text.pooling())).collect()
    }
}

impl EmbedJob {
    /// The next texts that fit the budget; at least one.
    fn next_batch(&self) -> Vec<&[u32]> {
        let mut tokens = 0;
        let mut batch: Vec<&[u32]> = Vec::new();
        for text in &self.tokens[self.vectors.len()..] {
            tokens += text.len();
            if !batch.is_empty() && tokens > BATCH_TOKENS {
                break;
            }
            batch.push(text);
        }
        batch
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
