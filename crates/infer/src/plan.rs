//! Compiling a model for one prompt length and one parameter set.

mod client;
mod compile;
mod explain;
mod guard;
mod identity;
mod memory;
mod probe;

pub use explain::Step;
pub use guard::ensure_in_range;
pub use memory::Memory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cipherlm_circuits::slots::{Clear, KeyUse, RefreshKind, RefreshProfile};
use cipherlm_ckks::{Ciphertext, Complex64, Params};
use cipherlm_model::{Kind, Mode, Model, Positions, Runner, Tokenizer};
use cipherlm_protocol::Answers;

use crate::answer;
use crate::error::{Error, Result};
use crate::feedback::Feedback;
use crate::fold::{Folded, Purpose};
use crate::geometry::Geometry;
use crate::graph::Graph;
use crate::index::{Found, Index};
use crate::lanes;
use crate::placement::{Placement, Profile, Search};
use crate::prices::Prices;
use crate::small::{self, Asked, Degrees, Reader};
use crate::target::{RefreshChoice, Target, floor};
use guard::leaves_range;

/// Choices left to the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Prompt length to plan for, rounded up to a power of two.
    pub tokens: usize,
    /// Prompts of one client that go through one pass, rounded up to a power of two: as many as
    /// there are copies of one ([`Geometry::of_prompts`]).
    pub prompts: usize,
    /// Most refreshed values in one layer.
    pub refreshes_per_layer: usize,
    /// A prompt at once, or a token at a time (then `tokens` does not matter).
    pub purpose: Purpose,
    /// Positions whose logits are wanted. For the last alone a wide vocabulary takes few vectors; a
    /// narrow one is answered at all of them, which then costs less.
    pub positions: Positions,
    /// Levels that the logits have to keep: 0 for a client that decrypts them, 1 for
    /// [`Plan::with_feedback`].
    pub levels_left: usize,
    /// Hash of the tokenizer that makes the prompts: see [`Options::with_tokenizer`].
    pub tokenizer: Option<[u8; 32]>,
    /// Documents that a question is compared with: a private search.
    pub index: Option<Arc<Index>>,
    /// Whether prompts come in at the lowest level and are refreshed first: one bootstrap more, and
    /// prompts a twentieth as long.
    pub refresh_input: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tokens: 32,
            prompts: 1,
            refreshes_per_layer: 6,
            purpose: Purpose::Prompt,
            positions: Positions::Last,
            levels_left: 0,
            tokenizer: None,
            index: None,
            refresh_input: false,
        }
    }
}

impl Options {
    /// Binds the plan to a tokenizer: another one makes other tokens of the same text, hence other
    /// answers.
    ///
    /// # Errors
    /// As [`Tokenizer::to_json`].
    pub fn with_tokenizer(self, tokenizer: &Tokenizer) -> Result<Self> {
        Ok(Self { tokenizer: Some(*blake3::hash(tokenizer.to_json()?.as_bytes()).as_bytes()), ..self })
    }
}

/// A compiled forward pass: every step with its level, every refresh with its place.
pub struct Plan {
    pub(crate) folded: Folded,
    pub(crate) graph: Graph,
    pub(crate) placement: Placement,
    pub(crate) choice: RefreshChoice,
    pub(crate) target: Target,
    /// What the kinds of refresh in use can do together.
    refresh: RefreshProfile,
    options: Options,
    profiles: Vec<Profile>,
    /// By the table of the target.
    prices: Prices,
    nodes: Vec<Vec<f64>>,
    seconds: f64,
    greedy: Option<f64>,
    pub(crate) keys: BTreeMap<KeyUse, BTreeSet<usize>>,
    pub(crate) feedback: Option<Feedback>,
    pub(crate) id: String,
}

impl Plan {
    /// Where the numbers lie.
    pub fn geometry(&self) -> Geometry {
        self.folded.geometry
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.folded.model
    }

    /// Longest prompt this plan takes.
    pub fn tokens(&self) -> usize {
        self.folded.geometry.tokens
    }

    /// Prompts that a pass takes.
    pub fn prompts(&self) -> usize {
        self.folded.geometry.prompts
    }

    /// Level at which the client encrypts.
    pub fn input_level(&self) -> usize {
        self.placement.levels[0]
    }

    /// Whether prompts come in at the lowest level ([`Options::refresh_input`]).
    pub fn refreshes_input(&self) -> bool {
        self.options.refresh_input
    }

    /// Vectors of the input.
    pub fn input_width(&self) -> usize {
        self.graph.nodes[0].width
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.graph.nodes.len()
    }

    /// Predicted seconds of a run by the prices of the target ([`Target::cost`]).
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Predicted seconds when refreshes are placed as late as possible instead, if that works at
    /// all.
    pub fn greedy_seconds(&self) -> Option<f64> {
        self.greedy
    }

    /// Bytes of the checkpoints of a whole run, if every step is kept.
    pub fn checkpoint_bytes(&self, params: &Params) -> u64 {
        let stored = |level: usize| Ciphertext::stored_bytes(params, level, false);
        let nodes = self.graph.nodes.iter().enumerate().skip(1);
        nodes.map(|(id, n)| n.width as u64 * stored(self.level_after(id))).sum()
    }

    /// Keys that a run needs, each with the levels of its use.
    pub fn keys(&self) -> &BTreeMap<KeyUse, BTreeSet<usize>> {
        &self.keys
    }

    /// Kinds of refresh in use.
    pub fn refresh_kinds(&self) -> Vec<RefreshKind> {
        let nodes = self.placement.refreshes.keys().map(|&id| self.choice.counts(self.graph.nodes[id].width));
        let (pairs, singles) = nodes.fold((0, 0), |(p, s), (pairs, singles)| (p + pairs, s + singles));
        let pair = self.choice.pair.filter(|_| pairs > 0);
        let single = (singles > 0).then_some(self.choice.single);
        let own: Vec<_> = [pair, single].into_iter().flatten().collect();
        let feedback =
            self.feedback.iter().flat_map(|f| &f.kinds).copied().filter(|kind| !own.contains(kind));
        own.iter().copied().chain(feedback).collect()
    }

    /// Refreshes of the whole run, as (operations, ciphertexts through them).
    pub fn refreshes(&self) -> (usize, usize) {
        let counts = self.placement.refreshes.keys().map(|&n| self.choice.counts(self.graph.nodes[n].width));
        counts.fold((0, 0), |(ops, vectors), (pairs, singles)| {
            (ops + pairs + singles, vectors + 2 * pairs + singles)
        })
    }

    /// Refresh operations of each layer; the part after the last layer counts with it.
    pub fn refreshes_by_layer(&self) -> Vec<usize> {
        let layers = self.folded.shape().layers;
        let mut out = vec![0; layers];
        for &id in self.placement.refreshes.keys() {
            let node = &self.graph.nodes[id];
            let (pairs, singles) = self.choice.counts(node.width);
            out[node.layer.unwrap_or(layers - 1)] += pairs + singles;
        }
        out
    }

    /// What the client encrypts: one period of real slots for each input vector. Prompts shorter
    /// than the plan are filled up by repeating their tokens, which no token of the prompt sees.
    /// Public tokens before the text ([`cipherlm_model::ModelSpec::prefix`]) are no part of it.
    ///
    /// # Errors
    /// An empty or too long prompt, an unknown token.
    pub fn pack(&self, tokens: &[u32]) -> Result<Vec<Vec<f64>>> {
        self.pack_each(&[tokens])
    }

    /// As [`Plan::pack`], for several prompts in one pass, up to [`Plan::prompts`]: one period of
    /// all of them, slot by slot. The last prompt fills the places that are left; [`Plan::pack`]
    /// fills all of them.
    ///
    /// # Errors
    /// [`Error::Prompts`] for none or too many; as [`Plan::pack`].
    pub fn pack_each(&self, prompts: &[&[u32]]) -> Result<Vec<Vec<f64>>> {
        let filled = lanes::fill(prompts, self.prompts())?;
        Ok(lanes::interleave(lanes::of_each(&filled, |tokens| self.pack_at(tokens, 0))?))
    }

    /// As [`Plan::pack`], for the tokens of one prompt that stand from position `start` on.
    ///
    /// # Errors
    /// As [`Plan::pack`].
    pub fn pack_at(&self, tokens: &[u32], start: usize) -> Result<Vec<Vec<f64>>> {
        self.check_length(tokens)?;
        let padded: Vec<u32> = tokens.iter().copied().cycle().take(self.tokens()).collect();
        let start = self.folded.first() + start;
        let mut rows = Runner::new(&self.folded.model, Mode::Exact)?.embed(&padded, start)?;
        self.folded.enter_stream(&mut rows);
        let mut packed = self.folded.geometry.pack(&rows, self.folded.shape().d_model);
        packed.resize(self.input_width(), vec![0.0; self.folded.geometry.period()]);
        Ok(packed)
    }

    fn check_length(&self, tokens: &[u32]) -> Result<()> {
        let capacity = self.tokens();
        if tokens.is_empty() || tokens.len() > capacity {
            return Err(Error::Prompt {
                length: tokens.len(),
                capacity,
                advice: "shorten the prompt or plan for a longer one",
            });
        }
        Ok(())
    }

    /// Refuses a prompt on which an activation would leave its certified range: under encryption
    /// nobody would see it. The tokens that fill up the plan count too, because one wild slot can
    /// spoil all others in a refresh. Runs the polynomial model in the clear.
    ///
    /// # Errors
    /// [`Error::LeavesRange`] for the first such token; what [`Plan::pack`] refuses.
    pub fn ensure_in_range(&self, tokens: &[u32]) -> Result<()> {
        self.ensure_in_range_after(&[], tokens)
    }

    /// As [`Plan::ensure_in_range`], for tokens that follow others in a session.
    ///
    /// # Errors
    /// As [`Plan::ensure_in_range`].
    pub fn ensure_in_range_after(&self, before: &[u32], tokens: &[u32]) -> Result<()> {
        self.check_length(tokens)?;
        let model = &self.folded.model;
        let mut runner = Runner::new(model, Mode::Polynomial)?;
        let filled: Vec<u32> = tokens.iter().copied().cycle().take(self.tokens()).collect();
        let valid: Vec<bool> = (0..filled.len()).map(|i| i < tokens.len()).collect();
        match self.folded.shape().kind {
            Kind::Decoder => {}
            Kind::Encoder { .. } => {
                runner.classify(&filled, Some(&valid))?;
                return leaves_range(model, &runner, None, None);
            }
            Kind::Embedder { .. } => {
                runner.hidden(&filled, Some(&valid))?;
                return leaves_range(model, &runner, None, None);
            }
        }
        if !before.is_empty() {
            runner.append(before, Positions::Last)?;
            leaves_range(model, &runner, None, None)?;
        }
        for (index, token) in filled.into_iter().enumerate() {
            let repeated = (index >= tokens.len()).then(|| self.tokens());
            runner.append(&[token], Positions::Last)?;
            leaves_range(model, &runner, Some(before.len() + index), repeated)?;
        }
        Ok(())
    }

    /// Logits of one position out of the decrypted output vectors: of the text's last token,
    /// whatever `position`, where the plan answers that alone ([`Plan::answers_last`]).
    ///
    /// # Errors
    /// [`Error::Position`] for a position outside the plan.
    pub fn logits(&self, outputs: &[Vec<f64>], position: usize) -> Result<Vec<f64>> {
        self.logits_of(outputs, 0, position)
    }

    /// As [`Plan::logits`], of one of the prompts of a pass, from 0.
    ///
    /// # Errors
    /// As [`Plan::logits`]; [`Error::Prompts`] for a prompt that the plan has no place for.
    pub fn logits_of(&self, outputs: &[Vec<f64>], prompt: usize, position: usize) -> Result<Vec<f64>> {
        lanes::check_count(prompt.saturating_add(1), self.prompts())?;
        let own = lanes::lane_of_each(outputs, self.prompts(), prompt);
        answer::logits(&self.answers(), &own, position)
    }

    /// Where the numbers of the answers lie.
    pub(crate) fn answers(&self) -> Answers {
        let g = self.folded.geometry;
        let (features, tokens) = self.folded.wide.map_or((g.features, g.tokens), |wide| (wide.period, 1));
        let whole = Answers {
            vectors: self.graph.nodes.last().map_or(0, |node| node.width),
            features,
            tokens,
            last: self.folded.wide.is_some(),
            results: self.folded.results(),
            unit: self.folded.result_unit(),
            degree: 0,
        };
        Answers { degree: small::degree(&whole, &g, self.small_degrees()), ..whole }
    }

    /// Degree of the ring that prompts are encrypted in; 0 for that of the circuit.
    pub(crate) fn prompt_degree(&self) -> usize {
        let (g, level) = (self.folded.geometry, self.input_level());
        self.small_degrees().map_or(0, |degrees| degrees.prompt(&g, level))
    }

    /// Of messages of a prompt and its answer: what goes on without a client is not made small.
    fn small_degrees(&self) -> Option<&Degrees> {
        let alone = self.folded.purpose == Purpose::Prompt && self.options.levels_left == 0;
        self.target.small.as_ref().filter(|_| alone)
    }

    /// What a client asks for by itself: the answer to the text's last token, or to all of them
    /// where it makes one vector of their states.
    pub fn asked(&self, length: usize) -> Asked {
        small::usual(self.folded.shape().kind, &self.answers(), self.prompts(), length)
    }

    /// How answers of this plan are read.
    pub(crate) fn reader(&self) -> Reader {
        let (kind, g) = (self.folded.shape().kind, self.folded.geometry);
        Reader { kind, answers: self.answers(), slots: g.vector_slots(), prompts: g.prompts }
    }

    /// Position at which the answer to a prompt of `tokens` tokens stands: a decoder's last token,
    /// an encoder's first; the last one where there is one answer.
    pub fn answer_position(&self, tokens: usize) -> usize {
        answer::position(self.folded.shape().kind, &self.answers(), tokens)
    }

    /// Whether only the last token of a text is answered.
    pub fn answers_last(&self) -> bool {
        self.folded.wide.is_some()
    }

    /// Public tokens that stand before every text: computed in the clear, never encrypted.
    pub fn public_prefix(&self) -> &[u32] {
        &self.folded.model.spec().prefix
    }

    /// The vector of a text of `length` tokens, of length 1, out of its own decrypted last hidden
    /// state.
    pub(crate) fn sentence(&self, own: &[Vec<Complex64>], length: usize) -> Result<Vec<f64>> {
        let Kind::Embedder { pool } = self.folded.shape().kind else {
            let advice = "ask for its logits";
            return Err(Error::Unsupported { feature: "a sentence vector of this model", advice });
        };
        let row = |position| answer::read(&self.answers(), own, position);
        let rows = (0..length).map(row).collect::<Result<Vec<_>>>()?.concat();
        Ok(pool.vector(&rows, self.folded.shape().d_model, None))
    }

    /// The vector of a text that documents were compared with, out of the results.
    pub(crate) fn found(&self, row: &[f64]) -> Result<Vec<f64>> {
        if !matches!(self.folded.shape().kind, Kind::Embedder { .. }) {
            let advice = "ask for its logits";
            return Err(Error::Unsupported { feature: "a sentence vector of this model", advice });
        }
        Ok(Found::of(row, self.folded.shape().d_model)?.vector)
    }

    /// Levels that a step consumes.
    pub(crate) fn depth_of(&self, step: usize) -> usize {
        self.graph.nodes.get(step).map_or(0, |node| node.depth)
    }

    /// Identity of the plan: a hash of the whole description, the tokenizer, the options, the
    /// parameters and bootstrapping profiles, and every step with its operations and levels. Plans
    /// with one identity take each other's keys, prompts, checkpoints and answers.
    pub fn id(&self) -> String {
        self.id.clone()
    }

    /// Computes the identity again after a change.
    pub(crate) fn renew_id(&mut self) -> Result<()> {
        self.id = self.identify()?;
        Ok(())
    }

    /// A clear machine with this plan's chain and refreshes.
    pub fn clear_machine(&self) -> Clear {
        self.target
            .refreshes
            .iter()
            .fold(Clear::new(self.target.chain.clone()), |m, &profile| m.with_refresh(profile))
    }

    fn search(&self) -> Search<'_> {
        Search {
            graph: &self.graph,
            nodes: &self.nodes,
            prices: &self.prices,
            refresh: self.refresh,
            choice: self.choice,
            top: if self.options.refresh_input { floor(&self.target) } else { self.target.input_level },
            floor: floor(&self.target),
            exit: floor(&self.target),
            limit: 0,
        }
    }
}
