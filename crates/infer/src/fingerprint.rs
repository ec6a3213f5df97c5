//! Hashes over named fields, for the identities of plans, runs and checkpoints.

/// Characters of an identity.
pub(crate) const LENGTH: usize = 32;

/// A hash over named fields; every name and value carries its length, so no two lists of fields
/// hash the same bytes.
pub(crate) struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    /// `context` separates the kinds of things that are hashed.
    pub(crate) fn new(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    pub(crate) fn field(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.field(name, value.as_bytes());
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.field(name, &value.to_le_bytes());
    }

    /// Adds computed numbers in single precision: a logarithm or a power may differ between
    /// processors in its last bits.
    pub(crate) fn reals(&mut self, name: &str, values: impl IntoIterator<Item = f64>) {
        let bytes: Vec<u8> = values.into_iter().flat_map(|x| (x as f32).to_bits().to_le_bytes()).collect();
        self.field(name, &bytes);
    }

    pub(crate) fn finish(&self) -> blake3::Hash {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let hash = |fields: &[(&str, &str)]| {
            let mut all = Fingerprint::new("test");
            fields.iter().for_each(|(name, value)| all.text(name, value));
            all.finish()
        };
        assert_ne!(hash(&[("a", "bc")]), hash(&[("ab", "c")]));
        assert_ne!(hash(&[("a", ""), ("b", "")]), hash(&[("a", "b")]));
        let (mut one, mut two) = (Fingerprint::new("one"), Fingerprint::new("two"));
        one.number("n", 1);
        two.number("n", 1);
        assert_ne!(one.finish(), two.finish());
    }
}
