//! Sums and maxima in lanes: in this order of additions the compiler may use wide registers.

/// Lanes of two of the widest registers that are used: the second addition need not wait for the first.
const LANES: usize = 16;

/// The sum of the products; the rest of the longer one counts for nothing.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    added(lanes) + rest
}

/// The sum.
#[inline(always)]
pub(super) fn sum(numbers: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane += number;
        }
    }
    added(lanes) + rest.iter().sum::<f32>()
}

/// The highest; what is not a number is passed over, minus infinity where there is none.
#[inline(always)]
pub(super) fn highest(numbers: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane = if *number > *lane { *number } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |high, number| if *number > high { *number } else { high })
}

/// Adds lanes in pairs, as wide registers are added.
#[inline(always)]
fn added(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lanes_and_rests_count() {
        for count in [0usize, 1, 15, 16, 17, 100] {
            let numbers: Vec<f32> = (1..=count).map(|n| n as f32).collect();
            let expected = (count * (count + 1) / 2) as f32;
            assert_eq!(sum(&numbers), expected);
            assert_eq!(dot(&numbers, &vec![2.0; count]), 2.0 * expected);
            let high = if count == 0 { f32::NEG_INFINITY } else { count as f32 };
            assert_eq!(highest(&numbers), high);
        }
        assert_eq!(highest(&[1.0, f32::NAN, 3.0]), 3.0);
        assert_eq!(highest(&[f32::NAN; 20]), f32::NEG_INFINITY);
    }
}
