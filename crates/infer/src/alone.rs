//! Generation without the client: the most likely token is found under encryption and fed back as
//! the next input.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{Clear, Encrypted, Machine, Plain, Primitives, RefreshKind};
use cipherlm_ckks::EvaluationKeys;
use cipherlm_model::{Mode, Runner};

use crate::answer::{at_most, ensure_real};
use crate::argmax::Argmax;
use crate::client::{Client, EncryptedLogits, EncryptedPrompt, Server, check_plan, whole};
use crate::error::{At, Error, Result};
use crate::feedback::Feedback;
use crate::plan::Plan;
use crate::run::Observer;
use crate::session::Session;
use crate::vector::Value;

impl Plan {
    /// The same plan, able to go on without the client: see [`Server::run_alone`]. `rows` are
    /// logits of the kind to be expected; they decide the domains of the argmax's reciprocals.
    /// Needs a plan for tokens with a level left ([`crate::Options::levels_left`]) and real
    /// refreshes of as many slots as the vocabulary and as a token have.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another plan, missing refreshes, or logits that no
    /// reciprocal covers.
    pub fn with_feedback(mut self, rows: &[Vec<f64>]) -> Result<Self> {
        if !self.folded.decoding() || self.output_level() <= self.target.chain.floor() {
            let advice = "plan for tokens with one level left";
            return Err(Error::Unsupported { feature: "feedback from this plan", advice });
        }
        let argmax = Argmax::calibrate(rows, self.folded.units.logits, self.geometry().features)?;
        let kinds = vec![argmax.refresh_kind(), RefreshKind::SparseReal(self.geometry().features)];
        self.feedback = Some(Feedback { argmax, kinds });
        let machine = self
            .target
            .refreshes
            .iter()
            .fold(Clear::dry(self.target.chain.clone()), |m, &p| m.with_refresh(p));
        let blank = |_| machine.trivial(&Plain::from(0.0), self.output_level()).at("logits");
        let width = self.graph.nodes.last().map_or(0, |n| n.width);
        let logits = (0..width).map(blank).collect::<Result<Vec<_>>>()?;
        self.feed_back(&machine, &logits, 0)?;
        for (key, levels) in machine.log().keys() {
            self.keys.entry(key).or_default().extend(levels);
        }
        self.renew_id()?;
        Ok(self)
    }

    /// Level of the logits.
    fn output_level(&self) -> usize {
        self.placement.levels.last().copied().unwrap_or(0)
    }

    /// The one-hot choice out of logits, and the input of the next step, at position `position`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without [`Plan::with_feedback`]; what the machine refuses.
    pub fn feed_back<M: Machine>(
        &self,
        machine: &M,
        logits: &[M::Vector],
        position: usize,
    ) -> Result<(M::Vector, Value<M>)> {
        let Some(Feedback { argmax, .. }) = &self.feedback else {
            let advice = "make the plan with feedback";
            return Err(Error::Unsupported { feature: "feedback from this plan", advice });
        };
        let _label = machine.log().label("argmax");
        let choice = argmax.run(machine, logits).at("argmax")?;
        let (floor, features) = (machine.chain().floor(), self.geometry().features);
        let embedding = self.embedding(position, argmax.period())?;
        let parts = machine.linear_transforms_to(&[&choice], &embedding, floor).at("embedding")?;
        let refresh = |part: &M::Vector| {
            let whole = machine.rotate_sum(part, features as i64, argmax.period() / features)?;
            machine.refresh(&whole, RefreshKind::SparseReal(features), Some(self.input_level()))
        };
        let input = parts.iter().map(|part| refresh(part).at("embedding")).collect::<Result<_>>()?;
        Ok((choice, input))
    }

    /// One-hot vectors (of period `period`) to rows of the embedding, each slot group with a share
    /// of the sum.
    fn embedding(&self, position: usize, period: usize) -> Result<LinearTransform> {
        let (g, shape) = (self.geometry(), self.folded.shape());
        let mut runner = Runner::new(self.model(), Mode::Exact)?;
        let mut table = vec![0.0; shape.vocab * shape.d_model];
        for (token, row) in table.chunks_exact_mut(shape.d_model).enumerate() {
            row.copy_from_slice(&runner.embed(&[token as u32], position)?);
        }
        self.folded.enter_stream(&mut table);
        let entry = |token: usize, column: usize| {
            let inside = token < shape.vocab && column < shape.d_model;
            if inside { table[token * shape.d_model + column] } else { 0.0 }
        };
        let mut diagonals = vec![];
        for block in 0..g.blocks {
            for shift in 0..g.features {
                let value = |s: usize| entry((s + shift) % period, block * g.features + s % g.features);
                let plain = Plain::real((0..period).map(value).collect::<Vec<_>>());
                diagonals.push((block, 0, shift as i64, plain));
            }
        }
        LinearTransform::block(g.slots, g.blocks, 1, diagonals).at("embedding")
    }
}

impl<K: EvaluationKeys> Server<K> {
    /// Runs `count` steps of a session alone, from the encrypted embedding of the first token: each
    /// choice is fed back as the next input. Returns the one-hot choices; only the client learns
    /// which tokens they are.
    ///
    /// # Errors
    /// As [`Server::run_session`] and [`Plan::feed_back`].
    pub fn run_alone(
        &self,
        plan: &Plan,
        first: EncryptedPrompt,
        session: &mut Session<Encrypted<K>>,
        count: usize,
        observer: &mut dyn Observer<Encrypted<K>>,
    ) -> Result<Vec<EncryptedLogits>> {
        let mut input = self.accept(plan, first)?;
        let _turn = self.turn();
        let mut choices = vec![];
        for _ in 0..count {
            let logits = plan.run_session(self.machine(), input, session, observer)?;
            let (choice, next) = plan.feed_back(self.machine(), &logits, session.position())?;
            choices.push(self.hand_out(plan, vec![1], &vec![choice])?);
            input = next;
        }
        Ok(choices)
    }
}

impl Client {
    /// The token of a choice made by [`Server::run_alone`], and its weight: near 1, less where
    /// tokens tied.
    ///
    /// # Errors
    /// A choice of another plan or key, or a plan without feedback; [`Error::NotAnAnswer`].
    pub fn decrypt_choice(&self, plan: &Plan, choice: &EncryptedLogits) -> Result<(u32, f64)> {
        check_plan(&plan.id, &choice.plan)?;
        let vectors = self.open(choice, plan.geometry().slots, whole)?;
        match (&plan.feedback, ensure_real(&vectors)?.as_slice()) {
            (Some(feedback), [slots]) => {
                at_most("a weight of the choice", slots.iter().copied(), 1.25)?;
                Ok(feedback.argmax.read(slots))
            }
            _ => Err(Error::Malformed {
                what: "choice".into(),
                reason: "it is empty or from another plan".into(),
            }),
        }
    }
}
