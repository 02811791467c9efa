//! What uses things up, written so that no compiler leaves it out.

use std::hint::black_box;

pub(crate) fn forever() -> ! {
    let mut i = 0_u64;
    loop {
        i = black_box(i.wrapping_add(1));
    }
}

/// So many turns.
pub(crate) fn work(turns: u64) -> u64 {
    (0..turns).fold(0, |sum, i| black_box(sum ^ i))
}

/// All memory there is, and more.
pub(crate) fn allocate() -> usize {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// All memory there is, and no more: how many MiB.
pub(crate) fn allocate_what_is_given() -> usize {
    let mut all: Vec<Vec<u8>> = Vec::with_capacity(1 << 12);
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(1 << 20).is_err() {
            let count = all.len();
            // What there is, is needed to answer.
            drop(all);
            return count;
        }
        all.push(black_box(block));
    }
}

/// As deep as it goes.
pub(crate) fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if depth == 0 { frame[0] } else { recurse(depth - 1) + frame[31] }
}

/// A byte of nobody's.
pub(crate) fn read_outside() -> u8 {
    let outside = black_box(usize::MAX - 8) as *const u8;
    // SAFETY: none. The sandbox is what is tested.
    unsafe { outside.read_volatile() }
}
