//! Where the tensors of one model lie.

#[cfg(feature = "cuda")]
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

#[cfg(feature = "cuda")]
use super::cuda::{Cuda, MemoryPool};
use crate::error::InferError;

/// The memory of one model, or of one cache; cheap to clone. On a CUDA device it is a pool of its own, which goes with the last
/// clone: whoever has tensors in it keeps one, and drops it after them.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    device: Device,
    #[cfg(feature = "cuda")]
    own: Option<Own>,
}

/// What a place on a CUDA device has.
#[cfg(feature = "cuda")]
#[derive(Clone, Debug)]
struct Own {
    cuda: Arc<Cuda>,
    pool: Arc<MemoryPool>,
    weights: Option<[u8; 32]>,
}

impl Place {
    /// The memory of the process.
    pub(crate) fn cpu() -> Self {
        Self {
            device: Device::Cpu,
            #[cfg(feature = "cuda")]
            own: None,
        }
    }

    #[cfg(feature = "cuda")]
    pub(super) fn cuda(cuda: &Arc<Cuda>, weights: Option<[u8; 32]>) -> std::result::Result<Self, InferError> {
        let pool = MemoryPool::new(cuda).map_err(|cause| InferError::of_device(&cause))?;
        let own = Own { cuda: Arc::clone(cuda), pool: Arc::new(pool), weights };
        Ok(Self { device: Device::Cuda(cuda.device().clone()), own: Some(own) })
    }

    /// The device as candle knows it.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The tensor `name` of a model. `read` reads it into the memory of the process, as `f32`; it is not called where the host
    /// has a copy of it.
    pub(crate) fn put(
        &self,
        name: &str,
        shape: &[usize],
        read: impl FnOnce() -> std::result::Result<Tensor, InferError>,
    ) -> std::result::Result<Tensor, InferError> {
        #[cfg(feature = "cuda")]
        if let Some(own) = &self.own {
            if let Some(copy) = own.weights.and_then(|weights| own.cuda.copy_of(weights, name)) {
                return own.pool.upload_copy(&copy, shape).map_err(|cause| InferError::of_device(&cause));
            }
            let tensor = read()?;
            return own.pool.upload(own.weights, name, &tensor).map_err(|cause| InferError::of_device(&cause));
        }
        // What the processor computes with is what was read.
        let _ = (name, shape);
        read()
    }

    /// Waits until all that was put here is.
    pub(crate) fn settle(&self) -> std::result::Result<(), InferError> {
        #[cfg(feature = "cuda")]
        if let Some(own) = &self.own {
            return own.cuda.settle_uploads().map_err(|cause| InferError::of_device(&cause));
        }
        Ok(())
    }

    /// A place beside this one, on the same device.
    pub(crate) fn another(&self) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Some(own) = &self.own {
            let own = Own { pool: Arc::new(MemoryPool::new(&own.cuda)?), weights: None, cuda: Arc::clone(&own.cuda) };
            return Ok(Self { device: self.device.clone(), own: Some(own) });
        }
        Ok(self.clone())
    }

    /// Zeros, to be written by passes; on a CUDA device `f32`.
    pub(crate) fn zeros(&self, shape: (usize, usize, usize), dtype: DType) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(own) = &self.own {
            return own.pool.zeros(shape);
        }
        Tensor::zeros(shape, dtype, &self.device)
    }
}
