//! A memory pool of its own for one model or one cache.

use std::fmt;
use std::sync::Arc;

use candle_core::cuda_backend::{CudaStorage, WrapErr as _};
use candle_core::op::BackpropOp;
use candle_core::{Result, Shape, Storage, Tensor};
use cudarc::driver::result::{DriverError, mem_pool};
use cudarc::driver::{CudaSlice, CudaStream, sys};

use super::{Cuda, Pinned};

/// Device memory that one model or one cache has. It goes back to the device when this is dropped, which has to be after the
/// tensors in it.
pub(in crate::device) struct MemoryPool {
    pool: sys::CUmemoryPool,
    cuda: Arc<Cuda>,
}

// SAFETY: the handle is a number to the driver, which takes it from any thread and locks what is behind it ("CUDA driver API,
// stream ordered memory allocator"); nothing here is bound to the thread that made it.
#[allow(unsafe_code, reason = "a handle of the driver is a pointer, which Rust takes to be of one thread")]
unsafe impl Send for MemoryPool {}
// SAFETY: as above; `&self` gives the handle to functions of the driver only.
#[allow(unsafe_code, reason = "a handle of the driver is a pointer, which Rust takes to be of one thread")]
unsafe impl Sync for MemoryPool {}

impl fmt::Debug for MemoryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPool").field("cuda", &self.cuda).finish_non_exhaustive()
    }
}

impl MemoryPool {
    /// An empty pool.
    pub(in crate::device) fn new(cuda: &Arc<Cuda>) -> Result<Self> {
        let stream = cuda.device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let pool = create(stream.context().ordinal()).w()?;
        Ok(Self { pool, cuda: Arc::clone(cuda) })
    }

    /// Bytes that it has of the device, those that nobody uses included.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> Result<u64> {
        reserved(self.pool).w()
    }

    /// A tensor of values that are in the memory of the process.
    pub(in crate::device) fn upload(&self, weights: Option<[u8; 32]>, name: &str, tensor: &Tensor) -> Result<Tensor> {
        let shape = tensor.shape().clone();
        let mut slice = self.floats(shape.elem_count(), &self.cuda.uploads)?;
        self.ordered(Cuda::with_values(tensor, |values| self.cuda.copy(weights, name, values, &mut slice)))?;
        Ok(self.wrapped(slice, shape))
    }

    /// A tensor of values that the host has kept.
    pub(in crate::device) fn upload_copy(&self, copy: &Pinned, shape: &[usize]) -> Result<Tensor> {
        let shape = Shape::from(shape);
        if shape.elem_count() != copy.len() {
            candle_core::bail!("the host's copy of a tensor has another shape")
        }
        let mut slice = self.floats(copy.len(), &self.cuda.uploads)?;
        self.ordered(self.cuda.uploads.memcpy_htod(copy, &mut slice).w())?;
        Ok(self.wrapped(slice, shape))
    }

    /// Zeros, which passes write.
    pub(in crate::device) fn zeros(&self, shape: (usize, usize, usize)) -> Result<Tensor> {
        let shape = Shape::from(shape);
        let stream = self.cuda.device.cuda_stream();
        let mut slice = self.floats(shape.elem_count(), &stream)?;
        stream.memset_zeros(&mut slice).w()?;
        Ok(self.wrapped(slice, shape))
    }

    /// A copy that failed may have left nothing that orders the stream of passes, which frees the memory, after that of copies.
    fn ordered(&self, copied: Result<()>) -> Result<()> {
        copied.inspect_err(|_| {
            if let Err(error) = self.cuda.uploads.synchronize() {
                tracing::error!(%error, "copies to the device did not end");
            }
        })
    }

    fn wrapped(&self, slice: CudaSlice<f32>, shape: Shape) -> Tensor {
        let storage = CudaStorage::wrap_cuda_slice(slice, self.cuda.device.clone());
        Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
    }

    /// Memory for so many values, which `first` may use at once and the stream of passes gives back.
    fn floats(&self, count: usize, first: &CudaStream) -> Result<CudaSlice<f32>> {
        let stream = self.cuda.device.cuda_stream();
        let slice = allocate(self.pool, count, first, &stream).w()?;
        Ok(slice)
    }
}

impl Drop for MemoryPool {
    fn drop(&mut self) {
        // What was in it is freed on the stream of passes: the memory is the device's again once the stream has come to it.
        let settled = self.cuda.uploads.synchronize().and_then(|()| self.cuda.device.cuda_stream().synchronize());
        if let Err(error) = settled.and_then(|()| destroy(self.pool)) {
            tracing::error!(%error, "device memory could not be given back");
        }
    }
}

#[allow(unsafe_code, reason = "cudarc has no pools but these")]
fn create(ordinal: usize) -> std::result::Result<sys::CUmemoryPool, DriverError> {
    // SAFETY: a plain C structure of numbers, enumerations that have a zero, and a pointer that may be null; the driver's reference asks
    // for the rest to be zero.
    let mut properties: sys::CUmemPoolProps = unsafe { std::mem::zeroed() };
    properties.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = i32::try_from(ordinal).unwrap_or(i32::MAX);
    // SAFETY: the properties are complete and live for the call.
    unsafe { mem_pool::create(&properties) }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "cudarc has no pools but these")]
fn reserved(pool: sys::CUmemoryPool) -> std::result::Result<u64, DriverError> {
    let mut bytes = 0u64;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
    // SAFETY: the pool is one that was made and not destroyed, and the value of this attribute is a `u64`.
    unsafe { mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }?;
    Ok(bytes)
}

#[allow(unsafe_code, reason = "cudarc allocates from the device's own pool only")]
fn allocate(
    pool: sys::CUmemoryPool,
    count: usize,
    first: &CudaStream,
    owner: &Arc<CudaStream>,
) -> std::result::Result<CudaSlice<f32>, DriverError> {
    first.context().bind_to_thread()?;
    let too_much = DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    // An allocation of nothing has no address.
    let bytes = count.max(1).checked_mul(size_of::<f32>()).ok_or(too_much)?;
    // SAFETY: pool and stream are alive. What is there is not read before it was written: `upload`, `upload_copy` and `zeros` write
    // all of it before they hand it out.
    let pointer = unsafe { mem_pool::alloc_async(pool, bytes, first.cu_stream()) }?;
    // SAFETY: it has just been allocated, with room for `count` values, and is freed by this slice alone, with `cuMemFreeAsync`,
    // which is for memory of any pool.
    Ok(unsafe { owner.upgrade_device_ptr(pointer, count) })
}

#[allow(unsafe_code, reason = "cudarc has no pools but these")]
fn destroy(pool: sys::CUmemoryPool) -> std::result::Result<(), DriverError> {
    // SAFETY: it was made by `create` and is destroyed once, by its only owner. What is still allocated in it stays valid until it is
    // freed, by the driver's reference.
    unsafe { mem_pool::destroy(pool) }
}
