//! The gate of a layer: `silu(gate) * up`.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};

use super::exp::exp;
use super::threads::for_each;
use super::wide::{self, Wide};

/// Elements that one thread takes at a time.
const AT_A_TIME: usize = 4096;
/// What one element costs, in operations of the simplest kind.
const OPERATIONS: usize = 16;

/// Replaces `gate` by `silu(gate) * up`; nobody else may hold it.
///
/// # Errors
/// When one of the two is not `f32` in one piece on the processor, or they differ in size.
pub(crate) fn gate(gate: &Tensor, up: &Tensor) -> Result<()> {
    gate.inplace_op2(up, &Gate)
}

struct Gate;

impl InplaceOp2 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, gate: &mut CpuStorage, gate_at: &Layout, up: &CpuStorage, up_at: &Layout) -> Result<()> {
        let (CpuStorage::F32(gate), Some((start, end))) = (gate, gate_at.contiguous_offsets()) else {
            candle_core::bail!("a gate must be f32 in one piece")
        };
        let (CpuStorage::F32(up), Some((from, to))) = (up, up_at.contiguous_offsets()) else {
            candle_core::bail!("what passes a gate must be f32 in one piece")
        };
        let (Some(gate), Some(up)) = (gate.get_mut(start..end), up.get(from..to)) else {
            candle_core::bail!("a gate lies outside its storage")
        };
        if gate.len() != up.len() {
            candle_core::bail!("a gate of {} for {}", gate.len(), up.len())
        }
        let operations = OPERATIONS * gate.len();
        let parts: Vec<_> = gate.chunks_mut(AT_A_TIME).zip(up.chunks(AT_A_TIME)).collect();
        for_each(parts, operations, |(gate, up)| wide::run(Part { gate, up }));
        Ok(())
    }
}

struct Part<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Wide for Part<'_> {
    #[inline(always)]
    fn run(self) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;
    use candle_nn::ops::silu;

    use super::*;

    #[test]
    fn it_is_silu_times_up() {
        for columns in [1usize, 7, 9000] {
            let numbers =
                |step: f32| -> Vec<f32> { (0..3 * columns).map(|i| (i as f32 * step).sin() * 30.0).collect() };
            let left = Tensor::from_vec(numbers(0.37), (3, columns), &Device::Cpu).unwrap();
            let right = Tensor::from_vec(numbers(0.91), (3, columns), &Device::Cpu).unwrap();
            let expected = (silu(&left).unwrap() * &right).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            gate(&left, &right).unwrap();
            let found = left.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{columns} columns: {worst}");
        }
    }

    #[test]
    fn sizes_must_agree() {
        let zeros = |rows: usize| Tensor::zeros((rows, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(gate(&zeros(2), &zeros(3)).is_err());
    }
}
