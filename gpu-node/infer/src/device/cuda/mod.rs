//! The driver of a CUDA device, beneath the machine that decides what is in its memory.
//!
//! Each model and each KV cache has a memory pool of its own ([`MemoryPool`]): what it takes is known, and is given back to the
//! device as a whole when it goes. What passes compute with comes from the device's own pool, which gives back what is free at
//! each synchronisation. Weights are copied from page-locked memory on a stream of their own while passes go on ([`Staging`],
//! [`HostCopies`]); weights of GGUF files that stay quantised are candle's to allocate and to copy.
//!
//! Invariant: streams order themselves by events that cudarc records for every allocation (event tracking stays on), and the
//! loading thread waits for the end of its copies before a model is handed out.

mod copies;
mod pool;
mod rate;
mod staging;

use std::fmt;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::{CudaDevice, WrapErr as _};
use candle_core::{Result, Tensor};
use cudarc::driver::{CudaSlice, CudaStream, PinnedHostSlice, sys};

pub(super) use pool::MemoryPool;
pub(super) use rate::copy_rate;

use super::MeasuredMemory;
use copies::HostCopies;
use staging::Staging;

/// Values in page-locked memory.
type Pinned = PinnedHostSlice<f32>;

/// A device, with what it takes to bring weights there.
pub(super) struct Cuda {
    device: CudaDevice,
    name: String,
    /// Taken of its memory when it was opened, this process's context included.
    before: u64,
    /// Copies to the device; passes are on the stream of `device`.
    uploads: Arc<CudaStream>,
    staging: Mutex<Staging>,
    copies: Mutex<HostCopies>,
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Cuda {
    /// Opens the device with this number.
    pub(super) fn open(ordinal: usize, host_copies_bytes: u64) -> std::result::Result<Self, String> {
        // Libraries are looked for at their first use, and one that is missing is a panic there.
        let opened = catch_unwind(|| Self::open_found(ordinal, host_copies_bytes));
        opened.unwrap_or_else(|_| {
            Err("a library of CUDA is missing or too old (cuBLAS, cuRAND, NVRTC of CUDA 13): see docs/gpu-cuda.md"
                .to_owned())
        })
    }

    fn open_found(ordinal: usize, host_copies_bytes: u64) -> std::result::Result<Self, String> {
        if !is_driver_there() {
            return Err("no driver is installed: there is no libcuda.so".to_owned());
        }
        let device = CudaDevice::new_with_stream(ordinal).map_err(|cause| first_line(&cause))?;
        let opened = Self::with(device, ordinal, host_copies_bytes);
        opened.map_err(|cause| first_line(&cause))
    }

    fn with(device: CudaDevice, ordinal: usize, host_copies_bytes: u64) -> Result<Self> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let name = format!("cuda:{ordinal} {}", context.name().w()?);
        let uploads = context.new_stream().w()?;
        let staging = Mutex::new(Staging::new(context, &uploads).w()?);
        let copies = Mutex::new(HostCopies::new(host_copies_bytes));
        let (free, total) = context.mem_get_info().w()?;
        Ok(Self { device, name, before: (total.saturating_sub(free)) as u64, uploads, staging, copies })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// What the device says of its memory. None: it does not say.
    pub(super) fn memory(&self) -> Option<MeasuredMemory> {
        let stream = self.device.cuda_stream();
        // What was freed comes back to the device when the stream has come to it.
        stream.synchronize().ok()?;
        let (free, total) = stream.context().mem_get_info().ok()?;
        let taken = (total.saturating_sub(free) as u64).saturating_sub(self.before);
        Some(MeasuredMemory { total: total as u64, free: free as u64, taken })
    }

    /// Waits for the copies that are under way.
    pub(super) fn settle_uploads(&self) -> Result<()> {
        self.uploads.synchronize().w()
    }

    /// The copy of a tensor that the host has.
    pub(super) fn copy_of(&self, weights: [u8; 32], name: &str) -> Option<Arc<Pinned>> {
        self.copies().find(weights, name)
    }

    pub(super) fn forget(&self, weights: [u8; 32]) {
        self.copies().forget(weights);
    }

    fn copies(&self) -> MutexGuard<'_, HostCopies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies to the device: by way of a copy that stays on the host where there is room for one, else in pieces.
    fn copy(&self, weights: Option<[u8; 32]>, name: &str, from: &[f32], to: &mut CudaSlice<f32>) -> Result<()> {
        let kept = weights.and_then(|weights| {
            let stream = self.device.cuda_stream();
            self.copies().keep(stream.context(), weights, name, from)
        });
        match kept {
            Some(copy) => self.uploads.memcpy_htod(copy.as_ref(), to).w(),
            None => {
                let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
                staging.copy(from, to).w()
            }
        }
    }

    /// The values of a tensor in the memory of the process, which has them in a row.
    fn with_values<T>(tensor: &Tensor, then: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
        let tensor = tensor.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else { candle_core::bail!("a tensor is not on the host") };
        let values = storage.as_slice::<f32>()?;
        let start = layout.start_offset();
        match values.get(start..start + layout.shape().elem_count()) {
            Some(values) => then(values),
            None => candle_core::bail!("a tensor is shorter than its shape"),
        }
    }
}

/// True where a driver can be loaded.
#[allow(unsafe_code, reason = "it loads a library, which runs code of that library")]
fn is_driver_there() -> bool {
    // SAFETY: the names are those of the CUDA driver, whose initialisers expect nothing of the process; nothing else is called.
    unsafe { sys::is_culib_present() }
}

/// candle's errors may carry a backtrace below the first line.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
