//! Where models compute: on the processor, or on a CUDA device.
//!
//! A build without the feature `cuda` has the processor only; one with it looks for a driver when a device is opened, and
//! needs none to start.

mod choice;
#[cfg(feature = "cuda")]
mod cuda;
mod place;

pub use choice::DeviceChoice;
pub(crate) use place::Place;

#[cfg(feature = "cuda")]
use std::sync::Arc;

use crate::error::InferError;

/// What a node computes on; cheap to clone, one device.
#[derive(Clone, Debug)]
pub struct ComputeDevice(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(Arc<cuda::Cuda>),
}

/// What a device says of its memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeasuredMemory {
    /// All of it.
    pub total: u64,
    /// What nobody has.
    pub free: u64,
    /// What has been taken since the device was opened, by this process or another.
    pub taken: u64,
}

impl ComputeDevice {
    /// The processor.
    pub fn cpu() -> Self {
        Self(Inner::Cpu)
    }

    /// Opens a device. Up to `host_copies_bytes` of weights are kept in page-locked memory of the host once they were read, so
    /// that they come back as fast as the bus copies; the processor keeps none.
    ///
    /// # Errors
    /// [`InferError::NoDevice`] when the one that is named cannot be used; [`DeviceChoice::Auto`] does not fail.
    pub fn open(choice: DeviceChoice, host_copies_bytes: u64) -> Result<Self, InferError> {
        match choice {
            DeviceChoice::Cpu => Ok(Self::cpu()),
            DeviceChoice::Cuda(ordinal) => Self::open_cuda(ordinal, host_copies_bytes)
                .map_err(|cause| InferError::NoDevice { device: choice.to_string(), cause }),
            DeviceChoice::Auto => Ok(Self::open_cuda(0, host_copies_bytes).unwrap_or_else(|cause| {
                // Where there is no code for devices nobody looks for one.
                if cfg!(feature = "cuda") {
                    tracing::info!(cause, "no CUDA device: models compute on the processor");
                }
                Self::cpu()
            })),
        }
    }

    #[cfg(feature = "cuda")]
    fn open_cuda(ordinal: usize, host_copies_bytes: u64) -> Result<Self, String> {
        let cuda = cuda::Cuda::open(ordinal, host_copies_bytes)?;
        Ok(Self(Inner::Cuda(Arc::new(cuda))))
    }

    #[cfg(not(feature = "cuda"))]
    fn open_cuda(_ordinal: usize, _host_copies_bytes: u64) -> Result<Self, String> {
        Err("this build has no code for CUDA devices (see docs/gpu-cuda.md)".to_owned())
    }

    /// What it is, for people: `cpu`, or the number and the name of a CUDA device.
    pub fn name(&self) -> String {
        match &self.0 {
            Inner::Cpu => "cpu".to_owned(),
            #[cfg(feature = "cuda")]
            Inner::Cuda(cuda) => cuda.name().to_owned(),
        }
    }

    /// Whether it is the processor.
    pub(crate) fn is_processor(&self) -> bool {
        match &self.0 {
            Inner::Cpu => true,
            #[cfg(feature = "cuda")]
            Inner::Cuda(_) => false,
        }
    }

    /// What the device says of its memory, once what was given up is back. None: the processor, whose memory is the system's.
    pub fn memory(&self) -> Option<MeasuredMemory> {
        match &self.0 {
            Inner::Cpu => None,
            #[cfg(feature = "cuda")]
            Inner::Cuda(cuda) => cuda.memory(),
        }
    }

    /// Forgets what the host keeps of weights: their files were not what they are known by.
    pub fn forget(&self, weights: [u8; 32]) {
        match &self.0 {
            Inner::Cpu => {
                let _ = weights;
            }
            #[cfg(feature = "cuda")]
            Inner::Cuda(cuda) => cuda.forget(weights),
        }
    }

    /// The rate at which page-locked memory of the host is copied to the device, in bytes a second: the best of several copies of
    /// so many bytes. What weights come with is held against it. None: the processor.
    ///
    /// # Errors
    /// When the device has not so much memory, or fails.
    pub fn copy_rate(&self, bytes: u64) -> Result<Option<f64>, InferError> {
        match &self.0 {
            Inner::Cpu => {
                let _ = bytes;
                Ok(None)
            }
            #[cfg(feature = "cuda")]
            Inner::Cuda(cuda) => cuda::copy_rate(cuda, bytes).map(Some).map_err(|error| InferError::of_device(&error)),
        }
    }

    /// A place for the tensors of one model. `weights`: the digest by which copies on the host are known, none are kept without.
    pub(crate) fn place(&self, weights: Option<[u8; 32]>) -> Result<Place, InferError> {
        match &self.0 {
            Inner::Cpu => {
                let _ = weights;
                Ok(Place::cpu())
            }
            #[cfg(feature = "cuda")]
            Inner::Cuda(cuda) => Place::cuda(cuda, weights),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there_and_measures_nothing() {
        let device = ComputeDevice::open(DeviceChoice::Cpu, 0).map(|device| (device.name(), device.memory()));
        assert_eq!(device, Ok(("cpu".to_owned(), None)));
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_where_it_is_named_and_none_where_it_is_not() {
        let named = ComputeDevice::open(DeviceChoice::Cuda(4096), 0).map(|device| device.name());
        assert!(matches!(&named, Err(InferError::NoDevice { device, .. }) if device == "cuda:4096"), "{named:?}");
        assert!(ComputeDevice::open(DeviceChoice::Auto, 0).is_ok());
    }
}
