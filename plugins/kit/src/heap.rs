//! The heap of an instance: first a part of the memory that is there from the beginning.
//!
//! Each call has an instance of its own, and a memory that grows costs the node changes of its address space before and
//! after every call. What most calls need fits into [`ROOM`]; whoever needs more grows all the same. What is freed here
//! is used again if it was the last piece: an instance lives for one call.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, UnsafeCell},
};

/// Bytes that are there from the beginning.
const ROOM: usize = 128 << 10;

/// The memory itself, aligned as much as most things ask for.
#[repr(align(16))]
struct Room(UnsafeCell<[u8; ROOM]>);

/// Hands out pieces of [`ROOM`] from its start to its end, and what the system has after that.
pub(crate) struct Heap {
    room: Room,
    /// Where the part begins that nobody has.
    used: Cell<usize>,
}

// SAFETY: WebAssembly without its threads, which is all that a component is compiled for here, has one thread.
unsafe impl Sync for Heap {}

#[cfg(target_family = "wasm")]
#[global_allocator]
static HEAP: Heap = Heap::new();

impl Heap {
    pub(crate) const fn new() -> Self {
        Self { room: Room(UnsafeCell::new([0; ROOM])), used: Cell::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.room.0.get().cast()
    }

    /// Where in the room a piece lies; `None`: it is the system's.
    fn place(&self, piece: *mut u8) -> Option<usize> {
        piece.addr().checked_sub(self.base().addr()).filter(|at| *at < ROOM)
    }

    /// A piece of the room, if there is so much left.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let base = self.base();
        let at = (base.addr() + self.used.get()).checked_next_multiple_of(layout.align())? - base.addr();
        let end = at.checked_add(layout.size()).filter(|end| *end <= ROOM)?;
        // A piece of no bytes at the very end would not be known again.
        if at == ROOM {
            return None;
        }
        self.used.set(end);
        // SAFETY: `at` lies within the room.
        Some(unsafe { base.add(at) })
    }
}

// SAFETY: pieces of the room do not overlap: each begins where those before it end, and `used` goes back only over the
// last one, when that is given back. All other pieces are the system's, and go back to it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the system's.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match self.place(piece) {
            Some(at) if at + layout.size() == self.used.get() => self.used.set(at),
            Some(_) => {}
            // SAFETY: it is no piece of the room, so the system gave it.
            None => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(at) = self.place(piece) else {
            // SAFETY: it is no piece of the room, so the system gave it.
            return unsafe { System.realloc(piece, layout, size) };
        };
        if at + layout.size() == self.used.get() && size <= ROOM - at {
            self.used.set(at + size);
            return piece;
        }
        if size <= layout.size() {
            return piece;
        }
        // SAFETY: the caller promises that the new size, rounded up to the alignment, is no more than `isize::MAX`.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: a new piece, which is larger than the old one and does not overlap it.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(piece, layout.size());
                self.dealloc(piece, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn pieces_are_aligned_and_apart_and_the_last_one_is_used_again() {
        let heap = Heap::new();
        // SAFETY: every piece is written to within its bounds, and given back with its own layout.
        unsafe {
            let a = heap.alloc(layout(3, 1));
            let b = heap.alloc(layout(8, 8));
            let c = heap.alloc(layout(64, 64));
            assert!(b.addr() % 8 == 0 && c.addr() % 64 == 0 && a.addr() + 3 <= b.addr() && b.addr() + 8 <= c.addr());
            heap.dealloc(b, layout(8, 8));
            heap.dealloc(c, layout(64, 64));
            assert_eq!(heap.alloc(layout(64, 64)), c, "the last one was given back");
        }
    }

    #[test]
    fn the_last_piece_grows_where_it_is_and_others_move_with_what_they_hold() {
        let heap = Heap::new();
        // SAFETY: as above.
        unsafe {
            let a = heap.alloc(layout(4, 4));
            a.write_bytes(7, 4);
            assert_eq!(heap.realloc(a, layout(4, 4), 1_000), a);
            let b = heap.alloc(layout(4, 4));
            let moved = heap.realloc(a, layout(1_000, 4), 2_000);
            assert!(moved != a && moved != b);
            assert_eq!([*moved, *moved.add(3)], [7, 7]);
            assert_eq!(heap.realloc(b, layout(4, 4), 2), b);
        }
    }

    #[test]
    fn what_does_not_fit_is_the_systems() {
        let heap = Heap::new();
        // SAFETY: as above.
        unsafe {
            let within = heap.alloc(layout(ROOM - 8, 8));
            assert_eq!(heap.place(within), Some(0));
            let beyond = heap.alloc(layout(16, 8));
            assert_eq!(heap.place(beyond), None);
            let grown = heap.realloc(within, layout(ROOM - 8, 8), ROOM + 8);
            assert_eq!(heap.place(grown), None);
            let beyond = heap.realloc(beyond, layout(16, 8), 32);
            heap.dealloc(beyond, layout(32, 8));
            heap.dealloc(grown, layout(ROOM + 8, 8));
        }
    }
}
