//! How objects print: what they are and whom they belong to, never what they hold.

use std::fmt::{Debug, DebugStruct, Formatter, Result};

use crate::bootstrap::{BootstrapKeys, BootstrapRefresher, Bootstrapper};
use crate::slots::Encrypted;
use cipherlm_ckks::{EvaluationKeys, Params};

/// Begins with the parameter set.
fn of<'a, 'b>(f: &'a mut Formatter<'b>, name: &str, params: &Params) -> DebugStruct<'a, 'b> {
    let mut shown = f.debug_struct(name);
    shown.field("params", &params.hash());
    shown
}

impl Debug for BootstrapKeys {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let key = self.from_sparse();
        let mut shown = of(f, "BootstrapKeys", key.params());
        shown
            .field("key", &key.key_id())
            .field("keys", &(self.evaluation_keys().len() + 2))
            .finish_non_exhaustive()
    }
}

impl<K: EvaluationKeys> Debug for Encrypted<K> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        of(f, "Encrypted", self.params()).field("key", &self.key_id()).finish_non_exhaustive()
    }
}

impl Debug for Bootstrapper {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut shown = of(f, "Bootstrapper", self.params());
        shown
            .field("profile", &self.profile().name)
            .field("slots", &self.slots())
            .field("content", &self.content());
        shown.finish_non_exhaustive()
    }
}

impl<K: EvaluationKeys> Debug for BootstrapRefresher<K> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        of(f, "BootstrapRefresher", self.evaluator().params())
            .field("circuits", &self.circuits())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::bootstrap::{Content, Profile};
    use cipherlm_ckks::{KeyRequest, SecretKey};

    use super::*;

    #[test]
    fn objects_print_whose_they_are() {
        let profile = Profile::insecure(6);
        let params = profile.params().unwrap();
        let secret = SecretKey::generate(&params).unwrap();
        let bootstrapper = Bootstrapper::new(&params, &profile, 8, Content::Real).unwrap();
        let wrapped = BootstrapKeys::generate(&secret, &[&bootstrapper], &KeyRequest::new()).unwrap();
        let machine = Encrypted::new(&params, secret.id(), wrapped.evaluation_keys().clone()).unwrap();
        let of_params: [&dyn Debug; 3] = [&wrapped, &machine, &bootstrapper];
        for object in of_params {
            let text = format!("{object:?}");
            assert!(text.contains(&params.hash().to_string()) && text.len() < 400, "{text}");
        }
        let owned: [&dyn Debug; 2] = [&wrapped, &machine];
        for object in owned {
            assert!(format!("{object:?}").contains(&secret.id().to_string()), "{object:?}");
        }
    }
}
