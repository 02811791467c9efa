//! What needs a device says so where there is none.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use super::*;
use crate::device::Place;

fn device(host_copies_bytes: u64) -> Option<Arc<Cuda>> {
    match Cuda::open(0, host_copies_bytes) {
        Ok(cuda) => Some(Arc::new(cuda)),
        Err(cause) => {
            eprintln!("skipped: no CUDA device: {cause}");
            None
        }
    }
}

fn values(count: usize) -> Tensor {
    let values: Vec<f32> = (0..count).map(|n| (n % 8191) as f32).collect();
    Tensor::from_vec(values, count, &candle_core::Device::Cpu).unwrap()
}

#[test]
fn what_is_put_is_there_by_pieces_and_from_copies_of_the_host() {
    // More than two pieces, so that each piece is used again; and no room, or some, for a copy of all of it.
    let count = (3 << 23) + 5;
    for host_copies_bytes in [0, 1 << 30] {
        let Some(cuda) = device(host_copies_bytes) else { return };
        let expected: Vec<f32> = values(count).to_vec1().unwrap();
        for _ in 0..2 {
            let place = Place::cuda(&cuda, Some([7; 32])).unwrap();
            let tensor = place.put("weight", &[count], || Ok(values(count))).unwrap();
            place.settle().unwrap();
            assert_eq!(tensor.to_vec1::<f32>().unwrap(), expected);
        }
        assert_eq!(cuda.copy_of([7; 32], "weight").is_some(), host_copies_bytes > 0);
        cuda.forget([7; 32]);
        assert!(cuda.copy_of([7; 32], "weight").is_none());
    }
}

#[test]
fn a_pool_gives_back_what_it_took() {
    let Some(cuda) = device(0) else { return };
    let before = cuda.memory().unwrap().taken;
    let pool = Arc::new(MemoryPool::new(&cuda).unwrap());
    let zeros = pool.zeros((2, 1 << 20, 16)).unwrap();
    assert_eq!(zeros.sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    let bytes = 128 << 20;
    assert!(pool.reserved().unwrap() >= bytes);
    assert!(cuda.memory().unwrap().taken >= before + bytes);
    drop(zeros);
    drop(pool);
    // Kernels that were loaded for the sum stay.
    assert!(cuda.memory().unwrap().taken < before + bytes / 2);
}

#[test]
fn more_than_there_is_is_a_typed_error_and_the_device_goes_on() {
    let Some(cuda) = device(0) else { return };
    let pool = MemoryPool::new(&cuda).unwrap();
    let far_too_much = usize::try_from(cuda.memory().unwrap().total).unwrap() / 4 + 1;
    let error = pool.zeros((2, far_too_much, 1)).unwrap_err();
    assert!(matches!(crate::InferError::of_device(&error), crate::InferError::OutOfMemory), "{error}");
    assert!(pool.zeros((1, 1, 1)).is_ok());
}

#[test]
fn copies_of_the_host_have_a_bound_and_the_oldest_go_first() {
    let Some(cuda) = device(64) else { return };
    let stream = cuda.device.cuda_stream();
    let keep = |weights: u8, count: usize| {
        cuda.copies().keep(stream.context(), [weights; 32], "weight", &vec![1.0; count]).is_some()
    };
    assert!(!keep(1, 17));
    assert!(keep(1, 8) && keep(2, 8));
    assert!(cuda.copy_of([1; 32], "weight").is_some());
    assert!(keep(3, 8));
    let there: Vec<bool> = [1, 2, 3].map(|weights| cuda.copy_of([weights; 32], "weight").is_some()).into();
    assert_eq!(there, [true, false, true]);
}
