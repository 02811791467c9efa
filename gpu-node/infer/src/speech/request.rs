//! What is asked of a speech model, and what comes of it.

use std::sync::Arc;

pub use provost_types::{SpeechSegment, Transcript};

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
