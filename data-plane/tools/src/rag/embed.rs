//! Texts to vectors, by the cluster's model.
//!
//! Invariants: what a text's vector is does not depend on what is embedded beside it; a text that is longer than the
//! model reads is not cut off but taken in parts. Who indexes waits as long as the model is busy; who asks does not.

use std::time::Duration;

use provost_types::{
    EmbedRequest, EmbedResponse, Inference, InferenceError, InferenceErrorKind, ModelInfo, ModelKind, Name,
};
use tokio_util::sync::CancellationToken;

use super::RagError;

/// Texts of one request of the index: what callers ask meanwhile waits for few.
pub(super) const BATCH: usize = 8;
/// How often a text is halved that is too long; what is left of 32 KiB fits any model.
const MAX_HALVINGS: usize = 6;
/// Pause before a busy model is asked again, if it does not say how long.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Why texts of the index have no vectors.
#[derive(Debug)]
pub(super) enum Failed {
    /// The model takes one of them in no way.
    Text(String),
    /// It makes none now.
    Model(RagError),
}

impl From<RagError> for Failed {
    fn from(cause: RagError) -> Self {
        Self::Model(cause)
    }
}

/// The model of this name, if it is there for the tenant and makes vectors.
pub(super) fn model(inference: &dyn Inference, tenant: &Name, name: &str) -> Result<ModelInfo, RagError> {
    let found = inference.models_of(tenant.as_str()).into_iter().find(|model| model.name == name);
    match found {
        Some(model) if model.kind == ModelKind::Embedding => Ok(model),
        Some(_) => Err(RagError::Model(format!("`{name}` is no embedding model; name one in the plugin's document"))),
        None => Err(RagError::Model(format!("there is no model `{name}` on this node"))),
    }
}

/// The vector of a caller's question, and how many tokens that took.
pub(super) async fn question(
    inference: &dyn Inference,
    tenant: &Name,
    model: &ModelInfo,
    text: &str,
) -> Result<(Vec<f32>, u64), RagError> {
    let (tenant, inputs) = (tenant.to_string(), vec![text.to_owned()]);
    let request = EmbedRequest { tenant, model: model.name.clone(), inputs };
    let answer = inference.embed(request).await.map_err(|cause| match cause.kind {
        InferenceErrorKind::InvalidRequest => RagError::Arguments(format!("`query` cannot be embedded: {cause}")),
        _ => failed(&cause),
    })?;
    let tokens = answer.usage.prompt;
    let [vector] = <[Vec<f32>; 1]>::try_from(checked(answer, 1, model)?).map_err(|_| short(model))?;
    Ok((vector, tokens))
}

/// The vectors of some texts, in their order. Ends without them when it is to stop.
pub(super) async fn texts(
    inference: &dyn Inference,
    tenant: &Name,
    model: &ModelInfo,
    texts: &[String],
    stop: &CancellationToken,
) -> Result<Vec<Vec<f32>>, Failed> {
    match patiently(inference, tenant, model, texts, stop).await {
        Ok(vectors) => Ok(checked(vectors, texts.len(), model)?),
        Err(cause) if cause.kind == InferenceErrorKind::InvalidRequest => {
            // One of them is too long; which one is not said.
            let mut vectors = Vec::with_capacity(texts.len());
            for text in texts {
                vectors.push(long(inference, tenant, model, text, stop).await?);
            }
            Ok(vectors)
        }
        Err(cause) => Err(failed(&cause).into()),
    }
}

/// The mean of the vectors of a text's parts, of which there are as many as need be.
async fn long(
    inference: &dyn Inference,
    tenant: &Name,
    model: &ModelInfo,
    text: &str,
    stop: &CancellationToken,
) -> Result<Vec<f32>, Failed> {
    let mut parts = vec![text.to_owned()];
    for _ in 0..=MAX_HALVINGS {
        match patiently(inference, tenant, model, &parts, stop).await {
            Ok(vectors) => return Ok(mean(&checked(vectors, parts.len(), model)?)),
            Err(cause) if cause.kind == InferenceErrorKind::InvalidRequest => {
                parts = parts.iter().flat_map(|part| halves(part)).map(str::to_owned).collect();
            }
            Err(cause) => return Err(failed(&cause).into()),
        }
    }
    Err(Failed::Text(format!("`{}` does not take a piece of it, however short", model.name)))
}

/// Asks again while the model is busy.
async fn patiently(
    inference: &dyn Inference,
    tenant: &Name,
    model: &ModelInfo,
    texts: &[String],
    stop: &CancellationToken,
) -> Result<EmbedResponse, InferenceError> {
    loop {
        let (tenant, inputs) = (tenant.to_string(), texts.to_vec());
        let request = EmbedRequest { tenant, model: model.name.clone(), inputs };
        let cause = match inference.embed(request).await {
            Err(cause) if cause.kind == InferenceErrorKind::Busy => cause,
            ended => return ended,
        };
        let pause = cause.retry_after_ms.map_or(BUSY_PAUSE, Duration::from_millis);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Err(cause),
        }
    }
}

fn failed(cause: &InferenceError) -> RagError {
    RagError::Model(format!("the model makes no vectors: {cause}"))
}

fn short(model: &ModelInfo) -> RagError {
    RagError::Model(format!("`{}` answered with other vectors than were asked for", model.name))
}

/// As many vectors as texts, of the model's size.
fn checked(answer: EmbedResponse, count: usize, model: &ModelInfo) -> Result<Vec<Vec<f32>>, RagError> {
    let is_whole = |vector: &Vec<f32>| vector.len() == model.dimensions as usize && !vector.is_empty();
    if answer.vectors.len() == count && answer.vectors.iter().all(is_whole) {
        Ok(answer.vectors)
    } else {
        Err(short(model))
    }
}

/// Two parts of a text, cut near its middle, where there is space if there is some.
fn halves(text: &str) -> [&str; 2] {
    let middle = (text.len() / 2..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let (first, second) = text.split_at_checked(middle).unwrap_or((text, ""));
    let at = second.find(char::is_whitespace).map_or(middle, |space| middle + space);
    let (first, second) = text.split_at_checked(at).unwrap_or((first, second));
    [first, second]
}

/// The mean of vectors, of unit length.
fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vectors.first().cloned().unwrap_or_default();
    for vector in vectors.iter().skip(1) {
        for (sum, value) in sum.iter_mut().zip(vector) {
            *sum += value;
        }
    }
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        sum.iter_mut().for_each(|value| *value /= length);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_whole() {
        for text in ["one two three four", "onetwothreefour", "日本語の文書", "", "a", "é"] {
            assert_eq!(halves(text).concat(), text);
        }
        assert_eq!(halves("one two three four"), ["one two three", " four"]);
    }

    #[test]
    fn a_mean_has_unit_length() {
        let mean = mean(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert!((mean[0] - half).abs() < 1e-6 && (mean[1] - half).abs() < 1e-6, "{mean:?}");
    }
}
