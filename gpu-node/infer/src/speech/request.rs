//! What is asked of a speech model, and what comes of it.

use std::sync::Arc;

use provost_types::TokenUsage;

/// Write down what is said in a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechRequest {
    /// A WAV, FLAC, MP3 or Ogg Vorbis file of at most [`MAX_AUDIO_BYTES`](crate::MAX_AUDIO_BYTES) and
    /// [`MAX_AUDIO_SECONDS`](crate::MAX_AUDIO_SECONDS).
    pub audio: Arc<[u8]>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    /// All of it.
    pub text: String,
    /// The language that was spoken; None of a model that knows one.
    pub language: Option<String>,
    /// Length of the recording, in seconds.
    pub seconds: f64,
    /// Its pieces, in order of time.
    pub segments: Vec<SpeechSegment>,
    /// Read: a fiftieth of a second of sound is a token, and so are those of the prompt, once a window. Made: tokens of text
    /// and of times.
    pub usage: TokenUsage,
}

/// A piece of what was said.
#[derive(Clone, Debug, PartialEq)]
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
