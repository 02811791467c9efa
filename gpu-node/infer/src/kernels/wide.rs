//! Computing with the widest registers that this processor has.

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
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, and that is all the function asks for.
        unsafe { with_avx2(work) };
        return;
    }
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(work: impl Wide) {
    work.run();
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

    #[test]
    fn wide_and_narrow_are_the_same_to_the_bit() {
        let numbers: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin() * 1e3).collect();
        let (mut wide, mut narrow) = (0.0, 0.0);
        run(Sum(&numbers, &mut wide));
        Sum(&numbers, &mut narrow).run();
        assert_eq!(wide.to_bits(), narrow.to_bits());
    }
}
