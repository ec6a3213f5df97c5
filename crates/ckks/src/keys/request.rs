//! What keys a circuit needs, and what they will cost, before any of them exists.

use std::collections::{BTreeMap, BTreeSet};

use super::form::KeyForm;
use super::size::MemoryBill;
use crate::ids::{GaloisElement, KeyPurpose};
use crate::params::KeyShape;
use crate::{Error, Params};

/// The relinearisation and Galois keys of a circuit, each with the highest level of its use.
///
/// ```
/// use cipherlm_ckks::{KeyRequest, presets};
/// let params = presets::insecure::small(1 << 10, 40.0, 3)?;
/// let mut request = KeyRequest::new();
/// request.relin(3).rotations(&params, [1, 2, 4], 2).conjugation(&params, 3);
/// println!("{}", request.bill(&params)?); // printed before it is spent
/// # Ok::<(), cipherlm_ckks::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRequest {
    levels: BTreeMap<KeyPurpose, BTreeSet<usize>>,
}

impl KeyRequest {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// A relinearisation key for ciphertexts up to `level`.
    pub fn relin(&mut self, level: usize) -> &mut Self {
        self.at_most(KeyPurpose::Relinearise, level)
    }

    /// A Galois key for ciphertexts up to `level`; the identity needs none.
    pub fn galois(&mut self, element: GaloisElement, level: usize) -> &mut Self {
        if element.is_identity() { self } else { self.at_most(KeyPurpose::Galois(element), level) }
    }

    /// Keys for several rotations up to `level`.
    pub fn rotations(
        &mut self,
        params: &Params,
        steps: impl IntoIterator<Item = i64>,
        level: usize,
    ) -> &mut Self {
        for step in steps {
            self.galois(GaloisElement::rotation(params, step), level);
        }
        self
    }

    /// A conjugation key for ciphertexts up to `level`.
    pub fn conjugation(&mut self, params: &Params, level: usize) -> &mut Self {
        self.galois(GaloisElement::conjugation(params), level)
    }

    /// One more key of the same purpose, kept even if a key of a higher level could serve: smaller
    /// keys switch faster.
    pub fn also(&mut self, purpose: KeyPurpose, level: usize) -> &mut Self {
        self.levels.entry(purpose).or_default().insert(level);
        self
    }

    /// Adds everything of another request.
    pub fn merge(&mut self, other: &Self) -> &mut Self {
        for (purpose, level) in other.iter() {
            self.also(purpose, level);
        }
        self
    }

    /// The keys: purpose and level of each.
    pub fn iter(&self) -> impl Iterator<Item = (KeyPurpose, usize)> + '_ {
        self.levels.iter().flat_map(|(&purpose, levels)| levels.iter().map(move |&level| (purpose, level)))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.levels.values().map(BTreeSet::len).sum()
    }

    /// True if no key is needed.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// What the keys will take, stored and in memory.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`] or [`Error::BadKeyShape`] if a key cannot exist under these
    /// parameters.
    pub fn bill(&self, params: &Params) -> Result<MemoryBill, Error> {
        self.bill_in(params, KeyForm::fastest(params))
    }

    /// As [`KeyRequest::bill`], with the keys held in memory in the given form.
    ///
    /// # Errors
    /// As [`KeyRequest::bill`].
    pub fn bill_in(&self, params: &Params, form: KeyForm) -> Result<MemoryBill, Error> {
        let mut bill = MemoryBill::default();
        for (_, level) in self.iter() {
            let shape = KeyShape::cheapest(params, level)?;
            bill.keys += 1;
            bill.stored_bytes += shape.stored_bytes(params);
            bill.resident_bytes += shape.resident_bytes_in(params, form);
        }
        Ok(bill)
    }

    fn at_most(&mut self, purpose: KeyPurpose, level: usize) -> &mut Self {
        let levels = self.levels.entry(purpose).or_default();
        if levels.last().is_none_or(|&highest| highest < level) {
            if levels.len() == 1 {
                levels.clear();
            }
            levels.insert(level);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn a_higher_level_replaces_a_lower_one_and_more_keys_stay_apart() {
        let mut request = KeyRequest::new();
        assert_eq!((request.is_empty(), request.len()), (true, 0));
        let levels = |request: &KeyRequest| request.iter().map(|(_, level)| level).collect::<Vec<_>>();
        request.relin(2).relin(1);
        assert_eq!((levels(&request), request.is_empty()), (vec![2], false));
        request.relin(3).relin(3);
        assert_eq!(levels(&request), [3]);
        // Two that were asked for are both kept when a higher one joins them.
        request.also(KeyPurpose::Relinearise, 1).relin(4);
        assert_eq!((levels(&request), request.len()), (vec![1, 3, 4], 3));
        let mut other = KeyRequest::new();
        other.also(KeyPurpose::Relinearise, 2).also(KeyPurpose::Relinearise, 3);
        assert_eq!(levels(request.merge(&other)), [1, 2, 3, 4]);
        assert_eq!(levels(&other), [2, 3]);
    }

    #[test]
    fn a_bill_is_the_sum_of_its_keys() {
        let params = presets::insecure::small(1 << 6, 40.0, 3).unwrap();
        let mut request = KeyRequest::new();
        request.relin(3).conjugation(&params, 1);
        let shapes = [3, 1].map(|level| KeyShape::cheapest(&params, level).unwrap());
        let sum = |bytes: &dyn Fn(KeyShape) -> u64| shapes.into_iter().map(bytes).sum::<u64>();
        let bill = request.bill(&params).unwrap();
        assert_eq!(bill.keys, 2);
        assert_eq!(bill.stored_bytes, sum(&|shape| shape.stored_bytes(&params)));
        assert_eq!(bill.resident_bytes, sum(&|shape| shape.resident_bytes(&params)));
        // Two expanded polynomials of 64 values of 8 bytes for each limb of each digit.
        let expanded = |shape: KeyShape| {
            let limbs = params.extended_limbs(shape.level, shape.special).len();
            (shape.digits(&params).len() * limbs * 2 * params.ring().stride() * 8) as u64
        };
        let in_form = request.bill_in(&params, KeyForm::Expanded).unwrap();
        assert_eq!(in_form.resident_bytes, sum(&expanded));
        let fastest = KeyForm::fastest(&params);
        assert!(shapes[0].resident_bytes(&params) == shapes[0].resident_bytes_in(&params, fastest));
        let shown = MemoryBill { keys: 2, stored_bytes: 3 << 20, resident_bytes: 1 << 19 }.to_string();
        assert_eq!(shown, "2 keys: 3.0 MiB stored, 0.5 MiB resident");
    }
}
