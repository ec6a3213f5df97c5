//! What a plan for tokens needs beyond itself to go on without the client.

use cipherlm_circuits::slots::RefreshKind;

use crate::argmax::Argmax;
use crate::cost::kind_name;
use crate::fingerprint::Fingerprint;

/// The choice of a token, and the refreshes around it.
pub(crate) struct Feedback {
    pub(crate) argmax: Argmax,
    /// Refreshes of the argmax and the embedding.
    pub(crate) kinds: Vec<RefreshKind>,
}

impl Feedback {
    /// Adds what decides the choices to the identity of a plan.
    pub(crate) fn identify(&self, all: &mut Fingerprint) {
        self.argmax.identify(all);
        self.kinds.iter().for_each(|&kind| all.text("feedback refresh", &kind_name(kind)));
    }
}
