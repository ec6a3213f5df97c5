//! Walking through a plan on a machine.

use std::time::{Duration, Instant};

use cipherlm_circuits::slots::{Interleaved, Machine};

use crate::error::{Error, Result, broken};
use crate::exec;
use crate::fold::Purpose;
use crate::graph::{NodeId, Op, Operator, Slice};
use crate::plan::{Plan, Step};
use crate::session::{Session, Turn};
use crate::vector::Value;

/// Told before every step; returning `false` stops the run there.
pub struct Progress<'a> {
    /// Index of the step about to start.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Name of the step.
    pub name: &'a str,
    /// Layer it belongs to.
    pub layer: Option<usize>,
    /// Level on which it lands.
    pub level: usize,
    /// Whether a refresh follows.
    pub refresh: bool,
    /// Time spent so far.
    pub elapsed: Duration,
    /// Predicted time left, corrected by the time that the done part took.
    pub left: Duration,
}

/// Who watches a run, and keeps what must outlive it.
pub trait Observer<M: Machine> {
    /// Called once before the first step.
    ///
    /// # Errors
    /// What keeps the run from starting.
    fn enter(&mut self, _start: &Start<'_, M>) -> Result<()> {
        Ok(())
    }

    /// Called before each step; `false` stops the run.
    fn before(&mut self, progress: &Progress<'_>) -> bool;

    /// Whether a value of this step was kept from an earlier run. What only it needed is then not
    /// computed again.
    fn has(&self, _step: usize, _name: &str) -> bool {
        false
    }

    /// A value kept from an earlier run, if there is one that is whole and fits.
    ///
    /// # Errors
    /// What ends the run; a damaged value is none (`None`, and it is computed again).
    fn restore(&mut self, _machine: &M, _wanted: &Wanted<'_>) -> Result<Option<Value<M>>> {
        Ok(None)
    }

    /// Called after each step with its value, and how long it and its refresh took.
    ///
    /// # Errors
    /// What ends the run.
    fn after(&mut self, _machine: &M, _done: &Done<'_, M>) -> Result<()> {
        Ok(())
    }

    /// Called after the last step of a run that was not ended by an error.
    fn leave(&mut self, _machine: &M) {}
}

/// What a run begins with.
pub struct Start<'a, M: Machine> {
    /// The machine.
    pub machine: &'a M,
    /// Identity of the plan.
    pub plan: &'a str,
    /// The encrypted (or clear) embedding.
    pub input: &'a [M::Vector],
    /// Tokens of each text, without what fills it up to the plan's length.
    pub lengths: &'a [usize],
    /// The session, as it stands before the run.
    pub session: Option<&'a Session<M>>,
}

/// A value that an earlier run may have kept.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Index of the step.
    pub step: usize,
    /// Its name.
    pub name: &'a str,
    /// Vectors that the step has.
    pub vectors: usize,
    /// Their level, after the refresh if there is one.
    pub level: usize,
}

/// A finished step.
pub struct Done<'a, M: Machine> {
    /// Index of the step.
    pub step: usize,
    /// Its name.
    pub name: &'a str,
    /// Kind of work.
    pub class: Operator,
    /// Layer it belongs to.
    pub layer: Option<usize>,
    /// Its vectors, refreshed if the plan says so.
    pub value: &'a [M::Vector],
    /// Time of the step itself.
    pub time: Duration,
    /// Time of the refresh that followed.
    pub refresh_time: Duration,
    /// Refresh operations done.
    pub refreshes: usize,
}

impl<M: Machine, F: FnMut(&Progress<'_>) -> bool> Observer<M> for F {
    fn before(&mut self, progress: &Progress<'_>) -> bool {
        self(progress)
    }
}

impl Plan {
    /// Runs the forward pass on encrypted (or clear) embeddings of a text that fills the plan;
    /// returns the vectors of the answer.
    ///
    /// # Errors
    /// Inputs of the wrong number or level, whatever the machine refuses, and
    /// [`Error::Stopped`] on request.
    pub fn run<M: Machine>(
        &self,
        machine: &M,
        input: Value<M>,
        observer: &mut dyn Observer<M>,
    ) -> Result<Value<M>> {
        self.run_text(machine, input, self.tokens(), observer)
    }

    /// As [`Plan::run`], for a text of `length` tokens, a public number: what fills it up is
    /// masked, so an answer does not depend on it, and an answer at one position is that of the
    /// last token. Of several prompts each has that length.
    ///
    /// # Errors
    /// As [`Plan::run_texts`].
    pub fn run_text<M: Machine>(
        &self,
        machine: &M,
        input: Value<M>,
        length: usize,
        observer: &mut dyn Observer<M>,
    ) -> Result<Value<M>> {
        self.run_texts(machine, input, &vec![length; self.prompts()], observer)
    }

    /// As [`Plan::run_text`], for texts of their own lengths, one for each of [`Plan::prompts`].
    ///
    /// # Errors
    /// As [`Plan::run`]; a length of none or more tokens than the plan takes; [`Error::Mismatch`]
    /// for another number of texts.
    pub fn run_texts<M: Machine>(
        &self,
        machine: &M,
        input: Value<M>,
        lengths: &[usize],
        observer: &mut dyn Observer<M>,
    ) -> Result<Value<M>> {
        self.check_texts(lengths)?;
        if self.folded.decoding() {
            return self.run_session(machine, input, &mut self.session(), observer);
        }
        self.walk(machine, input, lengths, None, observer)
    }

    /// An empty session, for a prompt as long as the plan that begins it.
    pub fn session<M: Machine>(&self) -> Session<M> {
        self.session_of(usize::MAX)
    }

    /// An empty session for a prompt of `tokens` tokens; the rest of what the client encrypts is
    /// padding.
    pub fn session_of<M: Machine>(&self, tokens: usize) -> Session<M> {
        Session::empty(&self.folded, tokens)
    }

    /// As [`Plan::run`], with a session: a plan for prompts fills it with the keys and values of
    /// the session's prompt, a plan for tokens reads it and adds its token.
    ///
    /// # Errors
    /// As [`Plan::run`]; a session that is full, or one that has begun where a prompt is to start
    /// it.
    pub fn run_session<M: Machine>(
        &self,
        machine: &M,
        input: Value<M>,
        session: &mut Session<M>,
        observer: &mut dyn Observer<M>,
    ) -> Result<Value<M>> {
        let context = self.folded.shape().context - self.folded.first();
        if self.folded.purpose == Purpose::Prompt {
            let advice = "plan with `Purpose::PromptForSession`: this plan keeps no keys and values";
            return Err(Error::Unsupported { feature: "a session with this plan", advice });
        }
        if session.position > 0 && !self.folded.decoding() {
            return Err(Error::Prompt {
                length: session.position + self.tokens(),
                capacity: self.tokens(),
                advice: "a prompt starts a session: go on token by token, or start a new one",
            });
        }
        if session.position >= context {
            return Err(Error::Prompt {
                length: session.position + 1,
                capacity: context,
                advice: "start a new session",
            });
        }
        let features = self.folded.geometry.features;
        if session.features != features {
            let show = |features: usize| format!("{features} slots a token");
            let (expected, found) = (show(features), show(session.features));
            return Err(Error::Mismatch { what: "layout of the session's cache", expected, found });
        }
        // A failed step must not leave half a token in the cache.
        let mut after = session.clone();
        let turn = Turn { before: session, after: &mut after };
        let length = if self.folded.decoding() { 1 } else { session.prompt.min(self.tokens()) };
        let value = self.walk(machine, input, &[length], Some(turn), observer)?;
        after.position += length;
        *session = after;
        Ok(value)
    }

    fn walk<M: Machine>(
        &self,
        machine: &M,
        input: Value<M>,
        lengths: &[usize],
        turn: Option<Turn<'_, M>>,
        observer: &mut dyn Observer<M>,
    ) -> Result<Value<M>> {
        self.check_input(machine, &input)?;
        let session = turn.as_ref().map(|turn| turn.before);
        observer.enter(&Start { machine, plan: &self.id, input: &input, lengths, session })?;
        let nodes = &self.graph.nodes;
        let needed = self.needed(observer, turn.is_some());
        let last_use = self.last_uses();
        let schedule = self.schedule();
        let total = schedule.iter().map(|s| s.seconds + s.refresh_seconds).sum();
        let mut values: Vec<Option<Value<M>>> = vec![None; nodes.len()];
        values[0] = Some(input);
        let (lanes, start) = (self.on(machine)?, Instant::now());
        let mut walk = Walk {
            plan: self,
            machine,
            lanes,
            observer,
            lengths,
            turn,
            values,
            schedule,
            total,
            done: 0.0,
            start,
        };
        for id in (1..nodes.len()).filter(|&id| needed[id]) {
            if walk.values[id].is_none() {
                walk.reach(id)?;
            }
            // The input stays: a damaged checkpoint may take the run back to it.
            for (node, value) in walk.values.iter_mut().enumerate().skip(1) {
                if last_use[node] <= id {
                    *value = None;
                }
            }
        }
        let value = walk.values.pop().flatten();
        observer.leave(machine);
        value.ok_or_else(|| broken("a plan ends in a value"))
    }

    fn check_input<M: Machine>(&self, machine: &M, input: &[M::Vector]) -> Result<()> {
        let mismatch = |what, expected: String, found: String| Err(Error::Mismatch { what, expected, found });
        let slots = self.folded.geometry.vector_slots();
        if machine.slots() != slots {
            let expected = slots.to_string();
            return mismatch("slots of the machine", expected, machine.slots().to_string());
        }
        if input.len() != self.input_width() {
            return mismatch("input vectors", self.input_width().to_string(), input.len().to_string());
        }
        match input.iter().find(|v| machine.level(v) < self.input_level()) {
            Some(v) => mismatch("input level", self.input_level().to_string(), machine.level(v).to_string()),
            None => Ok(()),
        }
    }

    /// Steps whose values are wanted, given those that were kept. Within a session all attention
    /// is, with its inputs: keys and values go into the cache.
    fn needed<M: Machine>(&self, observer: &dyn Observer<M>, session: bool) -> Vec<bool> {
        let nodes = &self.graph.nodes;
        let mut needed = vec![false; nodes.len()];
        if let Some(last) = needed.last_mut() {
            *last = true;
        }
        for (id, node) in nodes.iter().enumerate().rev() {
            let caches = session && matches!(node.op, Op::Attend { .. });
            needed[id] |= caches;
            if needed[id] && (caches || !observer.has(id, &node.name)) {
                node.inputs.iter().for_each(|slice| needed[slice.node] = true);
            }
        }
        needed
    }

    fn last_uses(&self) -> Vec<NodeId> {
        self.graph.consumers().iter().map(|readers| readers.last().copied().unwrap_or(usize::MAX)).collect()
    }
}

/// A run on its way.
struct Walk<'a, 'o, M: Machine> {
    plan: &'a Plan,
    machine: &'a M,
    /// The machine as each prompt sees it.
    lanes: Interleaved<'a, M>,
    observer: &'o mut dyn Observer<M>,
    /// Tokens of each text.
    lengths: &'a [usize],
    turn: Option<Turn<'a, M>>,
    values: Vec<Option<Value<M>>>,
    schedule: Vec<Step>,
    /// Predicted seconds of the whole run, and of what is done.
    total: f64,
    done: f64,
    start: Instant,
}

impl<M: Machine> Walk<'_, '_, M> {
    /// Restores or computes a value, and before it what it reads and nobody has yet.
    fn reach(&mut self, id: NodeId) -> Result<()> {
        let node = &self.plan.graph.nodes[id];
        let caches = self.turn.is_some() && matches!(node.op, Op::Attend { .. });
        if !caches {
            self.announce(id)?;
            if let Some(value) = self.restored(id)? {
                return self.keep(id, value);
            }
        }
        for slice in &node.inputs {
            if self.values[slice.node].is_none() {
                self.reach(slice.node)?;
            }
        }
        if caches {
            self.announce(id)?;
            if let Some(value) = self.restored(id)? {
                let plan = self.plan;
                let inputs = plan.inputs(id, &self.values)?;
                if let Some(turn) = &mut self.turn {
                    let level = plan.placement.levels[id];
                    exec::remember(&self.lanes, &plan.folded, node, &inputs, level, turn)?;
                }
                return self.keep(id, value);
            }
        }
        let value = self.step(id)?;
        self.keep(id, value)
    }

    fn keep(&mut self, id: NodeId, value: Value<M>) -> Result<()> {
        let node = &self.plan.graph.nodes[id];
        let level = self.plan.level_after(id);
        if value.len() != node.width || value.iter().any(|v| self.machine.level(v) != level) {
            let found: Vec<usize> = value.iter().map(|v| self.machine.level(v)).collect();
            return Err(broken(&format!(
                "{} has {} vectors at level {level}, not {found:?}",
                node.name, node.width
            )));
        }
        self.values[id] = Some(value);
        self.done += self.schedule[id].seconds + self.schedule[id].refresh_seconds;
        Ok(())
    }

    fn announce(&mut self, id: NodeId) -> Result<()> {
        let (plan, node) = (self.plan, &self.plan.graph.nodes[id]);
        let elapsed = self.start.elapsed();
        // Predictions are scaled by what the finished part really took.
        let pace = if self.done > 0.05 * self.total { elapsed.as_secs_f64() / self.done } else { 1.0 };
        let left = (pace * (self.total - self.done)).max(0.0);
        let progress = Progress {
            step: id,
            steps: plan.graph.nodes.len(),
            name: &node.name,
            layer: node.layer,
            level: plan.placement.levels[id],
            refresh: plan.placement.refreshes.contains_key(&id),
            elapsed,
            left: Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX),
        };
        if self.observer.before(&progress) {
            return Ok(());
        }
        Err(Error::Stopped { step: id, steps: plan.graph.nodes.len() })
    }

    fn restored(&mut self, id: NodeId) -> Result<Option<Value<M>>> {
        let node = &self.plan.graph.nodes[id];
        let level = self.plan.level_after(id);
        self.observer
            .restore(self.machine, &Wanted { step: id, name: &node.name, vectors: node.width, level })
    }

    fn step(&mut self, id: NodeId) -> Result<Value<M>> {
        let (plan, machine) = (self.plan, self.machine);
        let node = &plan.graph.nodes[id];
        let inputs = plan.inputs(id, &self.values)?;
        let _label = machine.log().label(&node.name);
        let start = Instant::now();
        let mut value = exec::evaluate(
            &self.lanes,
            &plan.folded,
            node,
            &inputs,
            plan.placement.levels[id],
            self.lengths,
            self.turn.as_mut(),
        )?;
        let time = start.elapsed();
        let start = Instant::now();
        let mut refreshes = 0;
        if let Some(&to) = plan.placement.refreshes.get(&id) {
            let _label = machine.log().label(&format!("{}.refresh", node.name));
            value = exec::refresh(machine, &node.name, &value, &plan.choice, to)?;
            let (pairs, singles) = plan.choice.counts(value.len());
            refreshes = pairs + singles;
        }
        let refresh_time = start.elapsed();
        let done = Done {
            step: id,
            name: &node.name,
            class: node.class,
            layer: node.layer,
            value: &value,
            time,
            refresh_time,
            refreshes,
        };
        self.observer.after(machine, &done)?;
        Ok(value)
    }
}

impl Plan {
    /// The level of a step's value, after its refresh if it has one.
    pub(crate) fn level_after(&self, id: NodeId) -> usize {
        self.placement.refreshes.get(&id).copied().unwrap_or(self.placement.levels[id])
    }

    /// The vectors that a step reads.
    fn inputs<'v, V>(&self, id: NodeId, values: &'v [Option<Vec<V>>]) -> Result<Vec<&'v [V]>> {
        let node = &self.graph.nodes[id];
        let view = |slice: &Slice| {
            let value = values[slice.node].as_deref();
            let part = value.and_then(|value| value.get(slice.from..slice.from + slice.len));
            part.ok_or_else(|| broken(&format!("{} reads what is not there", node.name)))
        };
        node.inputs.iter().map(view).collect()
    }
}
