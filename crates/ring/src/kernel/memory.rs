//! What the operating system is told about memory.

/// Asks for huge pages behind fresh memory: limbs are half a megabyte each, and small pages cost
/// address look-ups.
///
/// Advice only: nothing changes but speed, and failure is ignored.
pub(crate) fn prefer_huge_pages<T>(memory: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        const HUGE_PAGE: usize = 2 << 20;
        const MADV_HUGEPAGE: i32 = 14;
        unsafe extern "C" {
            fn madvise(address: *mut u8, length: usize, advice: i32) -> i32;
        }
        let range = memory.as_mut_ptr_range();
        let start = (range.start as usize).next_multiple_of(HUGE_PAGE);
        let end = range.end as usize / HUGE_PAGE * HUGE_PAGE;
        if start < end {
            let address = range.start.cast::<u8>().wrapping_add(start - range.start as usize);
            // SAFETY: `madvise` is the C library's; whole pages inside a slice we hold exclusively,
            // and MADV_HUGEPAGE changes neither contents nor mapping.
            unsafe { madvise(address, end - start, MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Gives the system back what the allocator keeps of freed memory, in all threads. It takes
/// milliseconds, and whoever allocates next pays for fresh pages: for programs that begin to wait.
///
/// Only glibc can be asked; elsewhere nothing happens.
pub fn return_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: `malloc_trim` is the C library's, may be called from any thread, and releases
        // only pages that no allocation holds.
        unsafe { malloc_trim(0) };
    }
}
