//! From a model and a target to a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cipherlm_circuits::slots::{Clear, KeyUse, Machine, Plain, Primitives};
use cipherlm_model::{Model, Positions};

use super::probe::Probe;
use super::{Options, Plan};
use crate::cost::CostModel;
use crate::error::{At, Error, Result};
use crate::fold::{Folded, Purpose};
use crate::geometry::Geometry;
use crate::graph::Graph;
use crate::placement::{Search, seconds_by_level};
use crate::prices::{Prices, choose};
use crate::run::Progress;
use crate::target::{Target, floor};

impl Plan {
    /// Chooses layout, levels and refreshes for a certified model.
    ///
    /// # Errors
    /// A model that is not certified or has no encrypted form; a length that does not fit; no
    /// feasible placement of refreshes.
    pub fn compile(model: Arc<Model>, target: Target, options: &Options) -> Result<Self> {
        let tokens = if options.purpose == Purpose::Token { 1 } else { options.tokens };
        if options.prompts > 1 && options.purpose != Purpose::Prompt {
            let advice = "run each in a session of its own, or plan with `Purpose::Prompt`";
            return Err(Error::Unsupported { feature: "a session of several prompts", advice });
        }
        let geometry = Geometry::of_prompts(model.shape(), tokens, target.chain.slots(), options.prompts)?;
        if options.purpose != Purpose::Prompt && !geometry.holds_cache(model.shape().context) {
            return Err(Error::DoesNotFit {
                what: "slots for the cache of one block",
                need: (geometry.features * model.shape().context) as u64,
                have: geometry.slots as u64,
                advice: "use a larger ring or a shorter context",
            });
        }
        let (before, context) = (model.spec().prefix.len(), model.shape().context);
        if before > 0 && before + geometry.tokens > context {
            let advice = "choose a length that leaves room for the public tokens before the text";
            return Err(Error::Prompt { length: geometry.tokens, capacity: context - before, advice });
        }
        // What goes on without the client reads its logits block by block.
        let positions = if options.levels_left > 0 { Positions::All } else { options.positions };
        let folded = Folded::new(model, geometry, options.purpose, positions, options.index.clone())?;
        let graph = Graph::build(&folded, options.refresh_input)?;
        let reference = Prices::new(&target, &CostModel::default(), &geometry);
        let (choice, refresh) = choose(&target, &geometry, &reference);
        let limit = if target.refreshes.is_empty() { 0 } else { options.refreshes_per_layer };
        let probe = Probe { folded: &folded, graph: &graph };
        let profiles = probe.profiles()?;
        let levels = target.chain.top() + 1;
        let reference_nodes = seconds_by_level(&profiles, &reference, levels);
        let search = Search {
            graph: &graph,
            nodes: &reference_nodes,
            prices: &reference,
            refresh,
            choice,
            top: if options.refresh_input { floor(&target) } else { target.input_level },
            floor: floor(&target),
            exit: floor(&target) + options.levels_left,
            limit,
        };
        let placement = search.cheapest()?;
        let prices = Prices::new(&target, &target.cost, &geometry);
        let nodes = seconds_by_level(&profiles, &prices, levels);
        let here = Search { prices: &prices, nodes: &nodes, ..search };
        let (seconds, greedy) = (here.seconds_of(&placement), here.greedy_seconds());
        let mut plan = Self {
            prices,
            nodes,
            seconds,
            refresh,
            folded,
            graph,
            placement,
            choice,
            target,
            options: options.clone(),
            profiles,
            greedy,
            keys: BTreeMap::new(),
            feedback: None,
            id: String::new(),
        };
        plan.keys = plan.keys_used()?;
        plan.renew_id()?;
        Ok(plan)
    }

    /// Every key that a run asks for, by a run on a machine that only counts.
    fn keys_used(&self) -> Result<BTreeMap<KeyUse, BTreeSet<usize>>> {
        let machine = self
            .target
            .refreshes
            .iter()
            .fold(Clear::dry(self.target.chain.clone()), |m, &p| m.with_refresh(p));
        let blank = Plain::from(0.0);
        let input = (0..self.input_width()).map(|_| machine.trivial(&blank, self.input_level()).at("input"));
        let input = input.collect::<Result<Vec<_>>>()?;
        let mut go = |_: &Progress<'_>| true;
        if self.folded.decoding() {
            // Somewhere behind the first position, where nothing is turned.
            let mut session = self.session();
            session.position = self.folded.shape().context - self.folded.first() - 1;
            self.run_session(&machine, input, &mut session, &mut go)?;
        } else {
            let outputs = self.run(&machine, input, &mut go)?;
            if self.answers().degree > 0 {
                self.gather(&machine, &outputs, &vec![0; self.prompts()])?;
            }
        }
        Ok(machine.log().keys())
    }
}
