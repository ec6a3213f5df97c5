//! What a plan is compiled from.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_ckks::Params;
use cipherlm_model::Model;

use crate::cost::CostModel;
use crate::error::Result;
use crate::plan::{Options, Plan};
use crate::refresh::{Circuits, failed};

/// All that a plan and its circuits are compiled from, a small part of their size: who waits may
/// forget them and compile them again, to the same identity.
#[derive(Clone)]
pub struct Recipe {
    /// The model.
    pub model: Arc<Model>,
    /// The profile that was chosen.
    pub profile: Profile,
    /// Choices of the caller.
    pub options: Options,
    /// Prices of primitives, which only predicted times depend on.
    pub cost: CostModel,
}

impl Recipe {
    /// Parameters of their own: what is made with them does not go to those of the circuits.
    ///
    /// # Errors
    /// Parameters that cannot be built.
    pub fn params(&self) -> Result<Params> {
        self.profile.params().map_err(failed)
    }

    /// Circuits and plan.
    ///
    /// # Errors
    /// As [`Circuits::new`] and [`Plan::compile`].
    pub fn compile(&self) -> Result<(Circuits, Plan)> {
        compile(&self.model, &self.profile, &self.options, &self.cost)
    }
}

pub(crate) fn compile(
    model: &Arc<Model>,
    profile: &Profile,
    options: &Options,
    cost: &CostModel,
) -> Result<(Circuits, Plan)> {
    let circuits = Circuits::new(profile)?;
    let plan = Plan::compile(Arc::clone(model), circuits.target()?.with_cost(cost.clone()), options)?;
    Ok((circuits, plan))
}
