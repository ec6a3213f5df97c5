//! Vectors of numbers that wipe themselves at the speed of memory.

use std::ops::{Deref, DerefMut};

/// Numbers that are overwritten on drop, all of the vector's capacity.
///
/// `zeroize::Zeroizing` does the same with a volatile store for each number and then for each byte
/// of the capacity. Here it is one fill, behind a barrier that keeps the compiler from leaving it
/// out.
///
/// Like every wiping on drop, it sees the last place of the vector only: do not let it grow.
#[derive(Clone)]
pub struct Wiped<T: Copy + Default>(Vec<T>);

impl<T: Copy + Default> Wiped<T> {
    /// Takes charge of a vector.
    pub fn new(values: Vec<T>) -> Self {
        Self(values)
    }

    /// So many zeros.
    pub fn zeros(count: usize) -> Self {
        Self(vec![T::default(); count])
    }

    fn wipe(&mut self) {
        // Growing to the capacity stays in place.
        self.0.resize(self.0.capacity(), T::default());
        wipe(&mut self.0);
    }
}

/// Overwrites values with zeros in one fill that the compiler may not leave out.
pub fn wipe<T: Copy + Default>(values: &mut [T]) {
    values.fill(T::default());
    zeroize::optimization_barrier(values);
}

impl<T: Copy + Default> FromIterator<T> for Wiped<T> {
    /// The length must be known beforehand, or the vector moves while it grows.
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T: Copy + Default> Deref for Wiped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Copy + Default> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: Copy + Default> Drop for Wiped<T> {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_capacity_is_overwritten_in_place() {
        let mut values = Vec::with_capacity(100);
        values.extend((1..=100).map(f64::from));
        values.truncate(40);
        let place = values.as_ptr();
        let mut wiped = Wiped::new(values);
        wiped.wipe();
        assert_eq!(wiped.as_ptr(), place);
        assert_eq!(*wiped, [0.0; 100]);
    }
}
