//! How fast a model answers: what is counted, and who is refused.
#![allow(clippy::unwrap_used)]

mod common;

use common::fixtures;
use provost_gpu_infer::{InferError, answer_speeds};

#[test]
fn every_round_but_the_first_is_told_with_its_tokens_and_times() {
    let told = answer_speeds(&fixtures().join("tiny-chat"), 40, 4, 2).unwrap();
    assert_eq!(told.len(), 2);
    for one in told {
        // Letters are tokens of this model, and its template adds some.
        assert!(one.prompt >= 40 && one.decoded <= 3, "{one:?}");
        assert!(!one.prefill.is_zero(), "{one:?}");
    }
}

#[test]
fn a_model_that_writes_no_tokens_is_refused() {
    let refused = answer_speeds(&fixtures().join("tiny-whisper"), 8, 4, 1).unwrap_err();
    assert!(matches!(refused, InferError::Unsupported { .. }), "{refused}");
}
