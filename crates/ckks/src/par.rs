//! Parallel loops that stay on the calling thread when there is only one.

use rayon::prelude::*;

/// Calls `f` on every item, on all threads of the pool.
pub(crate) fn try_for_each<T: Send, E: Send>(
    items: Vec<T>,
    f: impl Fn(T) -> Result<(), E> + Sync + Send,
) -> Result<(), E> {
    if rayon::current_num_threads() == 1 {
        return items.into_iter().try_for_each(f);
    }
    items.into_par_iter().try_for_each(f)
}
