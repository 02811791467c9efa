//! Tensors of 16 bits from and to those of 32, on all threads.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::threads::for_each;

/// Numbers that one thread takes at a time.
const AT_A_TIME: usize = 16 * 1024;

/// The tensor as `dtype`, `f16` or `f32`; itself where it is that already. What is larger than 16 bits hold is infinite in them.
///
/// # Errors
/// When it is neither, or not on the processor.
pub(crate) fn kept_as(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.dtype() == dtype {
        return Ok(tensor.clone());
    }
    tensor.contiguous()?.apply_op1_no_bwd(&Convert)
}

struct Convert;

impl CustomOp1 for Convert {
    fn name(&self) -> &'static str {
        "halves"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else { candle_core::bail!("numbers must lie in a row") };
        let converted = match storage {
            CpuStorage::F32(floats) => {
                let mut halves = vec![f16::ZERO; end - start];
                share(floats.get(start..end), &mut halves, |floats, halves| halves.convert_from_f32_slice(floats));
                CpuStorage::F16(halves)
            }
            CpuStorage::F16(halves) => {
                let mut floats = vec![0.0f32; end - start];
                share(halves.get(start..end), &mut floats, |halves, floats| halves.convert_to_f32_slice(floats));
                CpuStorage::F32(floats)
            }
            _ => candle_core::bail!("numbers must be f32 or f16"),
        };
        Ok((converted, layout.shape().clone()))
    }
}

fn share<T: Sync, U: Send>(from: Option<&[T]>, to: &mut [U], convert: impl Fn(&[T], &mut [U]) + Sync) {
    let count = to.len();
    let parts = from.unwrap_or_default().chunks(AT_A_TIME).zip(to.chunks_mut(AT_A_TIME)).collect();
    for_each(parts, count, |(from, to)| convert(from, to));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn it_is_candles_conversion_wherever_the_numbers_lie() {
        for (rows, columns) in [(1, 1), (3, 1000), (70, 3000)] {
            let numbers: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.61).sin() * 1e3).collect();
            let whole = Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).unwrap();
            for tensor in [whole.clone(), whole.narrow(1, columns / 2, columns.div_ceil(2)).unwrap()] {
                let halves = kept_as(&tensor, DType::F16).unwrap();
                let expected = tensor.to_dtype(DType::F16).unwrap();
                assert_eq!(halves.to_vec2::<f16>().unwrap(), expected.to_vec2::<f16>().unwrap());
                let floats = kept_as(&halves, DType::F32).unwrap();
                assert_eq!(
                    floats.to_vec2::<f32>().unwrap(),
                    expected.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap()
                );
            }
        }
        let integers = Tensor::zeros(4, DType::U32, &Device::Cpu).unwrap();
        assert!(kept_as(&integers, DType::F16).is_err());
    }
}
