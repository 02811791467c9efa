//! From a recording to its text, window by window, a little at a time.

use std::sync::Arc;

use candle_core::Tensor;
use provost_types::{TokenUsage, speech_tokens_at_most};

use super::mel::{FRAMES_A_POSITION, LogMel};
use super::request::{SpeechRequest, SpeechSegment, Transcript};
use super::rules;
use super::samples::{samples, seconds};
use super::segments::{Window, cut};
use super::text::SpeechText;
use super::whisper::{Heard, Whisper};
use crate::error::InferError;
use crate::kv_cache::KvCache;
use crate::sampler::{Sampler, Sampling};

/// Highest temperature that is accepted.
const MAX_TEMPERATURE: f32 = 1.0;
/// A window that is likelier than this to have no speech, and whose text is less likely than [`DOUBTED`], has none.
const SILENT: f32 = 0.6;
/// See [`SILENT`]: a mean of natural logarithms.
const DOUBTED: f32 = -1.0;
/// Windows of a recording, beside two for each of its lengths: further ones follow each other without overlap.
const MORE_WINDOWS: usize = 8;

/// A speech model: weights and text side.
#[derive(Clone, Debug)]
pub struct SpeechModel {
    whisper: Arc<Whisper>,
    text: Arc<SpeechText>,
}

/// A recording on its way to text.
#[derive(Debug)]
pub struct SpeechJob {
    mel: LogMel,
    seconds: f64,
    prompt: Vec<u32>,
    language: Option<u32>,
    timestamps: bool,
    sampler: Sampler,
    window_frames: usize,
    /// The frame that the window begins with.
    from: usize,
    /// Windows that were written down.
    windows: usize,
    phase: Phase,
    segments: Vec<SpeechSegment>,
    usage: TokenUsage,
    /// Tokens of its text, at most.
    most_written: u64,
    /// Positions that were heard and tokens that were read and written.
    computed: u64,
}

#[derive(Debug)]
enum Phase {
    /// A window is to begin.
    Between,
    /// So many layers of the encoder are done, and this came out.
    Hearing {
        layers: usize,
        x: Tensor,
    },
    Writing(Box<Writing>),
}

/// A window's text while it is written.
#[derive(Debug)]
struct Writing {
    heard: Heard,
    cache: KvCache,
    /// Tokens to be read next.
    next: Vec<u32>,
    written: Vec<u32>,
    /// Tokens that it may have.
    most: usize,
    /// Of the tokens that were chosen, the end too.
    logprobs: f64,
    silence: f32,
}

impl SpeechJob {
    /// Reads a recording and what is asked of it. It needs no weights, takes time, and may be done on any thread.
    ///
    /// # Errors
    /// [`InferError::Request`] when the recording cannot be read or is too long, or the request is out of range.
    pub fn of(text: &SpeechText, request: &SpeechRequest) -> Result<Self, InferError> {
        if !(0.0..=MAX_TEMPERATURE).contains(&request.temperature) {
            return Err(InferError::Request(format!(
                "temperature is {}, must be 0 to {MAX_TEMPERATURE}",
                request.temperature
            )));
        }
        let language = text.language(request.language.as_deref())?;
        let prompt = text.prompt(&request.prompt)?;
        let samples = samples(Arc::clone(&request.audio))?;
        let (mel, seconds) = (LogMel::of(&samples, text.bins), seconds(samples.len()));
        // Whole seconds, of which the last may not be over.
        let most_written = speech_tokens_at_most(seconds.ceil() as u64);
        Ok(Self {
            timestamps: request.timestamps || mel.frames() > text.window_frames,
            mel,
            seconds,
            prompt,
            language,
            sampler: Sampler::new(Sampling::at(request.temperature)),
            window_frames: text.window_frames,
            from: 0,
            windows: 0,
            phase: Phase::Between,
            segments: Vec::new(),
            usage: TokenUsage::default(),
            most_written,
            computed: 0,
        })
    }

    /// What was computed for it so far, in tokens: positions that were heard, and tokens that were read and written. A part
    /// that is heard again counts again, which the usage does not tell.
    pub fn computed(&self) -> u64 {
        self.computed
    }

    /// Bytes of the recording as it is kept while it is written down.
    pub fn bytes(&self) -> u64 {
        self.mel.bytes()
    }

    /// What the model hears of the window that begins with a frame, hundredths of a second from the beginning: each bin of the
    /// mel spectrogram in one piece.
    pub fn spectrogram(&self, from: usize) -> Vec<f32> {
        self.mel.window(from, self.window_frames)
    }
}

impl SpeechModel {
    /// Joins weights and text side.
    pub fn new(whisper: Arc<Whisper>, text: Arc<SpeechText>) -> Self {
        Self { whisper, text }
    }

    /// Its weights.
    pub fn whisper(&self) -> &Whisper {
        &self.whisper
    }

    /// Reads a recording and what is asked of it; nothing is computed yet.
    ///
    /// # Errors
    /// As [`SpeechJob::of`] and [`begin`](Self::begin).
    pub fn start(&self, request: &SpeechRequest) -> Result<SpeechJob, InferError> {
        self.begin(SpeechJob::of(&self.text, request)?)
    }

    /// Begins a job that was read with the text side of this model.
    ///
    /// # Errors
    /// [`InferError::Request`] when its prompt has a token that the model does not know.
    pub fn begin(&self, job: SpeechJob) -> Result<SpeechJob, InferError> {
        InferError::check_tokens(&job.prompt, self.whisper.vocabulary())?;
        Ok(job)
    }

    /// Bytes that a job needs besides weights.
    pub fn memory_bytes(&self) -> u64 {
        self.whisper.scratch_bytes()
    }

    /// Goes on with a job, by one layer of the encoder or one token; its text once all of it is written.
    ///
    /// # Errors
    /// [`InferError::Failed`] when the computation failed. The job is over then.
    pub fn step(&self, job: &mut SpeechJob) -> Result<Option<Transcript>, InferError> {
        job.phase = match std::mem::replace(&mut job.phase, Phase::Between) {
            Phase::Between => {
                let x = self.whisper.listen(job.spectrogram(job.from)).map_err(InferError::compute)?;
                job.computed += job.window_frames.div_ceil(FRAMES_A_POSITION) as u64;
                Phase::Hearing { layers: 0, x }
            }
            Phase::Hearing { layers, x } if layers < self.whisper.encoder_layers() => {
                let x = self.whisper.encode_layer(layers, &x).map_err(InferError::compute)?;
                Phase::Hearing { layers: layers + 1, x }
            }
            Phase::Hearing { x, .. } => Phase::Writing(Box::new(self.begin_writing(job, &x)?)),
            Phase::Writing(mut writing) => match self.write(job, &mut writing)? {
                false => Phase::Writing(writing),
                true => {
                    self.finish_window(job, &writing)?;
                    if job.from >= job.mel.frames() {
                        return Ok(Some(self.transcript(job)));
                    }
                    Phase::Between
                }
            },
        };
        Ok(None)
    }

    /// What the decoder is told before it writes, of the encoder's rows.
    fn begin_writing(&self, job: &mut SpeechJob, x: &Tensor) -> Result<Writing, InferError> {
        let heard = self.whisper.encoded(x).and_then(|encoded| self.whisper.heard(&encoded));
        let heard = heard.map_err(InferError::compute)?;
        let tokens = self.text.tokens;
        if job.language.is_none() {
            job.language = self.spoken(&heard)?;
        }
        let mut next = job.prompt.clone();
        next.push(tokens.start);
        if let (Some(language), Some(transcribe)) = (job.language, tokens.transcribe) {
            next.extend([language, transcribe]);
        }
        if !job.timestamps {
            next.push(tokens.no_timestamps);
        }
        // Half of the context is for what comes before.
        let most = (self.text.context / 2).min(self.text.context.saturating_sub(next.len()));
        let left = usize::try_from(job.most_written.saturating_sub(job.usage.completion)).unwrap_or(usize::MAX);
        let most = most.min(left);
        job.computed += next.len() as u64;
        if job.windows == 0 {
            job.usage.prompt += next.len() as u64;
        }
        let cache = self.whisper.cache();
        Ok(Writing { heard, cache, next, written: Vec::new(), most, logprobs: 0.0, silence: 0.0 })
    }

    /// The likeliest language; `None`: the model knows one.
    fn spoken(&self, heard: &Heard) -> Result<Option<u32>, InferError> {
        if self.text.languages().next().is_none() {
            return Ok(None);
        }
        let logits = self.whisper.read(&[self.text.tokens.start], heard, &mut self.whisper.cache());
        let logits = logits.map_err(InferError::compute)?;
        let of = |token: u32| logits.first().and_then(|row| row.get(token as usize)).copied().unwrap_or(f32::MIN);
        Ok(self.text.languages().max_by(|a, b| of(*a).total_cmp(&of(*b))))
    }

    /// Writes one token. True: the window's text has ended.
    fn write(&self, job: &mut SpeechJob, writing: &mut Writing) -> Result<bool, InferError> {
        let tokens = self.text.tokens;
        let read = self.whisper.read(&writing.next, &writing.heard, &mut writing.cache);
        let mut rows = read.map_err(InferError::compute)?;
        if let (true, Some(silence)) = (writing.written.is_empty(), tokens.silence) {
            let start = writing.next.iter().position(|token| *token == tokens.start);
            let row = start.and_then(|start| rows.get(start));
            writing.silence = row.map_or(0.0, |row| logprob(row, silence).exp());
        }
        let Some(mut logits) = rows.pop() else {
            return Err(InferError::Failed("the decoder gave no answer".to_owned()));
        };
        rules::apply(&self.text, &writing.written, job.timestamps, &mut logits);
        let token = job.sampler.pick(&logits)?;
        writing.logprobs += f64::from(logprob(&logits, token));
        if token == tokens.end {
            return Ok(true);
        }
        job.usage.completion += 1;
        job.computed += 1;
        writing.written.push(token);
        writing.next.clear();
        writing.next.push(token);
        Ok(writing.written.len() >= writing.most)
    }

    /// Takes a window's text in, and moves on.
    fn finish_window(&self, job: &mut SpeechJob, writing: &Writing) -> Result<(), InferError> {
        let frames = job.mel.frames().saturating_sub(job.from).min(self.text.window_frames);
        job.windows += 1;
        let mean_logprob = (writing.logprobs / (writing.written.len() + 1) as f64) as f32;
        let window = Window { from: job.from, frames, timestamps: job.timestamps };
        let (pieces, moves) = cut(&self.text, &writing.written, &window);
        let most_windows = 2 * job.mel.frames().div_ceil(self.text.window_frames) + MORE_WINDOWS;
        let is_silent = writing.silence > SILENT && mean_logprob < DOUBTED;
        let moves = if is_silent || job.windows >= most_windows { frames } else { moves };
        // What would be written of the rest would be more than may be.
        let is_full = job.usage.completion >= job.most_written;
        job.from = if is_full { job.mel.frames() } else { job.from + moves.max(1) };
        if is_silent {
            return Ok(());
        }
        for piece in pieces {
            let text = self.text.text(piece.tokens)?;
            if !text.trim().is_empty() {
                let second = |frame: usize| SpeechText::seconds(frame).min(job.seconds);
                let (from_s, to_s, silence) = (second(piece.from), second(piece.to), writing.silence);
                job.segments.push(SpeechSegment { from_s, to_s, text, mean_logprob, silence });
            }
        }
        Ok(())
    }

    fn transcript(&self, job: &mut SpeechJob) -> Transcript {
        let segments = std::mem::take(&mut job.segments);
        job.usage.prompt += job.mel.frames().div_ceil(FRAMES_A_POSITION) as u64;
        let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
        Transcript {
            text: text.trim().to_owned(),
            language: job.language.and_then(|token| self.text.code(token)).map(str::to_owned),
            seconds: job.seconds,
            segments,
            usage: job.usage,
        }
    }
}

/// The logarithm of the softmax at a token.
fn logprob(logits: &[f32], token: u32) -> f32 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    let of = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    of - highest - sum.ln() as f32
}
