//! Speech to text: Whisper.
//!
//! Purpose: a recording in, what was said out. [`samples`] makes samples of a file, [`mel`] a spectrogram of samples, [`whisper`]
//! are the networks, [`job`] goes through a recording window by window.
//! Invariants: whatever is sent, what is decoded, kept and computed is bounded; a job is advanced by one layer of the encoder
//! or one token at a time, so that others can be served between; it computes what transformers computes.
//! Left out: translating, times of words, beam search, and telling who speaks.

mod config;
mod job;
mod mel;
mod open;
mod request;
mod resample;
mod rules;
mod samples;
mod segments;
mod text;
mod weights;
mod whisper;

pub(crate) use config::WhisperConfig;
pub use job::{SpeechJob, SpeechModel};
pub use request::{SpeechRequest, SpeechSegment, Transcript};
pub use samples::{MAX_AUDIO_BYTES, MAX_AUDIO_SECONDS};
pub use text::SpeechText;
pub(crate) use weights::load as load_weights;
pub use whisper::{Heard, Whisper};
