//! The logarithmic mel spectrogram that Whisper hears, as `WhisperFeatureExtractor` of transformers computes it.
//!
//! Frames of 400 samples, 160 apart, at 16 kHz; power by bins of 40 Hz; triangular filters on Slaney's scale, each of the same
//! area; logarithms within 80 dB of the loudest. Sums are in 64-bit floats: quiet bins beside loud ones are differences of
//! large numbers. It needs no weights, and may be done on any thread.

use std::f64::consts::PI;
use std::ops::Range;
use std::sync::OnceLock;

/// Samples a second that everything here has.
pub(crate) const SAMPLE_RATE: u32 = 16_000;
/// Samples between the beginnings of two frames.
const HOP: usize = 160;
/// Frames a second.
pub(crate) const FRAMES_A_SECOND: usize = SAMPLE_RATE as usize / HOP;
/// Frames that become one position of the encoder.
pub(crate) const FRAMES_A_POSITION: usize = 2;
/// Samples of a frame: a product of two equal factors, by which its transform is split.
const FRAME: usize = SPLIT * SPLIT;
const SPLIT: usize = 20;
/// Bins of the power spectrum.
const BINS: usize = FRAME / 2 + 1;
/// Power below this is silence.
const SILENCE: f64 = 1e-10;
/// Powers of ten below the loudest bin that are told apart.
const RANGE: f64 = 8.0;

/// The spectrogram of a whole recording.
#[derive(Clone, PartialEq)]
pub(crate) struct LogMel {
    bins: usize,
    frames: usize,
    /// Frame by frame, and those that end behind the recording, each of `bins`.
    values: Vec<f32>,
    /// What silence is behind its end.
    floor: f32,
}

impl std::fmt::Debug for LogMel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogMel").field("bins", &self.bins).field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl LogMel {
    /// Computes it from samples at [`SAMPLE_RATE`].
    pub(crate) fn of(samples: &[f32], bins: usize) -> Self {
        // Those behind the end that still reach into the recording are not silent.
        let sounding = (samples.len() + FRAME / 2).div_ceil(HOP);
        let (tables, filters) = (tables(), filters(bins));
        let mut values = Vec::with_capacity(sounding * bins);
        let mut loudest = SILENCE.log10();
        for frame in 0..sounding {
            let power = power(&framed(samples, frame * HOP, tables), tables);
            for filter in &filters {
                let sum: f64 = filter.weights.iter().zip(&power[filter.bins.clone()]).map(|(w, p)| w * p).sum();
                let value = sum.max(SILENCE).log10();
                loudest = loudest.max(value);
                values.push(value as f32);
            }
        }
        let floor = loudest - RANGE;
        let scaled = |value: f64| ((value.max(floor) + 4.0) / 4.0) as f32;
        values.iter_mut().for_each(|value| *value = scaled(f64::from(*value)));
        Self { bins, frames: samples.len().div_ceil(HOP), values, floor: scaled(SILENCE.log10()) }
    }

    /// Frames of the recording.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.values.len() * size_of::<f32>()) as u64
    }

    /// So many frames from one on, `[bins][frames]` in one piece; behind the end is silence.
    pub(crate) fn window(&self, from: usize, frames: usize) -> Vec<f32> {
        let mut window = vec![self.floor; self.bins * frames];
        let rows = self.values.chunks_exact(self.bins).skip(from).take(frames);
        for (at, row) in rows.enumerate() {
            for (bin, value) in row.iter().enumerate() {
                window[bin * frames + at] = *value;
            }
        }
        window
    }
}

/// Sines, cosines and the window of a frame.
struct Tables {
    /// `exp(-2 pi i n / FRAME)` as cosine and sine.
    turns: [(f64, f64); FRAME],
    hann: [f64; FRAME],
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Box<Tables>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let angle = |n: usize| 2.0 * PI * n as f64 / FRAME as f64;
        Box::new(Tables {
            turns: std::array::from_fn(|n| (angle(n).cos(), -angle(n).sin())),
            hann: std::array::from_fn(|n| 0.5 - 0.5 * angle(n).cos()),
        })
    })
}

/// The samples around `centre`, windowed. Before the beginning the recording is mirrored, behind the end is silence.
fn framed(samples: &[f32], centre: usize, tables: &Tables) -> [f64; FRAME] {
    std::array::from_fn(|n| {
        let sample = samples.get((centre + n).abs_diff(FRAME / 2)).copied().unwrap_or(0.0);
        f64::from(sample) * tables.hann[n]
    })
}

/// Squared magnitudes of the Fourier transform of a frame, by Cooley and Tukey with two factors.
fn power(frame: &[f64; FRAME], tables: &Tables) -> [f64; BINS] {
    let turn = |n: usize| tables.turns[n % FRAME];
    // `inner[n2][k1]`: transforms of every SPLIT-th sample, turned to their places.
    let mut inner = [[(0.0, 0.0); SPLIT]; SPLIT];
    for (n2, row) in inner.iter_mut().enumerate() {
        for (k1, cell) in row.iter_mut().enumerate() {
            let (mut re, mut im) = (0.0, 0.0);
            for n1 in 0..SPLIT {
                let sample = frame[SPLIT * n1 + n2];
                let (cos, sin) = turn(SPLIT * n1 * k1);
                re += sample * cos;
                im += sample * sin;
            }
            let (cos, sin) = turn(n2 * k1);
            *cell = (re * cos - im * sin, re * sin + im * cos);
        }
    }
    std::array::from_fn(|bin| {
        let (k1, k2) = (bin % SPLIT, bin / SPLIT);
        let (mut re, mut im) = (0.0, 0.0);
        for (n2, row) in inner.iter().enumerate() {
            let (value_re, value_im) = row[k1];
            let (cos, sin) = turn(SPLIT * n2 * k2);
            re += value_re * cos - value_im * sin;
            im += value_re * sin + value_im * cos;
        }
        re * re + im * im
    })
}

/// A triangle over some bins of the power spectrum.
struct Filter {
    bins: Range<usize>,
    weights: Vec<f64>,
}

/// Triangles whose corners are equally far apart on Slaney's scale, from 0 to 8 kHz.
fn filters(count: usize) -> Vec<Filter> {
    let highest = f64::from(SAMPLE_RATE) / 2.0;
    let corner = |n: usize| hertz(mel(highest) * n as f64 / (count + 1) as f64);
    let frequency = |bin: usize| highest * bin as f64 / (BINS - 1) as f64;
    let triangle = |n: usize| {
        let (low, middle, high) = (corner(n), corner(n + 1), corner(n + 2));
        let area = 2.0 / (high - low);
        let weight = |bin: usize| {
            let (up, down) = ((frequency(bin) - low) / (middle - low), (high - frequency(bin)) / (high - middle));
            up.min(down).max(0.0) * area
        };
        let begin = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
        let end = (begin..BINS).rfind(|bin| weight(*bin) > 0.0).map_or(begin, |last| last + 1);
        Filter { bins: begin..end, weights: (begin..end).map(weight).collect() }
    };
    (0..count).map(triangle).collect()
}

/// Linear below 1 kHz, logarithmic above (Slaney, Auditory Toolbox, 1998).
const BEND_HERTZ: f64 = 1_000.0;
const BEND_MEL: f64 = 15.0;
/// Mels between two frequencies of which one is 6.4 times the other.
const MELS_OF_6_4: f64 = 27.0;

fn mel(hertz: f64) -> f64 {
    match hertz < BEND_HERTZ {
        true => hertz * BEND_MEL / BEND_HERTZ,
        false => BEND_MEL + (hertz / BEND_HERTZ).ln() * MELS_OF_6_4 / 6.4_f64.ln(),
    }
}

fn hertz(mel: f64) -> f64 {
    match mel < BEND_MEL {
        true => mel * BEND_HERTZ / BEND_MEL,
        false => BEND_HERTZ * ((mel - BEND_MEL) * 6.4_f64.ln() / MELS_OF_6_4).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_transform_is_the_plain_one() {
        let frame: [f64; FRAME] = std::array::from_fn(|n| ((n * n * 7 + 3) % 101) as f64 / 50.0 - 1.0);
        let power = power(&frame, tables());
        for (bin, found) in power.iter().enumerate() {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, sample) in frame.iter().enumerate() {
                let angle = 2.0 * PI * (bin * n) as f64 / FRAME as f64;
                re += sample * angle.cos();
                im -= sample * angle.sin();
            }
            let plain = re * re + im * im;
            assert!((found - plain).abs() <= 1e-9 * plain.max(1.0), "bin {bin}: {found} {plain}");
        }
    }

    #[test]
    fn a_tone_is_loudest_in_the_bin_of_its_frequency_and_what_follows_it_is_silence() {
        let tone: Vec<f32> = (0..8_000).map(|n| (2.0 * PI * 1_000.0 * f64::from(n) / 16_000.0).sin() as f32).collect();
        let mel = LogMel::of(&tone, 80);
        assert_eq!(mel.frames(), 50);
        let window = mel.window(10, 100);
        let of_bin = |bin: usize| window[bin * 100 + 5];
        let loudest = (0..80).max_by(|a, b| of_bin(*a).total_cmp(&of_bin(*b)));
        let middle = |bin: usize| hertz(super::mel(8_000.0) * (bin + 1) as f64 / 81.0);
        assert!((middle(loudest.unwrap_or_default()) - 1_000.0).abs() < 40.0, "{loudest:?}");
        assert_eq!((window[60], mel.window(10_000, 3)[0]), (mel.floor, mel.floor));
    }

    #[test]
    fn no_sound_at_all_is_even() {
        let mel = LogMel::of(&[0.0; 1_600], 80);
        assert!(mel.values.iter().all(|value| (*value - mel.floor).abs() < 1e-6));
        assert_eq!(LogMel::of(&[], 80).frames(), 0);
    }
}
