//! From any sample rate to the one that speech models hear, by windowed sines.
//!
//! Each sample is a weighted sum of those around its place: a sine over its argument, cut off below half of the lower rate and
//! windowed by a raised cosine. Weights repeat after as many samples as the rates have different phases.

use std::f64::consts::PI;

use super::mel::SAMPLE_RATE;

/// Zeros of the sine on either side.
const ZEROS: f64 = 16.0;
/// The part of the band that passes; the rest is for the slope of the filter.
const PASSES: f64 = 0.945;

/// The same sound at [`SAMPLE_RATE`]. A rate of 0 has no sound.
pub(crate) fn resampled(samples: Vec<f32>, rate: u32) -> Vec<f32> {
    if rate == SAMPLE_RATE {
        return samples;
    }
    if rate == 0 {
        return Vec::new();
    }
    let common = gcd(rate, SAMPLE_RATE);
    let (step, phases) = ((rate / common) as usize, (SAMPLE_RATE / common) as usize);
    let cutoff = PASSES * (f64::from(SAMPLE_RATE) / f64::from(rate)).min(1.0);
    let reach = (ZEROS / cutoff).ceil() as usize;
    let taps: Vec<Vec<f32>> = (0..phases).map(|phase| taps(phase as f64 / phases as f64, reach, cutoff)).collect();
    let length = samples.len() * phases / step;
    let mut made = Vec::with_capacity(length);
    for n in 0..length {
        let (at, phase) = (n * step / phases, n * step % phases);
        // The first tap is of the sample `reach` before `at`; what lies outside is silence.
        let (begin, skipped) = ((at + 1).saturating_sub(reach), reach.saturating_sub(at + 1));
        let around = samples.get(begin..).unwrap_or_default();
        let weights = taps.get(phase).and_then(|taps| taps.get(skipped..)).unwrap_or_default();
        made.push(around.iter().zip(weights).map(|(sample, weight)| sample * weight).sum());
    }
    made
}

/// The weights of the `2 * reach` samples around a place that is `fraction` of a sample behind the `reach`-th of them.
fn taps(fraction: f64, reach: usize, cutoff: f64) -> Vec<f32> {
    let weight = |tap: usize| {
        let distance = tap as f64 - (reach as f64 - 1.0) - fraction;
        let window = 0.5 + 0.5 * (PI * distance / reach as f64).clamp(-PI, PI).cos();
        window * cutoff * sinc(cutoff * distance)
    };
    let weights: Vec<f64> = (0..2 * reach).map(weight).collect();
    // What does not swing is as loud afterwards as before, at each phase.
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}

fn sinc(x: f64) -> f64 {
    match x.abs() < 1e-9 {
        true => 1.0,
        false => (PI * x).sin() / (PI * x),
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, rate: u32, samples: usize) -> Vec<f32> {
        (0..samples).map(|n| (2.0 * PI * hertz * n as f64 / f64::from(rate)).sin() as f32).collect()
    }

    #[test]
    fn a_tone_stays_the_same_tone() {
        for rate in [8_000, 11_025, 22_050, 44_100, 48_000, 96_000] {
            let made = resampled(tone(440.0, rate, rate as usize / 2), rate);
            let expected = tone(440.0, SAMPLE_RATE, made.len());
            assert!(made.len().abs_diff(8_000) <= 1, "{rate}: {}", made.len());
            let inside = made.iter().zip(&expected).skip(200).take(7_600);
            let worst = inside.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-3, "{rate}: {worst}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_gone() {
        let made = resampled(tone(15_000.0, 48_000, 24_000), 48_000);
        let loudest = made.iter().skip(200).take(7_600).map(|sample| sample.abs()).fold(0.0, f32::max);
        assert!(loudest < 1e-3, "{loudest}");
    }

    #[test]
    fn nothing_stays_nothing() {
        assert!(resampled(Vec::new(), 44_100).is_empty());
        assert!(resampled(vec![1.0], 0).is_empty());
        assert_eq!(resampled(vec![0.5, 0.25], SAMPLE_RATE), [0.5, 0.25]);
    }
}
