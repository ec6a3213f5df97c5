//! Compiling a model for one prompt length and one parameter set.

mod explain;
pub(crate) mod identity;

pub use explain::Step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cipherlm_ckks::slots::{Chain, Clear, KeyUse, Machine, OpKind, Plain, RefreshKind, RefreshProfile};
use cipherlm_ckks::{Complex64, Params};
use cipherlm_model::{Kind, Mode, Model, Positions, Runner, Tokenizer};

use crate::cost::CostModel;
use crate::error::{At, InferError, Result};
use crate::exec::{self, Session};
use crate::feedback::Feedback;
use crate::fold::{Folded, Purpose};
use crate::geometry::Geometry;
use crate::graph::{Graph, NodeId, Op};
use crate::placement::{Placement, Profile, RefreshChoice, Search};

/// What a plan is made for.
#[derive(Debug, Clone)]
pub struct Target {
    /// Levels and scales.
    pub chain: Chain,
    /// The kinds of refresh there are.
    pub refreshes: Vec<RefreshProfile>,
    /// Highest level at which the client encrypts.
    pub input_level: usize,
    /// What primitives cost.
    pub cost: CostModel,
    /// The parameters and bootstrapping profiles behind all this, for the identity of a plan.
    pub(crate) origin: String,
}

impl Target {
    /// The chain of a parameter set, without refreshes; see [`Target::with_refresh`].
    ///
    /// # Errors
    /// [`InferError::Slots`] when the parameters have no usable chain.
    pub fn of(params: &Params) -> Result<Self> {
        let chain = Chain::of(params).at("parameters")?;
        let origin = params.hash().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { input_level: chain.top(), chain, refreshes: vec![], cost: CostModel::default(), origin })
    }

    /// The same with one more kind of refresh; fresh encryptions stay at or below its output.
    #[must_use]
    pub fn with_refresh(mut self, profile: RefreshProfile) -> Self {
        self.input_level = self.input_level.min(profile.output_level);
        self.refreshes.push(profile);
        self
    }

    /// The same with another table of costs, as [`CostModel::load`] reads it.
    #[must_use]
    pub fn with_cost(self, cost: CostModel) -> Self {
        Self { cost, ..self }
    }

    /// A uniform chain without primes, with full and real refreshes from level 0 to `levels`: for
    /// tests and planning.
    ///
    /// # Errors
    /// [`InferError::Slots`] when `slots` is not a power of two.
    pub fn uniform(slots: usize, levels: usize, scale_bits: u32, bottom_bits: u32) -> Result<Self> {
        let chain = Chain::uniform(slots, levels, scale_bits, bottom_bits).at("chain")?;
        let profile =
            |kind| RefreshProfile { kind, input_level: 0, output_level: levels, range: 1.0, error: 1e-6 };
        let refreshes = vec![profile(RefreshKind::Full), profile(RefreshKind::Real)];
        Ok(Self {
            chain,
            refreshes,
            input_level: levels,
            cost: CostModel::default(),
            origin: "uniform".into(),
        })
    }
}

/// What a run takes of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Keys, as the caller holds them.
    pub keys: u64,
    /// The model and its widest map on the way to plaintexts.
    pub weights: u64,
    /// Ciphertexts alive at once, beyond those of a small model.
    pub vectors: u64,
    /// Rotations that packed attention holds.
    pub attention: u64,
    /// Plaintexts and digits of transforms and bootstraps, and the ciphertexts of a small model.
    pub circuits: u64,
}

impl Memory {
    /// Everything but the keys.
    pub fn working(&self) -> u64 {
        self.weights + self.vectors + self.attention + self.circuits
    }

    /// Everything.
    pub fn total(&self) -> u64 {
        self.keys + self.working()
    }
}

/// Choices left to the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Prompt length to plan for, rounded up to a power of two.
    pub tokens: usize,
    /// Most refreshed values in one layer.
    pub refreshes_per_layer: usize,
    /// A prompt at once, or a token at a time (then `tokens` does not matter).
    pub purpose: Purpose,
    /// Levels that the logits have to keep: 0 for a client that decrypts them, 1 for
    /// [`Plan::with_feedback`].
    pub levels_left: usize,
    /// Hash of the tokenizer that makes the prompts: see [`Options::with_tokenizer`].
    pub tokenizer: Option<[u8; 32]>,
}

impl Default for Options {
    fn default() -> Self {
        Self { tokens: 32, refreshes_per_layer: 6, purpose: Purpose::Prompt, levels_left: 0, tokenizer: None }
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
    options: Options,
    profiles: Vec<Profile>,
    greedy: Option<f64>,
    pub(crate) keys: BTreeMap<KeyUse, BTreeSet<usize>>,
    pub(crate) feedback: Option<Feedback>,
    pub(crate) id: String,
}

impl Plan {
    /// Chooses layout, levels and refreshes for a certified model.
    ///
    /// # Errors
    /// A model that is not certified or has no encrypted form; a length that does not fit; no
    /// feasible placement of refreshes.
    pub fn compile(model: Arc<Model>, target: Target, options: &Options) -> Result<Self> {
        let tokens = if options.purpose == Purpose::Token { 1 } else { options.tokens };
        let geometry = Geometry::new(model.shape(), tokens, target.chain.slots())?;
        let cache = geometry.features * model.shape().context;
        if options.purpose != Purpose::Prompt && cache > geometry.slots {
            return Err(InferError::DoesNotFit {
                what: "slots for the cache of one block",
                need: cache as u64,
                have: geometry.slots as u64,
                advice: "use a larger ring or a shorter context",
            });
        }
        let folded = Folded::new(model, geometry, options.purpose)?;
        let graph = Graph::build(&folded)?;
        let (choice, refresh) = choose(&target, &geometry);
        let limit = if target.refreshes.is_empty() { 0 } else { options.refreshes_per_layer };
        let probe = Probe { folded: &folded, graph: &graph };
        let profiles = probe.profiles()?;
        let search = Search {
            graph: &graph,
            profiles: &profiles,
            cost: &target.cost,
            refresh,
            choice,
            top: target.input_level,
            floor: floor(&target),
            exit: floor(&target) + options.levels_left,
            limit,
        };
        let placement = search.cheapest()?;
        let greedy = search.greedy_seconds();
        let mut plan = Self {
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

    /// Level at which the client encrypts.
    pub fn input_level(&self) -> usize {
        self.placement.levels[0]
    }

    /// Vectors of the input.
    pub fn input_width(&self) -> usize {
        self.graph.nodes[0].width
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.graph.nodes.len()
    }

    /// Predicted seconds of a run.
    pub fn seconds(&self) -> f64 {
        self.placement.seconds
    }

    /// Predicted seconds when refreshes are placed as late as possible instead, if that works at
    /// all.
    pub fn greedy_seconds(&self) -> Option<f64> {
        self.greedy
    }

    /// Memory of a run beside the keys: [`Memory::working`] of [`Plan::memory`].
    pub fn working_bytes(&self) -> u64 {
        self.memory(0).working()
    }

    /// The memory bill of a run that holds `keys` bytes of keys. Plaintexts, digits and bootstraps
    /// are as measured at N = 2^16 with full bootstraps; everything that grows with the model is
    /// counted on top.
    pub fn memory(&self, keys: u64) -> Memory {
        let g = self.folded.geometry;
        let limb = 2 * g.slots as u64 * 8;
        let vectors = self.live_bytes(limb);
        let measured = (9u64 << 29) * g.slots as u64 / (1 << 15);
        // The measured run had a ninth of its memory in vectors.
        let vectors = vectors.saturating_sub(measured / 9);
        Memory {
            keys,
            weights: self.weight_bytes(),
            vectors,
            attention: self.attention_bytes(limb),
            circuits: measured,
        }
    }

    /// Ciphertexts that are alive at once, with those of the step that is run.
    fn live_bytes(&self, limb: u64) -> u64 {
        let nodes = &self.graph.nodes;
        let bytes = |width: usize, level: usize| 2 * width as u64 * (level as u64 + 1) * limb;
        let consumers = self.graph.consumers();
        let last = |id: NodeId| consumers[id].last().copied().unwrap_or(usize::MAX);
        let at = |step: NodeId| -> u64 {
            let kept = (0..step)
                .filter(|&id| last(id) >= step)
                .map(|id| bytes(nodes[id].width, self.level_after(id)));
            let own = bytes(nodes[step].width, self.placement.levels[step] + nodes[step].depth);
            kept.sum::<u64>() + own
        };
        (0..nodes.len()).map(at).max().unwrap_or(0)
    }

    /// The model, and the widest of its maps in the forms that it goes through on the way to
    /// plaintexts.
    fn weight_bytes(&self) -> u64 {
        let shape = self.folded.shape();
        let widest = [3 * shape.attention_width(), 2 * shape.ffn, self.folded.results()]
            .into_iter()
            .max()
            .unwrap_or(0);
        8 * (shape.parameters() as u64 + 4 * (shape.d_model * widest) as u64)
    }

    /// What packed attention holds.
    fn attention_bytes(&self, limb: u64) -> u64 {
        let g = self.folded.geometry;
        let held = |(id, node): (NodeId, &crate::graph::Node)| match node.op {
            Op::Attend { .. } if self.folded.packs_scores() => {
                let limbs = (self.placement.levels[id] + node.depth + 1) as u64;
                2 * (2 * g.head as u64 - 1) * limbs * limb
            }
            _ => 0,
        };
        self.graph.nodes.iter().enumerate().map(held).max().unwrap_or(0)
    }

    /// Bytes of the checkpoints of a whole run, if every step is kept.
    pub fn checkpoint_bytes(&self, params: &Params) -> u64 {
        let polynomial = |level: usize| params.limb_count(level) as u64 * params.degree() as u64 * 25 / 4;
        let nodes = self.graph.nodes.iter().enumerate().skip(1);
        nodes.map(|(id, n)| 2 * n.width as u64 * polynomial(self.level_after(id))).sum()
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
    /// than the plan are filled up by repeating their tokens, which later positions may see and
    /// earlier ones may not.
    ///
    /// # Errors
    /// An empty or too long prompt, an unknown token.
    pub fn pack(&self, tokens: &[u32]) -> Result<Vec<Vec<f64>>> {
        self.pack_at(tokens, 0)
    }

    /// As [`Plan::pack`], for tokens that stand from position `start` on.
    ///
    /// # Errors
    /// As [`Plan::pack`].
    pub fn pack_at(&self, tokens: &[u32], start: usize) -> Result<Vec<Vec<f64>>> {
        self.check_length(tokens)?;
        let padded: Vec<u32> = tokens.iter().copied().cycle().take(self.tokens()).collect();
        let mut rows = Runner::new(&self.folded.model, Mode::Exact)?.embed(&padded, start)?;
        self.folded.enter_stream(&mut rows);
        let mut packed = self.folded.geometry.pack(&rows, self.folded.shape().d_model);
        packed.resize(self.input_width(), vec![0.0; self.folded.geometry.period()]);
        Ok(packed)
    }

    fn check_length(&self, tokens: &[u32]) -> Result<()> {
        let capacity = self.tokens();
        if tokens.is_empty() || tokens.len() > capacity {
            return Err(InferError::Prompt {
                length: tokens.len(),
                capacity,
                advice: "shorten the prompt or plan for a longer one",
            });
        }
        if self.folded.shape().kind != Kind::Decoder && tokens.len() != capacity {
            return Err(InferError::Prompt {
                length: tokens.len(),
                capacity,
                advice: "every position of an encoder sees all others: fill the text up with the model's padding token",
            });
        }
        Ok(())
    }

    /// Refuses a prompt on which an activation would leave its certified range: under encryption
    /// nobody would see it. The tokens that fill up the plan count too, because one wild slot can
    /// spoil all others in a refresh. Runs the polynomial model in the clear.
    ///
    /// # Errors
    /// [`InferError::LeavesRange`] for the first such token; what [`Plan::pack`] refuses.
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
        match self.folded.shape().kind {
            Kind::Decoder => {}
            Kind::Encoder { .. } => {
                runner.classify(tokens, None)?;
                return leaves_range(model, &runner, None, None);
            }
            Kind::Embedder { .. } => {
                runner.hidden(tokens, None)?;
                return leaves_range(model, &runner, None, None);
            }
        }
        if !before.is_empty() {
            runner.append(before, Positions::Last)?;
            leaves_range(model, &runner, None, None)?;
        }
        let filled = tokens.iter().copied().cycle().take(self.tokens());
        for (index, token) in filled.enumerate() {
            let repeated = (index >= tokens.len()).then(|| self.tokens());
            runner.append(&[token], Positions::Last)?;
            leaves_range(model, &runner, Some(before.len() + index), repeated)?;
        }
        Ok(())
    }

    /// Logits of one position out of the decrypted output vectors.
    ///
    /// # Errors
    /// [`InferError::Prompt`] for a position outside the plan.
    pub fn logits(&self, outputs: &[Vec<f64>], position: usize) -> Result<Vec<f64>> {
        self.check_outputs(outputs.len())?;
        if position >= self.tokens() {
            return Err(InferError::Prompt {
                length: position + 1,
                capacity: self.tokens(),
                advice: "ask for a position of the prompt",
            });
        }
        let mut row = self.folded.geometry.unpack_row(outputs, position, self.folded.results());
        row.iter_mut().for_each(|x| *x *= self.folded.units.logits);
        Ok(row)
    }

    /// Position at which the answer to a prompt of `tokens` tokens stands: a decoder's last token,
    /// an encoder's first.
    pub fn answer_position(&self, tokens: usize) -> usize {
        if self.folded.shape().kind == Kind::Decoder { tokens.saturating_sub(1) } else { 0 }
    }

    fn check_outputs(&self, found: usize) -> Result<()> {
        let expected = self.graph.nodes.last().map_or(0, |node| node.width);
        if found == expected {
            return Ok(());
        }
        let reason = format!("it has {found} vectors, the plan gives {expected}");
        Err(InferError::Malformed { what: "encrypted logits".into(), reason })
    }

    /// Logits of one position out of decrypted vectors, after a look at what a real answer cannot
    /// have: imaginary parts, values in slots that hold nothing, logits beyond their certified
    /// range. Whatever goes wrong under encryption fills all slots.
    ///
    /// # Errors
    /// [`InferError::NotAnAnswer`]; as [`Plan::logits`].
    pub(crate) fn answer(&self, outputs: &[Vec<Complex64>], position: usize) -> Result<Vec<f64>> {
        self.check_outputs(outputs.len())?;
        let real = ensure_real(outputs)?;
        let g = self.folded.geometry;
        for token in 0..g.tokens {
            let row = g.unpack_row(&real, token, outputs.len() * g.features);
            at_most("a slot that holds nothing", row[self.folded.results()..].iter().copied(), SLACK)?;
        }
        let logits = self.logits(&real, position)?;
        let unit = self.folded.units.logits;
        at_most("a logit, in units of its certified range,", logits.iter().map(|x| x / unit), 1.0 + SLACK)?;
        Ok(logits)
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
            profiles: &self.profiles,
            cost: &self.target.cost,
            refresh: choose(&self.target, &self.folded.geometry).1,
            choice: self.choice,
            top: self.target.input_level,
            floor: floor(&self.target),
            exit: floor(&self.target),
            limit: 0,
        }
    }

    fn keys_used(&self) -> Result<BTreeMap<KeyUse, BTreeSet<usize>>> {
        let machine = self
            .target
            .refreshes
            .iter()
            .fold(Clear::dry(self.target.chain.clone()), |m, &p| m.with_refresh(p));
        let blank = Plain::from(0.0);
        let input = (0..self.input_width()).map(|_| machine.trivial(&blank, self.input_level()).at("input"));
        let input = input.collect::<Result<Vec<_>>>()?;
        let mut go = |_: &crate::run::Progress<'_>| true;
        if self.folded.decoding() {
            // Somewhere behind the first position, where nothing is turned.
            let mut session = self.session();
            session.position = self.folded.shape().context - 1;
            self.run_session(&machine, input, &mut session, &mut go)?;
        } else {
            self.run(&machine, input, &mut go)?;
        }
        Ok(machine.log().keys())
    }
}

/// Refuses what a clear run in polynomial mode has shown to leave a certified range.
///
/// # Errors
/// [`InferError::LeavesRange`] for the first such site.
pub fn ensure_in_range(model: &Model, runner: &Runner<'_>) -> Result<()> {
    leaves_range(model, runner, None, None)
}

fn leaves_range(
    model: &Model,
    runner: &Runner<'_>,
    position: Option<usize>,
    repeated: Option<usize>,
) -> Result<()> {
    let Some((site, _, stats)) = runner.stats().find(|(_, _, stats)| stats.violations > 0) else {
        return Ok(());
    };
    let (lo, hi) = model.site(site).map_or((f64::NAN, f64::NAN), |site| (site.range.lo, site.range.hi));
    let (min, max) = (stats.observed.min, stats.observed.max);
    Err(InferError::LeavesRange { position, repeated, site: site.into(), lo, hi, min, max })
}

/// What errors of encryption may add to a slot of an answer. Those seen are below 2^-9; what is no
/// answer is near 1 or far beyond.
const SLACK: f64 = 1.0 / 32.0;

/// The real parts, if there is nothing else.
pub(crate) fn ensure_real(vectors: &[Vec<Complex64>]) -> Result<Vec<Vec<f64>>> {
    at_most("an imaginary part", vectors.iter().flatten().map(|slot| slot.im), SLACK)?;
    Ok(vectors.iter().map(|slots| slots.iter().map(|slot| slot.re).collect()).collect())
}

pub(crate) fn at_most(what: &'static str, values: impl Iterator<Item = f64>, bound: f64) -> Result<()> {
    let larger = |most: f64, x: f64| if x.abs() > most || x.is_nan() { x.abs() } else { most };
    let found = values.fold(0.0, larger);
    if found <= bound { Ok(()) } else { Err(InferError::NotAnAnswer { what, found, bound }) }
}

/// The lowest level that circuits use: those below a refresh's input belong to it, and their scales
/// suit nothing else.
fn floor(target: &Target) -> usize {
    target.refreshes.iter().map(|profile| profile.input_level).max().unwrap_or(0).max(target.chain.floor())
}

/// Picks kinds of refresh: sparse ones where all values repeat, pairs where a complex refresh
/// exists.
fn choose(target: &Target, geometry: &Geometry) -> (RefreshChoice, RefreshProfile) {
    let period = geometry.period();
    let known = |kind: RefreshKind| target.refreshes.iter().find(|p| p.kind == kind);
    let first = |kinds: &[RefreshKind]| kinds.iter().copied().find(|&kind| known(kind).is_some());
    let single = first(&[
        RefreshKind::SparseReal(period),
        RefreshKind::Sparse(period),
        RefreshKind::Real,
        RefreshKind::Full,
    ]);
    let pair = first(&[RefreshKind::Sparse(period), RefreshKind::Full]);
    let Some(single) = single else {
        // Without refreshes the whole circuit has to fit the chain.
        let level = target.input_level;
        let none = RefreshProfile {
            kind: RefreshKind::Full,
            input_level: 0,
            output_level: level,
            range: 1.0,
            error: 0.0,
        };
        return (RefreshChoice { pair: None, single: RefreshKind::Full }, none);
    };
    let pays = |kind: &RefreshKind| target.cost.refresh(*kind) < 2.0 * target.cost.refresh(single);
    let choice = RefreshChoice { pair: pair.filter(pays), single };
    // Plan with what every kind in use can do.
    let used = [Some(single), choice.pair].into_iter().flatten().filter_map(known).copied();
    let narrow = |a: RefreshProfile, b: RefreshProfile| RefreshProfile {
        input_level: a.input_level.max(b.input_level),
        output_level: a.output_level.min(b.output_level),
        ..a
    };
    let first = known(single).copied().into_iter();
    let profile = first.chain(used).reduce(narrow).unwrap_or(RefreshProfile {
        kind: single,
        input_level: 0,
        output_level: 0,
        range: 1.0,
        error: 0.0,
    });
    (choice, profile)
}

/// Counts the primitive operations of every node on a dry machine.
struct Probe<'a> {
    folded: &'a Folded,
    graph: &'a Graph,
}

impl Probe<'_> {
    fn profiles(&self) -> Result<Vec<Profile>> {
        let mut known: BTreeMap<String, Profile> = BTreeMap::new();
        let mut out = vec![];
        for node in &self.graph.nodes {
            // Layers that differ in numbers alone do the same operations. A polynomial is its own,
            // and so is a matrix with zeros, which costs less.
            let shared = match &node.op {
                Op::Poly { .. } => false,
                Op::Linear { map, .. } => !self.folded.has_zeros(*map)?,
                _ => true,
            };
            let local = node.name.splitn(3, '.').last().unwrap_or(&node.name);
            let widths: Vec<usize> = node.inputs.iter().map(|slice| slice.len).collect();
            let key = format!("{local} {} {widths:?} {}", node.depth, node.width);
            let profile = match known.get(&key).filter(|_| shared) {
                Some(profile) => profile.clone(),
                None => self.profile(node)?,
            };
            if shared {
                known.insert(key, profile.clone());
            }
            out.push(profile);
        }
        Ok(out)
    }

    fn profile(&self, node: &crate::graph::Node) -> Result<Profile> {
        const LEVEL: usize = 2;
        if matches!(node.op, Op::Input) {
            return Ok(vec![]);
        }
        let chain = Chain::uniform(self.folded.geometry.slots, LEVEL + node.depth, 40, 50).at(&node.name)?;
        let machine = Clear::dry(chain);
        let blank = Plain::from(0.0);
        let make = |len: usize| {
            (0..len)
                .map(|_| machine.trivial(&blank, LEVEL + node.depth).at(&node.name))
                .collect::<Result<Vec<_>>>()
        };
        let inputs = node.inputs.iter().map(|slice| make(slice.len)).collect::<Result<Vec<_>>>()?;
        machine.log().clear();
        let views: Vec<_> = inputs.iter().map(Vec::as_slice).collect();
        let mut session = Session::empty(self.folded, usize::MAX);
        session.position = self.folded.shape().context - 1;
        let mut after = session.clone();
        let mut turn = exec::Turn { before: &session, after: &mut after };
        let turn = (self.folded.purpose != Purpose::Prompt).then_some(&mut turn);
        exec::evaluate(&machine, self.folded, node, &views, LEVEL, turn)?;
        let rows = machine.log().rows();
        let kinds = rows.iter().filter(|row| row.kind != OpKind::Refresh);
        Ok(kinds.map(|row| (row.kind, row.level as i64 - LEVEL as i64, row.total.count)).collect())
    }
}
