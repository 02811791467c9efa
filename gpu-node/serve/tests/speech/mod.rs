//! Recordings on the node: written down as by the model alone, beside others, and no longer than somebody waits.

use std::time::Duration;

use provost_gpu_infer::{SpeechModel, SpeechRequest};
use provost_types::{
    Inference, InferenceError, InferenceErrorKind, ModelKind, SOUND_TOKENS_A_SECOND, Sound, TranscribeRequest,
    Transcript,
};

use crate::common::{Models, chat, collect, embed, fixtures, until};
use crate::{start, start_with};

/// Times of the recording that take a while, but not too long to be decoded without optimisation.
const LONG: usize = 60;

/// The recording of the fixtures, several times over: 1.37 seconds each.
pub fn recording(times: usize) -> Vec<u8> {
    let file = std::fs::read(fixtures().join("glide.wav")).unwrap();
    let (head, sound) = file.split_at(44);
    let (mut made, sound) = (head.to_vec(), sound.repeat(times));
    let length = u32::try_from(sound.len()).unwrap();
    made[4..8].copy_from_slice(&(36 + length).to_le_bytes());
    made[40..44].copy_from_slice(&length.to_le_bytes());
    made.extend(sound);
    made
}

pub fn transcribe(model: &str, times: usize) -> TranscribeRequest {
    TranscribeRequest {
        tenant: "acme".to_owned(),
        model: model.to_owned(),
        sound: Sound::new(recording(times)),
        language: Some("en".to_owned()),
        prompt: String::new(),
        temperature: 0.0,
        timestamps: times > 1,
    }
}

/// By the model alone.
fn alone(times: usize) -> Transcript {
    let model = SpeechModel::open("tiny-whisper", &fixtures().join("tiny-whisper")).unwrap();
    let TranscribeRequest { sound, language, prompt, temperature, timestamps, .. } = transcribe("tiny-whisper", times);
    let request = SpeechRequest { audio: sound.bytes().to_vec().into(), language, prompt, temperature, timestamps };
    let mut job = model.start(&request).unwrap();
    loop {
        if let Some(transcript) = model.step(&mut job).unwrap() {
            return transcript;
        }
    }
}

#[tokio::test]
async fn recordings_are_written_down_side_by_side_as_each_alone() {
    let models = Models::new(&["tiny-whisper", "tiny-chat"]);
    let node = start(&models);
    let listed = node.models().into_iter().find(|model| model.name == "tiny-whisper").unwrap();
    assert_eq!((listed.kind, listed.architecture.as_str()), (ModelKind::Speech, "whisper"));
    let (one, two, said) = futures::join!(
        node.transcribe(transcribe("tiny-whisper", 1)),
        node.transcribe(transcribe("tiny-whisper", 4)),
        collect(&node, chat("tiny-chat", "hello", 8)),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    said.unwrap();
    for (found, expected) in [(&one, alone(1)), (&two, alone(4))] {
        assert_eq!((&found.text, &found.language), (&expected.text, &expected.language));
        assert_eq!((found.usage, found.segments.len()), (expected.usage, expected.segments.len()));
    }
    assert!(!one.text.is_empty() && one.usage.completion > 0);
    assert!(two.usage.prompt >= 5 * SOUND_TOKENS_A_SECOND, "{:?}", two.usage);
    until("all is given back but the cache of the chat", || {
        node.usage().reserved == node.kv_usage().capacity && node.counts().running == 0
    })
    .await;
}

#[tokio::test]
async fn models_of_another_kind_and_files_that_are_no_sound_are_refused_by_their_cause() {
    let models = Models::new(&["tiny-whisper", "tiny-chat"]);
    let node = start(&models);
    let refused = |error: InferenceError, says: &str| {
        assert_eq!(error.kind, InferenceErrorKind::InvalidRequest, "{error}");
        assert!(error.message.contains(says), "{error}");
    };
    refused(node.transcribe(transcribe("tiny-chat", 1)).await.unwrap_err(), "PV-MODEL-KIND");
    refused(collect(&node, chat("tiny-whisper", "hi", 4)).await.unwrap_err(), "PV-MODEL-KIND");
    refused(node.embed(embed("tiny-whisper", &["hi"])).await.unwrap_err(), "PV-MODEL-KIND");
    let noise = TranscribeRequest { sound: Sound::new(b"no sound".to_vec()), ..transcribe("tiny-whisper", 1) };
    refused(node.transcribe(noise).await.unwrap_err(), "audio");
    let strange = TranscribeRequest { language: Some("tlh".to_owned()), ..transcribe("tiny-whisper", 1) };
    refused(node.transcribe(strange).await.unwrap_err(), "`language`");
    let unknown = node.transcribe(transcribe("nobody", 1)).await.unwrap_err();
    assert_eq!(unknown.kind, InferenceErrorKind::ModelNotFound);
}

#[tokio::test]
async fn who_leaves_has_cancelled_and_a_long_recording_holds_up_nobody() {
    let models = Models::new(&["tiny-whisper", "tiny-chat"]);
    let node = start(&models);
    // Both are in memory: nobody waits for that below.
    collect(&node, chat("tiny-chat", "short", 2)).await.unwrap();
    node.transcribe(transcribe("tiny-whisper", 1)).await.unwrap();
    let long = {
        let node = node.clone();
        tokio::spawn(async move { node.transcribe(transcribe("tiny-whisper", LONG)).await })
    };
    until("it is under way", || node.counts().running == 1).await;
    collect(&node, chat("tiny-chat", "short", 5)).await.unwrap();
    node.transcribe(transcribe("tiny-whisper", 1)).await.unwrap();
    assert!(!long.is_finished(), "it is not over yet");
    long.abort();
    until("it is given up", || node.counts().running == 0).await;
    until("its memory is given back", || node.usage().reserved == node.kv_usage().capacity).await;
}

#[tokio::test]
async fn who_finds_no_place_is_told_when_to_come_again() {
    let models = Models::new(&["tiny-whisper"]);
    let node = start_with(&models, |config| {
        config.queue_bound = 1;
        config.active_chats = 1;
    });
    let ask = || {
        let node = node.clone();
        tokio::spawn(async move { node.transcribe(transcribe("tiny-whisper", LONG)).await })
    };
    let running = ask();
    until("one runs", || node.counts().running == 1).await;
    let waiting = ask();
    until("one waits", || node.counts().waiting == 1).await;
    let refused = node.transcribe(transcribe("tiny-whisper", 1)).await.unwrap_err();
    assert_eq!(refused.kind, InferenceErrorKind::Busy);
    assert!(refused.retry_after_ms.is_some_and(|ms| ms > 0), "{refused}");
    running.abort();
    waiting.abort();
    until("both are given up", || node.counts().running == 0 && node.counts().waiting == 0).await;
    let answered = tokio::time::timeout(Duration::from_secs(60), node.transcribe(transcribe("tiny-whisper", 1))).await;
    answered.expect("its place is free").unwrap();
}
