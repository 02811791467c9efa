//! How likely tokens were.

use provost_types::{LikelyToken, TokenLogprob};

use crate::error::InferError;
use crate::text::ChatText;

/// Most alternatives of one token, as OpenAI's API has it.
const MAX_ALTERNATIVES: u32 = 20;

/// Checks how many alternatives are asked for.
pub(crate) fn checked(wanted: Option<u32>) -> Result<Option<usize>, InferError> {
    match wanted {
        Some(wanted) if wanted > MAX_ALTERNATIVES => {
            Err(InferError::Request(format!("top_logprobs is {wanted}, must be 0 to {MAX_ALTERNATIVES}")))
        }
        wanted => Ok(wanted.map(|wanted| wanted as usize)),
    }
}

/// The logarithm of the softmax at `token` and at the `alternatives` likeliest. `logits` are numbers:
/// the sampler has looked.
pub(crate) fn of(
    text: &ChatText,
    previous: Option<u32>,
    token: u32,
    logits: &[f32],
    alternatives: usize,
) -> TokenLogprob {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    let norm = highest + sum.ln() as f32;
    let likely = |id: u32| LikelyToken {
        bytes: text.bytes().bytes(text.tokenizer(), previous, id),
        logprob: logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY) - norm,
    };
    TokenLogprob { chosen: likely(token), top: likeliest(logits, alternatives).into_iter().map(likely).collect() }
}

/// The ids of the highest logits, highest first, the lower id first among equals.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let order = |a: &u32, b: &u32| {
        let at = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        at(*b).total_cmp(&at(*a)).then(a.cmp(b))
    };
    let count = count.min(ids.len());
    if count < ids.len() && count > 0 {
        ids.select_nth_unstable_by(count - 1, order);
    }
    ids.truncate(count);
    ids.sort_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_in_order() {
        let logits = [0.5, 2.0, -1.0, 2.0, 1.0];
        assert_eq!(likeliest(&logits, 3), [1, 3, 4]);
        assert_eq!(likeliest(&logits, 0), [0u32; 0]);
        assert_eq!(likeliest(&logits, 9), [1, 3, 4, 0, 2]);
    }

    #[test]
    fn more_alternatives_than_the_bound_are_refused() {
        assert!(checked(Some(MAX_ALTERNATIVES + 1)).is_err());
        assert!(matches!(checked(Some(MAX_ALTERNATIVES)), Ok(Some(20))));
        assert!(matches!(checked(None), Ok(None)));
    }
}
