//! What is written is read as it was meant.

use super::*;

fn error(kind: InferenceErrorKind, retry_after_ms: Option<u64>) -> InferenceError {
    InferenceError { kind, message: "PV-TEST: no".to_owned(), retry_after_ms }
}

#[test]
fn what_comes_of_a_chat_is_read_as_it_was_said() {
    let likely = |logprob| LikelyToken { bytes: vec![0xc3], logprob };
    let head = Some(CallHead { id: "1".to_owned(), name: "f".to_owned() });
    let usage = TokenUsage { prompt: 3, completion: 4 };
    let steps = [
        ChatEvent::Delta("né".to_owned()),
        ChatEvent::Silent,
        ChatEvent::Calls(vec![CallDelta { index: 2, head, arguments: "{".to_owned() }]),
        ChatEvent::Tokens(vec![TokenLogprob { chosen: likely(-0.5), top: vec![likely(f32::NEG_INFINITY)] }]),
        ChatEvent::End { reason: FinishReason::Stop, usage },
        ChatEvent::End { reason: FinishReason::ToolCalls, usage },
        ChatEvent::End { reason: FinishReason::Length, usage },
    ];
    for step in steps {
        assert_eq!(event(event_to_wire(Ok(step.clone()))), Ok(Said::Step(step)));
    }
    for kind in [InferenceErrorKind::ModelNotFound, InferenceErrorKind::InvalidRequest, InferenceErrorKind::Failed] {
        assert_eq!(event(event_to_wire(Err(error(kind, None)))), Ok(Said::Failed(error(kind, None))));
    }
    let busy = error(InferenceErrorKind::Busy, Some(1_500));
    assert_eq!(event(event_to_wire(Err(busy.clone()))), Ok(Said::Failed(busy)));
    assert_eq!(event(begun()), Ok(Said::Begun));
    assert!(event(wire::ChatEvent { event: None }).is_err());
    let strange = wire::End { reason: "bored".to_owned(), ..wire::End::default() };
    assert!(event(of(Event::End(strange))).is_err());
}

#[test]
fn vectors_are_read_as_they_were_made() {
    let made = EmbedResponse {
        vectors: vec![vec![0.25, -1.0e-30], vec![f32::MIN_POSITIVE, 7.0]],
        usage: TokenUsage { prompt: 9, completion: 0 },
    };
    assert_eq!(embedded(embedded_to_wire(Ok(made.clone()))), Ok(Ok(made)));
    let busy = error(InferenceErrorKind::Busy, Some(7));
    assert_eq!(embedded(embedded_to_wire(Err(busy.clone()))), Ok(Err(busy)));
    let cut = wire::EmbedResponse { vectors: vec![vec![1, 2, 3].into()], ..wire::EmbedResponse::default() };
    assert!(embedded(cut).is_err());
}

#[test]
fn a_transcript_is_read_as_it_was_written() {
    let segment = SpeechSegment { from_s: 0.02, to_s: 1.37, text: "né".to_owned(), mean_logprob: -0.3, silence: 0.1 };
    let usage = TokenUsage { prompt: 73, completion: 9 };
    for language in [Some("de".to_owned()), None] {
        let segments = vec![segment.clone(), SpeechSegment { from_s: 1.0 / 3.0, ..segment.clone() }];
        let made = Transcript { text: "né né".to_owned(), language, seconds: 1.37, segments, usage };
        assert_eq!(transcribed(transcribed_to_wire(Ok(made.clone()))), Ok(made));
    }
    let busy = error(InferenceErrorKind::Busy, Some(7));
    assert_eq!(transcribed(transcribed_to_wire(Err(busy.clone()))), Err(busy));
}

#[test]
fn a_report_is_read_as_it_was_written_but_for_what_is_not_known() {
    let info = ModelInfo {
        name: "m".to_owned(),
        kind: ModelKind::Embedding,
        architecture: "bert".to_owned(),
        context_tokens: 512,
        dimensions: 384,
        created: 5,
    };
    let models = ModelState::ALL.map(|state| ModelReport {
        info: info.clone(),
        state,
        weight_bytes: 1,
        load_ms: 2,
        waiting: 3,
        running: 4,
        tokens_per_s: 5.5,
    });
    let told = GpuReport {
        models: models.into(),
        tenants: [("m".to_owned(), ["acme".to_owned(), "umbra".to_owned()].into())].into(),
        bases: [("m".to_owned(), "base".to_owned())].into(),
        waiting: 1,
        slots: 16,
        draining: true,
        ..GpuReport::default()
    };
    let mut written = report_to_wire(&told);
    assert_eq!(report(written.clone()), told);
    written.models[0].kind = "smell".to_owned();
    written.models[1].state = "gone".to_owned();
    assert_eq!(report(written).models, told.models[2..]);
}
