//! Bootstrapping as the slot machines call it.

use std::sync::Arc;

use super::{Bootstrapper, Content};
use crate::slots::{self, RefreshKind, RefreshProfile, Refresher};
use cipherlm_ckks::keys::EvaluationKeys;
use cipherlm_ckks::{Ciphertext, Error, Evaluator, Params, Scale, hazmat};

/// Refreshes of several kinds, each by its own circuit; a kind without one is served by the
/// cheapest circuit that covers it.
pub struct BootstrapRefresher<K> {
    evaluator: Evaluator<K>,
    circuits: Vec<Arc<Bootstrapper>>,
}

impl<K: EvaluationKeys> BootstrapRefresher<K> {
    /// Refreshes by `circuits` with the keys of `evaluator`.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`] if a circuit has other parameters, [`Error::OperandCount`] for an
    /// empty list.
    pub fn new(evaluator: Evaluator<K>, circuits: Vec<Arc<Bootstrapper>>) -> Result<Self, Error> {
        if circuits.is_empty() {
            return Err(Error::OperandCount { operation: "refresher", left: 0, right: 1 });
        }
        for circuit in &circuits {
            hazmat::check_same(evaluator.params(), "refresher", circuit.params())?;
            // Later refreshes then cost what they cost, the first as well.
            circuit.prepare()?;
        }
        Ok(Self { evaluator, circuits })
    }

    /// What the circuits are run with.
    pub fn evaluator(&self) -> &Evaluator<K> {
        &self.evaluator
    }

    /// The circuits.
    pub fn circuits(&self) -> &[Arc<Bootstrapper>] {
        &self.circuits
    }

    /// The cheapest circuit for `kind`: few slots first, then real content.
    fn circuit(&self, kind: RefreshKind) -> Option<&Bootstrapper> {
        let all = self.evaluator.params().slots();
        let (period, real) = match kind {
            RefreshKind::Full => (all, false),
            RefreshKind::Real => (all, true),
            RefreshKind::Sparse(period) => (period, false),
            RefreshKind::SparseReal(period) => (period, true),
        };
        let covers =
            |c: &&Arc<Bootstrapper>| c.slots() >= period && (real || c.content() == Content::Complex);
        let cost = |c: &&Arc<Bootstrapper>| (c.slots(), c.content() == Content::Complex);
        self.circuits.iter().filter(covers).min_by_key(cost).map(Arc::as_ref)
    }
}

impl<K: EvaluationKeys> Refresher for BootstrapRefresher<K> {
    fn floor(&self) -> usize {
        self.circuits.iter().map(|c| c.profile().input_level()).max().unwrap_or(0)
    }

    fn check(&self, params: &Params) -> slots::Result<()> {
        Ok(hazmat::check_same(params, "refresher", self.evaluator.params())?)
    }

    fn profile(&self, kind: RefreshKind) -> Option<RefreshProfile> {
        let circuit = self.circuit(kind)?;
        Some(circuit.refresh_profile(kind))
    }

    fn refresh(
        &self,
        ciphertext: &Ciphertext,
        kind: RefreshKind,
        target: usize,
        scale: Scale,
    ) -> slots::Result<Ciphertext> {
        let circuit = self.circuit(kind).ok_or(slots::Error::NoRefresh { kind })?;
        let narrow = ciphertext.clone().with_slots(ciphertext.slots().min(circuit.slots()))?;
        let fresh = circuit.bootstrap_to(&self.evaluator, &narrow, target, scale, &mut |_| {})?;
        Ok(fresh.with_slots(ciphertext.slots())?)
    }
}

impl Bootstrapper {
    /// What a refresh by this circuit needs and gives, for the machines that only model it.
    pub fn refresh_profile(&self, kind: RefreshKind) -> RefreshProfile {
        RefreshProfile {
            kind,
            input_level: self.input_level(),
            output_level: self.output_level(),
            range: 1.0,
            error: (-self.profile().error_bits).exp2(),
        }
    }
}
