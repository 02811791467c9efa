//! A linear layer whose weights are dense or quantised.

use candle_core::quantized::QMatMul;
use candle_core::{Module, Result, Tensor};

/// `y = x W^T + b` over rows: `x` is `[rows, in]`, `y` is `[rows, out]`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn dense(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: QMatMul::Tensor(weight), bias }
    }

    pub(crate) fn quantised(weight: QMatMul) -> Self {
        Self { weight, bias: None }
    }

    /// Weight (`[out, in]`) and bias, where the weight is dense.
    pub(crate) fn dense_parts(&self) -> Option<(&Tensor, Option<&Tensor>)> {
        match &self.weight {
            QMatMul::Tensor(weight) => Some((weight, self.bias.as_ref())),
            QMatMul::QTensor(_) | QMatMul::TensorF16(_) => None,
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.forward(x)?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => y.broadcast_add(bias),
        }
    }
}

/// Vectors of tokens, dense or quantised; may double as the output layer.
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

    /// The same weights as an output layer.
    pub(crate) fn tied_output(&self) -> Linear {
        Linear::quantised(self.0.clone())
    }
}
