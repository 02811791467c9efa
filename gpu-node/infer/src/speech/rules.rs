//! Which tokens may come next in a text with timestamps (Whisper's rules, in OpenAI's `whisper/decoding.py`).
//!
//! Timestamps come in pairs but for those at the beginning and the end, never go back, and one comes where all of them
//! together are likelier than any other token. What is no text is never written.

use super::text::SpeechText;

/// Forbids what may not come after `written`, the tokens of this window so far.
pub(super) fn apply(text: &SpeechText, written: &[u32], timestamps: bool, logits: &mut [f32]) {
    let tokens = text.tokens;
    // All that is said to the decoder, and never by it; and what lies behind the end of the window.
    forbid(logits, tokens.end.saturating_add(1), tokens.timestamps as usize);
    forbid(logits, tokens.timestamps.saturating_add(text.last_step()).saturating_add(1), usize::MAX);
    let first = if written.is_empty() { text.suppressed_first.as_slice() } else { &[] };
    for token in text.suppressed.iter().chain(first) {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    if !timestamps {
        forbid(logits, tokens.timestamps, usize::MAX);
        return;
    }
    if written.is_empty() {
        forbid(logits, 0, tokens.timestamps as usize);
        forbid(logits, tokens.timestamps.saturating_add(text.first_timestamp).saturating_add(1), usize::MAX);
        return;
    }
    let is_time = |token: Option<&u32>| token.is_some_and(|token| *token >= tokens.timestamps);
    let ends_in_time = is_time(written.last());
    let before = written.len().checked_sub(2).and_then(|at| written.get(at));
    // At the beginning stands one without another.
    let ends_in_pair = ends_in_time && before.is_none_or(|token| is_time(Some(token)));
    if ends_in_pair {
        forbid(logits, tokens.timestamps, usize::MAX);
    } else if ends_in_time {
        forbid(logits, 0, tokens.end as usize);
    }
    if let Some(last) = written.iter().rfind(|token| **token >= tokens.timestamps) {
        // What begins may begin where the last one ended; what ends does so later than it began.
        let least = if ends_in_time && !ends_in_pair { *last } else { last.saturating_add(1) };
        forbid(logits, tokens.timestamps, least as usize);
    }
    if are_times_likelier(logits, tokens.timestamps as usize) {
        forbid(logits, 0, tokens.timestamps as usize);
    }
}

fn forbid(logits: &mut [f32], from: u32, to: usize) {
    let to = to.min(logits.len());
    if let Some(range) = logits.get_mut((from as usize).min(to)..to) {
        range.fill(f32::NEG_INFINITY);
    }
}

/// Whether all timestamps together are likelier than each other token.
fn are_times_likelier(logits: &[f32], timestamps: usize) -> bool {
    let (others, times) = logits.split_at(timestamps.min(logits.len()));
    let highest = |logits: &[f32]| logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (other, time) = (highest(others), highest(times));
    if !time.is_finite() {
        return false;
    }
    let sum: f32 = times.iter().map(|logit| (logit - time).exp()).sum();
    time + sum.ln() > other
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "ranges of tokens, of which a case may have one")]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::speech::text::{Tokens, tiny};

    /// What may follow `written` where all tokens are alike, as ranges.
    fn may_follow(written: &[u32], timestamps: bool) -> Vec<std::ops::Range<u32>> {
        let text = tiny();
        // Alike, but that no token alone is less likely than all timestamps.
        let mut logits = vec![0.0; 367];
        logits[0] = 100.0;
        logits[256] = 100.0;
        apply(&text, written, timestamps, &mut logits);
        let mut ranges: Vec<std::ops::Range<u32>> = Vec::new();
        for id in (0..367_u32).filter(|id| logits[*id as usize].is_finite()) {
            match ranges.last_mut() {
                Some(range) if range.end == id => range.end = id + 1,
                _ => ranges.push(id..id + 1),
            }
        }
        ranges
    }

    #[test]
    fn timestamps_come_in_pairs_and_never_go_back() {
        let Tokens { timestamps: zero, end, .. } = tiny().tokens;
        assert_eq!((zero, end), (266, 256));
        // At first one of the first second, then text or another end.
        assert_eq!(may_follow(&[], true), [zero..zero + 51]);
        assert_eq!(may_follow(&[zero + 5], true), [0..end + 1]);
        // After a text: more of it, the end, or a later timestamp.
        assert_eq!(may_follow(&[zero + 5, 65], true), [0..end + 1, zero + 6..zero + 101]);
        // What has ended may be followed by what begins, there or later, or by nothing.
        assert_eq!(may_follow(&[zero + 5, 65, zero + 9], true), [end..end + 1, zero + 9..zero + 101]);
        assert_eq!(may_follow(&[zero + 5, 65, zero + 9, zero + 9], true), [0..end + 1]);
        assert_eq!(may_follow(&[zero, 65, zero + 100], true), [end..end + 1, zero + 100..zero + 101]);
    }

    #[test]
    fn without_timestamps_there_is_text_only() {
        assert_eq!(may_follow(&[], false), [0..257]);
        assert_eq!(may_follow(&[65], false), [0..257]);
    }

    #[test]
    fn a_timestamp_comes_where_all_together_are_likelier_than_any_token() {
        let (text, mut logits) = (tiny(), vec![0.0; 367]);
        logits[65] = 4.0;
        apply(&text, &[266, 66], true, &mut logits);
        assert!(logits[65].is_infinite() && logits[300].is_finite(), "a hundred are likelier than e^4");
        let mut logits = vec![0.0; 367];
        logits[65] = 5.0;
        apply(&text, &[266, 66], true, &mut logits);
        assert!(logits[65].is_finite());
    }
}
