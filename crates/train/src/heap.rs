//! Keeps a training step's buffers in the process.
//!
//! A step allocates and frees tensors of megabytes. By default the C library returns such blocks to
//! the system and takes them back page by page, which costs a third of a step.

use std::hint::black_box;
use std::sync::Once;

/// Largest block that glibc takes from its heap instead of mapping it apart, less a page and a
/// header.
const BLOCK: usize = (32 << 20) - (1 << 13);

/// Blocks of half that size set aside: address space, not memory, until they are used.
const BLOCKS: usize = 64;

/// Sets aside a region of the heap for freed blocks to stay in. It is not returned to the system
/// while it is not at the heap's end, so one small allocation behind it, never freed, keeps it.
/// Works once; with other C libraries it does nothing.
pub(crate) fn retain() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A freed block raises glibc's limit for its heap to the block's own size.
        drop(block(BLOCK));
        let region: Vec<Vec<u8>> = (0..BLOCKS).map(|_| block(BLOCK / 2)).collect();
        black_box(block(1 << 12).leak());
        drop(region);
    });
}

/// A block of this size, or an empty one where the system refuses it.
fn block(size: usize) -> Vec<u8> {
    let mut block = Vec::new();
    let _ = block.try_reserve_exact(size);
    black_box(block)
}
