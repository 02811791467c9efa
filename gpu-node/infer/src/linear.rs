//! A linear layer whose weights are dense or quantised.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Module, Result, Tensor};

use crate::kernels::{Tiles, products};
use crate::packed::has_amx;

/// Fewer rows than these are few: with more, some kinds of weights have faster products that take one matrix at a time.
const FEW_ROWS: usize = 32;

/// `y = x W^T + b` over rows: `x` is `[rows, in]`, `y` is `[rows, out]`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: QMatMul,
    /// The same weights, where products with them are faster so.
    tiles: Option<Arc<Tiles>>,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn dense(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: QMatMul::Tensor(weight), tiles: None, bias }
    }

    /// # Errors
    /// When the weights are not as many as their shape says.
    pub(crate) fn quantised(weight: QMatMul) -> Result<Self> {
        let tiles = match &weight {
            QMatMul::QTensor(weight) => Tiles::of(weight)?.map(Arc::new),
            QMatMul::Tensor(_) | QMatMul::TensorF16(_) => None,
        };
        Ok(Self { weight, tiles, bias: None })
    }

    /// Weight (`[out, in]`) and bias, where the weight is dense.
    pub(crate) fn dense_parts(&self) -> Option<(&Tensor, Option<&Tensor>)> {
        match &self.weight {
            QMatMul::Tensor(weight) => Some((weight, self.bias.as_ref())),
            QMatMul::QTensor(_) | QMatMul::TensorF16(_) => None,
        }
    }

    /// What each of some layers makes of the same rows. Where their weights allow it, the rows are quantised once for all of
    /// them, and all threads are asked once.
    pub(crate) fn together<const N: usize>(linears: [&Self; N], x: &Tensor) -> Result<[Tensor; N]> {
        let rows = x.dim(0)?;
        let tiles: Vec<&Tiles> = linears.iter().filter_map(|linear| linear.tiles_for(rows)).collect();
        let weights: Vec<&QTensor> = linears.iter().filter_map(|linear| linear.quantised_weight()).collect();
        let is_few = rows < FEW_ROWS;
        let suited = weights.len() == N && weights.iter().all(|weight| is_few || weight.dtype() == GgmlDType::Q8_0);
        let mut outputs = match suited {
            _ if tiles.len() == N => products(&tiles, x)?,
            true => QTensor::gemv_fused_shared_lhs(&weights, x)?.unwrap_or_default(),
            false => Vec::new(),
        };
        if outputs.is_empty() {
            outputs = linears.iter().map(|linear| linear.forward(x)).collect::<Result<_>>()?;
        }
        match <[Tensor; N]>::try_from(outputs) {
            Ok(outputs) => Ok(outputs),
            Err(outputs) => candle_core::bail!("{} outputs of {N} layers", outputs.len()),
        }
    }

    /// Whether its weights have fewer bits than 16.
    pub(crate) fn is_rounded(&self) -> bool {
        let is_float = |dtype| matches!(dtype, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16);
        matches!(&self.weight, QMatMul::QTensor(weight) if !is_float(weight.dtype()))
    }

    fn quantised_weight(&self) -> Option<&QTensor> {
        match (&self.weight, &self.bias) {
            (QMatMul::QTensor(weight), None) => Some(weight.as_ref()),
            _ => None,
        }
    }

    /// The tiles, unless candle has faster products: with many rows those with four-bit weights use AMX where it is.
    fn tiles_for(&self, rows: usize) -> Option<&Tiles> {
        let tiles = self.tiles.as_deref()?;
        let has_faster = rows >= FEW_ROWS && tiles.dtype() == GgmlDType::Q4K && has_amx();
        (!has_faster).then_some(tiles)
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match self.tiles_for(x.dim(0)?) {
            Some(tiles) => tiles.product(x)?,
            None => self.weight.forward(x)?,
        };
        match &self.bias {
            None => Ok(y),
            Some(bias) => y.broadcast_add(bias),
        }
    }
}

/// Vectors of tokens, dense or quantised.
#[derive(Clone, Debug)]
pub(crate) struct TokenTable(QMatMul);

impl TokenTable {
    pub(crate) fn new(weight: QMatMul) -> Self {
        Self(weight)
    }

    /// Rows of `ids` (`u32`, one dimension).
    pub(crate) fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        self.0.embedding(ids)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn numbers(rows: usize, columns: usize, step: f32) -> Tensor {
        let numbers: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).unwrap()
    }

    #[test]
    fn layers_together_are_the_same_as_one_by_one() {
        let quantised = |outputs: usize, step: f32, dtype: GgmlDType| {
            let weight = QTensor::quantize(&numbers(outputs, 256, step), dtype).unwrap();
            Linear::quantised(QMatMul::from_qtensor(weight).unwrap()).unwrap()
        };
        let kinds =
            [(GgmlDType::Q8_0, GgmlDType::Q8_0), (GgmlDType::Q4K, GgmlDType::Q4K), (GgmlDType::Q4K, GgmlDType::Q6K)];
        for (first, second) in kinds {
            let layers = [quantised(64, 0.37, first), quantised(32, 0.91, first), quantised(32, 0.53, second)];
            for rows in [1, 5, 40] {
                let x = numbers(rows, 256, 0.11);
                let [a, b, c] = &layers;
                let found = Linear::together([a, b, c], &x).unwrap();
                for (found, layer) in found.iter().zip(&layers) {
                    let difference = (found - layer.forward(&x).unwrap()).unwrap().abs().unwrap();
                    let worst = difference.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
                    assert!(worst < 1e-4, "{first:?} and {second:?}, {rows} rows: {worst}");
                }
            }
        }
    }
}
