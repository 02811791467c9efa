//! Sharing work among the threads that multiply matrices.

use std::sync::{Mutex, PoisonError};

use candle_core::utils::barrier_pool;

/// Fewer operations than these are done sooner than other threads are told of them.
const WORTH_SHARING: usize = 32 * 1024;

/// Does `act` to each part, on all threads where that is worth it. `operations`: of all parts together. `act` must not panic.
pub(super) fn for_each<T: Send>(mut parts: Vec<T>, operations: usize, act: impl Fn(&mut T) + Sync) {
    if operations < WORTH_SHARING || parts.len() < 2 {
        parts.iter_mut().for_each(act);
        return;
    }
    let parts: Vec<Mutex<T>> = parts.into_iter().map(Mutex::new).collect();
    barrier_pool().execute_chunked(parts.len(), |range| {
        for part in parts.get(range).unwrap_or_default() {
            act(&mut part.lock().unwrap_or_else(PoisonError::into_inner));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_done_once_on_one_thread_and_on_all() {
        for operations in [0, WORTH_SHARING] {
            let mut numbers: Vec<u32> = (0..1000).collect();
            for_each(numbers.chunks_mut(7).collect(), operations, |part| {
                part.iter_mut().for_each(|number| *number += 1);
            });
            assert!(numbers.iter().copied().eq(1..=1000), "{operations}");
        }
    }
}
