//! Writing down what is said in recordings, as the data plane asks for it and GPU nodes answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{TokenUsage, wav};

/// Largest recording, as a file, in bytes.
pub const MAX_SOUND_BYTES: usize = 25 << 20;
/// Longest recording, in seconds.
pub const MAX_SOUND_SECONDS: u32 = 600;
/// A second of sound counts as so many tokens that are read.
pub const SOUND_TOKENS_A_SECOND: u64 = 50;
/// Most tokens of a text: so many for each second that has begun …
const TEXT_TOKENS_A_SECOND: u64 = 16;
/// … and so many more. People say less than ten in a second; a model that repeats itself would not end sooner.
const MORE_TEXT_TOKENS: u64 = 256;

/// What a model is told beside sound and prompt, at most: where each begins, language, task, whether there are times.
const TOLD_TOKENS: u64 = 8;

/// Most tokens that are made of a recording of so many seconds; its text is cut off there.
pub fn speech_tokens_at_most(seconds: u64) -> u64 {
    seconds.saturating_mul(TEXT_TOKENS_A_SECOND).saturating_add(MORE_TEXT_TOKENS)
}

/// Whole seconds that a recording lasts, at most: of a WAV file with plain samples by its header, of others
/// [`MAX_SOUND_SECONDS`]. Who decodes it keeps to this, since so much was reserved.
pub fn sound_seconds_at_most(file: &[u8]) -> u64 {
    wav::seconds_at_most(file)
}

/// The bytes of a recording, as a file. What prints it tells its length only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sound(Bytes);

impl Sound {
    /// A file's bytes.
    pub fn new(file: impl Into<Bytes>) -> Self {
        Self(file.into())
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same as [`sound_seconds_at_most`].
    pub fn seconds_at_most(&self) -> u64 {
        sound_seconds_at_most(&self.0)
    }

    /// Tokens that are read of it after a prompt of so many bytes, and that are made of it, at most.
    pub fn tokens_at_most(&self, prompt_bytes: usize) -> (u64, u64) {
        let seconds = self.seconds_at_most();
        let told = TOLD_TOKENS.saturating_add(prompt_bytes as u64);
        (seconds.saturating_mul(SOUND_TOKENS_A_SECOND).saturating_add(told), speech_tokens_at_most(seconds))
    }
}

impl std::fmt::Debug for Sound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sound({} bytes)", self.0.len())
    }
}

/// Write down what is said in a recording. What holds of the form of [`ChatRequest`](crate::ChatRequest) holds of this one; the
/// sound goes beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranscribeRequest {
    /// Whose request it is: tenants share the device fairly. Empty for the node's own work.
    pub tenant: String,
    /// The model's name.
    pub model: String,
    /// A WAV, FLAC, MP3 or Ogg Vorbis file of at most [`MAX_SOUND_BYTES`] and [`MAX_SOUND_SECONDS`].
    #[serde(skip)]
    pub sound: Sound,
    /// The language that is spoken, such as `en`. None: the model finds out.
    pub language: Option<String>,
    /// What is taken to have been said before: names and spellings to follow. May be empty.
    pub prompt: String,
    /// 0 is greedy; at most 1.
    pub temperature: f32,
    /// Tell when what was said. Recordings longer than a window have times in any case.
    pub timestamps: bool,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// All of it.
    pub text: String,
    /// The language that was spoken; None of a model that knows one.
    pub language: Option<String>,
    /// Length of the recording, in seconds.
    pub seconds: f64,
    /// Its pieces, in order of time.
    pub segments: Vec<SpeechSegment>,
    /// Read: [`SOUND_TOKENS_A_SECOND`] of sound, and what the model is told before its first text. Made: tokens of text and of
    /// times, at most [`speech_tokens_at_most`].
    pub usage: TokenUsage,
}

/// A piece of what was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeechSegment {
    /// When it begins, in seconds from the beginning of the recording.
    pub from_s: f64,
    /// When it ends, likewise.
    pub to_s: f64,
    /// What was said.
    pub text: String,
    /// The mean of the natural logarithms of its window's tokens' probabilities.
    pub mean_logprob: f32,
    /// How likely its window has no speech; 0 where the model does not say it.
    pub silence: f32,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_request_holds_no_sound_and_printing_it_tells_none() {
        let request = TranscribeRequest {
            tenant: "acme".to_owned(),
            model: "whisper".to_owned(),
            sound: Sound::new(b"a secret was said".to_vec()),
            language: None,
            prompt: String::new(),
            temperature: 0.0,
            timestamps: true,
        };
        let text = serde_json::to_string(&request).unwrap();
        assert!(!text.contains("sound") && !text.contains("97,32"), "{text}");
        assert_eq!(format!("{:?}", request.sound), "Sound(17 bytes)");
        let read: TranscribeRequest = serde_json::from_str(&text).unwrap();
        assert_eq!(read, TranscribeRequest { sound: Sound::default(), ..request });
    }

    #[test]
    fn what_a_file_may_cost_is_known_before_it_is_heard() {
        assert_eq!(Sound::new(&b"ID3"[..]).tokens_at_most(3), (30_000 + 11, 9_856));
        assert_eq!(Sound::default().seconds_at_most(), u64::from(MAX_SOUND_SECONDS));
    }

    #[test]
    fn a_longer_recording_may_have_a_longer_text() {
        assert_eq!([0, 1, 600].map(speech_tokens_at_most), [256, 272, 9_856]);
        assert_eq!(speech_tokens_at_most(u64::MAX), u64::MAX);
    }
}
