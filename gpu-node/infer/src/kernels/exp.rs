//! The exponential function without a branch, so that many are computed at once.

/// Below this the result is no normal number any more.
const LOWEST: f32 = -87.0;
/// Above this the result is more than a number can be.
const HIGHEST: f32 = 88.0;
/// Adding this rounds to a whole number, which the lowest bits of the sum then are: 1.5 times 2 to the 23rd.
const ROUNDING: f32 = 12_582_912.0;
/// The natural logarithm of 2 in two parts; the first has so few digits that its multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// One over the factorials of 2 to 7, moved a little for the least error within half of ln 2 (Cephes, `expf`), highest power first.
const COEFFICIENTS: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// e to the power of `x`, to about two units in the last place. Beyond the range of numbers it is its end instead (1.6e-38, or
/// 1.7e38), and what is not a number stays so.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUNDING;
    let whole = rounded - ROUNDING;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let mut sum = 0.0;
    for coefficient in COEFFICIENTS {
        sum = sum * rest + coefficient;
    }
    let power = sum * rest * rest + rest + 1.0;
    // The whole number as the exponent of a number: 127 stands for 0.
    let two_to_whole = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    power * two_to_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_exponential_function() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0 + 0.003;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 4e-7, "{x}: {error}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn its_ends() {
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(-1e9) < 2e-38);
        assert!(exp(f32::INFINITY).is_finite() && exp(1e9) > 1e38);
        assert!(exp(f32::NAN).is_nan());
    }
}
