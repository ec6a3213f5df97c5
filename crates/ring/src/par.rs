//! The one place of this crate that talks to rayon.
//!
//! Work is cut by limb or by block of coefficients, never by thread, so results do not depend on
//! the thread count. Calls use the current rayon pool; [`with_threads`] runs a closure in a pool of
//! a given size.

use rayon::prelude::*;

/// Below this many residues a parallel region costs more than it saves.
const MIN_PARALLEL: usize = 1 << 14;

/// Threads of a pool at most: more than any machine has, fewer than a mistaken count could start.
const MAX_THREADS: usize = 1 << 10;

/// Number of threads that calls from here would use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `f` in a pool of `count` threads (1 to 1024); in the current pool should the system refuse
/// new threads.
///
/// ```
/// assert_eq!(cipherlm_ring::par::with_threads(2, cipherlm_ring::par::threads), 2);
/// ```
pub fn with_threads<T: Send>(count: usize, f: impl FnOnce() -> T + Send) -> T {
    match rayon::ThreadPoolBuilder::new().num_threads(count.clamp(1, MAX_THREADS)).build() {
        Ok(pool) => pool.install(f),
        Err(_) => f(),
    }
}

/// `f` of every item, in the order of the items, in parallel.
pub fn map<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
    items.par_iter().with_max_len(1).map(f).collect()
}

/// Calls `f` on every item, on all threads of the pool, until one fails.
///
/// # Errors
/// As `f`.
pub fn try_for_each<T: Send, E: Send>(
    items: Vec<T>,
    f: impl Fn(T) -> Result<(), E> + Sync + Send,
) -> Result<(), E> {
    if threads() == 1 {
        return items.into_iter().try_for_each(f);
    }
    items.into_par_iter().try_for_each(f)
}

/// Calls `f` on every item, in parallel when `residues` (the size of the whole job) is worth it.
pub fn each<T: Send>(residues: usize, items: impl Iterator<Item = T>, f: impl Fn(T) + Sync + Send) {
    if residues < MIN_PARALLEL || threads() == 1 {
        items.for_each(f);
    } else {
        let items: Vec<T> = items.collect();
        items.into_par_iter().with_max_len(1).for_each(f);
    }
}
