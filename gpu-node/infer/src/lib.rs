//! Sole user of candle: models, tokenizers, generation, embeddings, speech.
//!
//! Purpose: turn a directory of model files into networks that answer. A [`ModelSource`] describes
//! a model without reading its weights; [`Network`] is the weights, shared and immutable;
//! [`ChatModel`] and [`EmbeddingModel`] join a network with its text side (tokenizer, template), and an [`Adapter`] makes another
//! model of one, which [`fine_tune`] trains. A [`SpeechModel`] writes down what is said in a recording.
//! All of it but speech computes on a [`ComputeDevice`].
//! Invariants: requests see each other's keys and values only where they begin alike and belong
//! together ([`KvPool`]); what is computed in a batch equals what is computed alone; a malformed file is an error, never a panic.
//! Left out: scheduling, memory accounting and threads (`provost-gpu-serve`).

mod config;
mod decoder;
mod device;
mod embedding;
mod encoder;
mod error;
mod generation;
mod gguf;
mod kernels;
mod kv_cache;
mod linear;
mod logprobs;
mod lora;
mod network;
mod packed;
mod paged;
mod preparation;
mod rope;
mod safetensors_file;
mod sampler;
mod source;
mod speech;
mod speed;
mod text;
mod tune;

pub use decoder::{Decoder, Segment};
pub use device::{ComputeDevice, DeviceChoice, MeasuredMemory};
pub use embedding::{EMBED_BATCH_TOKENS, EmbedJob, EmbedPart, EmbeddingModel};
pub use encoder::Encoder;
pub use error::InferError;
pub use generation::{ChatModel, Finish, Generation, PROMPT_CHUNK, Step, Turn};
pub use kv_cache::{KeyValues, KvCache, KvPiece};
pub use lora::Adapter;
pub use network::Network;
pub use paged::{BLOCK_POSITIONS, KvPool, KvSequence, KvUsage};
pub use preparation::ChatPreparation;
pub use sampler::{Sampler, Sampling};
pub use source::{ModelSource, discover};
pub use speech::{
    Heard, MAX_AUDIO_BYTES, MAX_AUDIO_SECONDS, SpeechJob, SpeechModel, SpeechRequest, SpeechSegment, SpeechText,
    Transcript, Whisper,
};
pub use speed::{AnswerSpeed, answer_speeds};
pub use text::{ChatTemplate, ChatText, EmbeddingText, IncrementalText, StopTexts};
pub use tune::{
    BadLine, DataProblem, TaskFolder, TaskState, TuneError, TuneSettings, TuneStep, TuneTask, Tuned, fine_tune,
};
