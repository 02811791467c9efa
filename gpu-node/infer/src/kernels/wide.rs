//! Computing with the widest registers that this processor has.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Work that the compiler writes once for any processor and once for those with AVX2. `run` is `#[inline(always)]`, and what
/// it calls too: what is not inlined is written for any processor only.
pub(super) trait Wide {
    fn run(self);
}

/// Does the work. The result is the same on all processors: the order of additions is the work's, and multiplying and adding
/// are never fused.
#[allow(unsafe_code, reason = "a function for processors that have a feature is called by code for those that may not")]
pub(super) fn run(work: impl Wide) {
    #[cfg(target_arch = "x86_64")]
    if is_wide() {
        // SAFETY: the processor has AVX2 and F16C, and that is all the function asks for.
        unsafe { with_avx2(work) };
        return;
    }
    work.run();
}

/// All processors with AVX2 have F16C too.
#[cfg(target_arch = "x86_64")]
fn is_wide() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn with_avx2(work: impl Wide) {
    work.run();
}

/// Makes numbers of 16 bits numbers of 32, which is exact: all processors give the same.
pub(super) trait Widen: Copy + Send + Sync {
    /// As many as the shorter has.
    fn widen(self, halves: &[f16], floats: &mut [f32]);
}

/// On any processor.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Widen for Plain {
    #[inline(always)]
    fn widen(self, halves: &[f16], floats: &mut [f32]) {
        let count = halves.len().min(floats.len());
        halves[..count].convert_to_f32_slice(&mut floats[..count]);
    }
}

/// Where [`run`] is wide; only [`with_f16c`] makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct F16c(());

/// None where the processor has it not.
#[cfg(target_arch = "x86_64")]
pub(super) fn with_f16c() -> Option<F16c> {
    is_wide().then_some(F16c(()))
}

#[cfg(target_arch = "x86_64")]
impl Widen for F16c {
    #[inline(always)]
    #[allow(unsafe_code, reason = "a function for processors that have a feature, inlined where the work is wide")]
    fn widen(self, halves: &[f16], floats: &mut [f32]) {
        // SAFETY: there is an `F16c` only where the processor has AVX2 and F16C.
        unsafe { widen_f16c(halves, floats) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
#[inline]
#[allow(unsafe_code, reason = "the compiler does not turn the conversion of halves into the processor's own")]
fn widen_f16c(halves: &[f16], floats: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let ((halves, halves_rest), (floats, floats_rest)) = (halves.as_chunks::<8>(), floats.as_chunks_mut::<8>());
    for (halves, floats) in halves.iter().zip(floats) {
        // SAFETY: eight halves are the 16 bytes that are read, and eight floats the 32 that are written; neither need be aligned.
        unsafe { _mm256_storeu_ps(floats.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()))) };
    }
    for (half, float) in halves_rest.iter().zip(floats_rest) {
        *float = half.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum<'a>(&'a [f32], &'a mut f32);

    impl Wide for Sum<'_> {
        #[inline(always)]
        fn run(self) {
            *self.1 = super::super::lanes::sum(self.0);
        }
    }

    /// Each of the 65,536 that there are.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn halves_are_widened_exactly_on_all_processors() {
        struct Work<'a, H>(H, &'a [f16], &'a mut [f32]);
        impl<H: Widen> Wide for Work<'_, H> {
            #[inline(always)]
            fn run(self) {
                self.0.widen(self.1, self.2);
            }
        }
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let same = |found: &[f32]| {
            assert!(found.iter().zip(&halves).all(|(found, half)| {
                found.to_bits() == half.to_f32().to_bits() || (found.is_nan() && half.is_nan())
            }));
        };
        // With a rest that fills no register.
        for count in [halves.len(), 2053, 7, 0] {
            let mut floats = vec![f32::NAN; count];
            run(Work(Plain, &halves[..count], &mut floats));
            same(&floats);
            let Some(hardware) = with_f16c() else { continue };
            floats.fill(f32::NAN);
            run(Work(hardware, &halves[..count], &mut floats));
            same(&floats);
        }
    }

    #[test]
    fn wide_and_narrow_are_the_same_to_the_bit() {
        let numbers: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin() * 1e3).collect();
        let (mut wide, mut narrow) = (0.0, 0.0);
        run(Sum(&numbers, &mut wide));
        Sum(&numbers, &mut narrow).run();
        assert_eq!(wide.to_bits(), narrow.to_bits());
    }
}
