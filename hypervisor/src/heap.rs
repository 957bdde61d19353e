//! The kernel's heap, of a fixed size. It serves boot-time tables; nothing allocates once the guest runs.

use crate::memory;
use boot::memory_map::Range;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use linked_list_allocator::Heap;
use spin::Mutex;

/// Bytes of the heap. Full = panic: the boot needs far less, so that would be a bug.
pub const BYTES: u64 = 8 << 20;

struct Allocator(Mutex<Heap>);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(Mutex::new(Heap::empty()));

/// Gives the heap its memory. Once, with frames that are mapped writable and nobody else's.
pub fn init(memory: Range) {
    // SAFETY: 1. The caller took these frames from the pool and gives them up. 2. They are mapped one to one for good.
    unsafe { ALLOCATOR.0.lock().init(memory.start as *mut u8, memory.len() as usize) }
}

/// Bytes used.
pub fn used() -> usize {
    ALLOCATOR.0.lock().used()
}

// SAFETY: linked_list_allocator's heap keeps the allocator's contract; the lock makes it shareable, and no interrupt
// handler allocates.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        memory::assert_allocation_open("heap memory");
        self.0.lock().allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: the caller promises that `memory` came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(memory, layout) }
        }
    }
}
