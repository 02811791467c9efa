//! Products with weights that are not trained.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};

use crate::linear::Linear;

/// A linear layer of the base, `y = x W^T + b`. Gradients pass through to `x`; none is computed for the weights, which would take as
/// much memory as the base has and half as much time again.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    /// `[outputs, inputs]`.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Frozen {
    /// None where the weights are quantised.
    pub(super) fn of(linear: &Linear) -> Option<Self> {
        let (weight, bias) = linear.dense_parts()?;
        Some(Self { weight: weight.clone(), bias: bias.cloned() })
    }

    /// Of contiguous rows.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.apply_op1(Product(self.weight.clone()))?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => y.broadcast_add(bias),
        }
    }
}

/// `x W^T`.
struct Product(Tensor);

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "frozen-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("rows must be contiguous and of 32 bits")
        };
        let rows = values.get(start..end).unwrap_or_default();
        let x = Tensor::from_slice(rows, layout.shape().clone(), &Device::Cpu)?;
        let y = x.matmul(&self.0.t()?)?;
        Ok((CpuStorage::F32(y.flatten_all()?.to_vec1()?), y.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.matmul(&self.0)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_plain_product() {
        let weight = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let bias = Tensor::new(&[1f32, -1.0, 0.5, 2.0], &Device::Cpu).unwrap();
        let frozen = Frozen { weight: weight.clone(), bias: Some(bias.clone()) };
        let x = Var::new(&[[0.5f32, -1.0, 2.0], [1.5, 0.0, -0.5]], &Device::Cpu).unwrap();
        let plain = x.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
        let ours = frozen.forward(&x).unwrap();
        let rows = |tensor: &Tensor| tensor.to_vec2::<f32>().unwrap();
        assert_eq!(rows(&ours), rows(&plain));
        let gradient = |y: &Tensor| {
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            rows(gradients.get(&x).unwrap())
        };
        assert_eq!(gradient(&ours), gradient(&plain));
    }
}
