//! Bootstrapping as the machine of a server calls it.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::{BootstrapKeys, BootstrapRefresher, Bootstrapper, Content, Profile};
use cipherlm_circuits::slots::{Chain, RefreshKind};
use cipherlm_ckks::{EvaluationKeys, Evaluator, KeyForm, KeyRequest, Params, SecretKey, SwitchingKey};

use crate::cost::kind_name;
use crate::error::{At, Error, Result};
use crate::plan::Plan;
use crate::small::{self, SmallRings};
use crate::target::Target;

/// The bootstrapping circuits of one parameter set, without keys.
#[derive(Clone)]
pub struct Circuits {
    params: Params,
    circuits: Vec<(RefreshKind, Arc<Bootstrapper>)>,
}

impl Circuits {
    /// Prepares circuits for full complex and full real vectors.
    ///
    /// # Errors
    /// Parameters that cannot be built.
    pub fn new(profile: &Profile) -> Result<Self> {
        let params = profile.params().map_err(failed)?;
        let mut circuits = vec![];
        for (kind, content) in [(RefreshKind::Full, Content::Complex), (RefreshKind::Real, Content::Real)] {
            let circuit = Bootstrapper::new(&params, profile, params.slots(), content).map_err(failed)?;
            circuits.push((kind, Arc::new(circuit)));
        }
        Ok(Self { params, circuits })
    }

    /// The same with circuits for vectors that repeat with a period: cheaper the shorter it is.
    ///
    /// # Errors
    /// A period that is not a power of two or longer than a vector.
    pub fn with_sparse(mut self, profile: &Profile, period: usize) -> Result<Self> {
        for (kind, content) in [
            (RefreshKind::Sparse(period), Content::Complex),
            (RefreshKind::SparseReal(period), Content::Real),
        ] {
            let circuit = Bootstrapper::new(&self.params, profile, period, content).map_err(failed)?;
            self.circuits.push((kind, Arc::new(circuit)));
        }
        Ok(self)
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What a plan may use.
    ///
    /// # Errors
    /// As [`Target::of`].
    pub fn target(&self) -> Result<Target> {
        let mut target = Target::of(&self.params)?;
        let floor =
            self.circuits.iter().map(|(_, circuit)| circuit.profile().input_level()).max().unwrap_or(0);
        target.chain = Chain::above(&self.params, floor).at("parameters")?;
        target.small = (floor > 0).then(|| small::Degrees::of(&self.params));
        // The same operations by another profile leave other errors, and other values in the last
        // bits.
        for (kind, circuit) in &self.circuits {
            target.origin.push_str(&format!("; {}: {:?}", kind_name(*kind), circuit.profile()));
        }
        for (kind, circuit) in &self.circuits {
            let profile = circuit.refresh_profile(*kind);
            let work = (0..=profile.output_level).map(|level| circuit.work(level).map_err(failed));
            target = target.with_work(*kind, work.collect::<Result<_>>()?).with_refresh(profile);
        }
        Ok(target)
    }

    /// Makes all keys that a plan needs: its own and those of the refreshes it uses.
    ///
    /// # Errors
    /// No randomness, or keys that the parameters cannot hold.
    pub fn keys(&self, secret: &SecretKey, plan: &Plan) -> Result<Arc<BootstrapKeys>> {
        let used: Vec<&Bootstrapper> = self.used(plan).map(|(_, circuit)| circuit.as_ref()).collect();
        let request = self.key_request(plan);
        let mut keys = BootstrapKeys::generate(secret, &used, &request).map_err(failed)?;
        for key in self.small_rings(plan)?.keys(secret)?.into_iter().flatten() {
            keys = keys.with_key(key);
        }
        Ok(Arc::new(keys))
    }

    /// Bytes of all those keys: (stored, resident).
    ///
    /// # Errors
    /// Keys that the parameters cannot hold.
    pub fn key_bytes(&self, plan: &Plan) -> Result<(u64, u64)> {
        let bill = self.key_request(plan).bill(&self.params).map_err(failed)?;
        let bill = self.small_rings(plan)?.add_to(bill, &self.params)?;
        // Polynomials of expanded keys begin pages of 2 MiB each: a tenth more is taken than they
        // fill, as measured.
        let pages = match KeyForm::fastest(&self.params) {
            KeyForm::Expanded => bill.resident_bytes / 10,
            _ => 0,
        };
        Ok((bill.stored_bytes, bill.resident_bytes + pages))
    }

    /// The set of a plan's small answers, if it has them.
    ///
    /// # Errors
    /// None for a plan of these circuits.
    pub fn answer_ring(&self, plan: &Plan) -> Result<Option<Params>> {
        small::answer_ring(&self.params, plan.answers().degree)
    }

    /// The set that prompts of a plan are encrypted in, if it is a smaller one.
    ///
    /// # Errors
    /// None for a plan of these circuits.
    pub fn prompt_ring(&self, plan: &Plan) -> Result<Option<Params>> {
        small::prompt_ring(&self.params, plan.prompt_degree(), plan.input_level())
    }

    /// Both.
    ///
    /// # Errors
    /// None for a plan of these circuits.
    pub fn small_rings(&self, plan: &Plan) -> Result<SmallRings> {
        Ok(SmallRings { prompt: self.prompt_ring(plan)?, answer: self.answer_ring(plan)? })
    }

    /// The refreshes with their keys, for a machine.
    ///
    /// # Errors
    /// None for circuits as [`Circuits::new`] makes them: of one parameter set.
    pub fn refresher<K: EvaluationKeys>(&self, keys: &Arc<K>) -> Result<Arc<BootstrapRefresher<Arc<K>>>> {
        let circuits = self.circuits.iter().map(|(_, circuit)| Arc::clone(circuit)).collect();
        let evaluator = Evaluator::new(&self.params, Arc::clone(keys));
        Ok(Arc::new(BootstrapRefresher::new(evaluator, circuits).map_err(failed)?))
    }

    /// The two keys of a fresh ephemeral secret, which [`Circuits::keys`] adds to those of
    /// [`Circuits::key_request`]. They serve every circuit.
    ///
    /// # Errors
    /// As [`BootstrapKeys::wrapping`].
    pub fn wrapping_keys(&self, secret: &SecretKey) -> Result<[SwitchingKey; 2]> {
        let all: Vec<&Bootstrapper> = self.circuits.iter().map(|(_, circuit)| circuit.as_ref()).collect();
        BootstrapKeys::wrapping(secret, &all).map_err(failed)
    }

    /// Keys of the plan and of its refreshes, each at the very level it was asked for.
    pub fn key_request(&self, plan: &Plan) -> KeyRequest {
        let mut request = plan.key_request(&self.params);
        for (_, circuit) in self.used(plan) {
            for (purpose, level) in circuit.key_request().iter() {
                request.also(purpose, level);
            }
        }
        request
    }

    fn used<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = &'a (RefreshKind, Arc<Bootstrapper>)> {
        let kinds = plan.refresh_kinds();
        self.circuits.iter().filter(move |(kind, _)| kinds.contains(kind))
    }
}

pub(crate) fn failed(error: cipherlm_ckks::Error) -> Error {
    Error::Slots { node: "bootstrapping".into(), source: error.into() }
}
