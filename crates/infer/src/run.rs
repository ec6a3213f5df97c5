//! Walking through a plan on a machine.

use std::time::{Duration, Instant};

use cipherlm_ckks::slots::Machine;

use crate::error::{InferError, Result};
use crate::exec::{self, Session, Value};
use crate::graph::{NodeId, Operator};
use crate::plan::Plan;

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
    /// Called before each step; `false` stops the run.
    fn before(&mut self, progress: &Progress<'_>) -> bool;

    /// Whether a value of this step was kept from an earlier run. What only it needed is then not computed again.
    fn has(&self, _step: usize, _name: &str) -> bool {
        false
    }

    /// A value kept from an earlier run, if there is one.
    ///
    /// # Errors
    /// An unreadable checkpoint.
    fn restore(&mut self, _machine: &M, _step: usize, _name: &str) -> Result<Option<Value<M>>> {
        Ok(None)
    }

    /// Called after each step with its value, and how long it and its refresh took.
    ///
    /// # Errors
    /// A checkpoint that cannot be written.
    fn after(&mut self, _machine: &M, _done: &Done<'_, M>) -> Result<()> {
        Ok(())
    }
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
    /// Runs the forward pass on encrypted (or clear) embeddings; returns the vectors of the logits.
    ///
    /// # Errors
    /// Inputs of the wrong number or level, whatever the machine refuses, and [`InferError::Stopped`] on request.
    pub fn run<M: Machine>(&self, machine: &M, input: Value<M>, observer: &mut dyn Observer<M>) -> Result<Value<M>> {
        if self.folded.decoding() {
            return self.run_session(machine, input, &mut self.session(), observer);
        }
        self.walk(machine, input, None, observer)
    }

    /// An empty session, for a prompt as long as the plan that begins it.
    pub fn session<M: Machine>(&self) -> Session<M> {
        self.session_of(usize::MAX)
    }

    /// An empty session for a prompt of `tokens` tokens; the rest of what the client encrypts is padding.
    pub fn session_of<M: Machine>(&self, tokens: usize) -> Session<M> {
        Session::empty(&self.folded, tokens)
    }

    /// As [`Plan::run`], with a session: a plan for prompts fills it with the keys and values of the session's prompt, a plan for
    /// tokens reads it and adds its token.
    ///
    /// # Errors
    /// As [`Plan::run`]; a session that is full, or one that has begun where a prompt is to start it.
    pub fn run_session<M: Machine>(
        &self,
        machine: &M,
        input: Value<M>,
        session: &mut Session<M>,
        observer: &mut dyn Observer<M>,
    ) -> Result<Value<M>> {
        let context = self.folded.shape().context;
        if session.position > 0 && !self.folded.decoding() {
            return Err(InferError::Prompt {
                length: session.position + self.tokens(),
                capacity: self.tokens(),
                advice: "a prompt starts a session: go on token by token, or start a new one",
            });
        }
        if session.position >= context {
            return Err(InferError::Prompt {
                length: session.position + 1,
                capacity: context,
                advice: "start a new session",
            });
        }
        let features = self.folded.geometry.features;
        if session.features != features {
            let show = |features: usize| format!("{features} slots a token");
            let (expected, found) = (show(features), show(session.features));
            return Err(InferError::Mismatch { what: "layout of the session's cache", expected, found });
        }
        // A failed step must not leave half a token in the cache.
        let mut next = session.clone();
        let value = self.walk(machine, input, Some(&mut next), observer)?;
        next.position += if self.folded.decoding() { 1 } else { session.prompt.min(self.tokens()) };
        *session = next;
        Ok(value)
    }

    fn walk<M: Machine>(
        &self,
        machine: &M,
        input: Value<M>,
        mut session: Option<&mut Session<M>>,
        observer: &mut dyn Observer<M>,
    ) -> Result<Value<M>> {
        self.check_input(machine, &input)?;
        let nodes = &self.graph.nodes;
        let last_use = self.last_uses();
        let schedule = self.schedule();
        let total: f64 = schedule.iter().map(|s| s.seconds + s.refresh_seconds).sum();
        let mut done = 0.0;
        let start = Instant::now();
        let mut values: Vec<Option<Value<M>>> = vec![None; nodes.len()];
        values[0] = Some(input);
        let needed = self.needed(observer);
        for (id, node) in nodes.iter().enumerate().skip(1).filter(|(id, _)| needed[*id]) {
            let elapsed = start.elapsed();
            // Predictions are scaled by what the finished part really took.
            let pace = if done > 0.05 * total { elapsed.as_secs_f64() / done } else { 1.0 };
            let progress = Progress {
                step: id,
                steps: nodes.len(),
                name: &node.name,
                layer: node.layer,
                level: self.placement.levels[id],
                refresh: self.placement.refreshes.contains_key(&id),
                elapsed,
                left: Duration::from_secs_f64((pace * (total - done)).max(0.0)),
            };
            if !observer.before(&progress) {
                return Err(InferError::Stopped { step: id, steps: nodes.len() });
            }
            let value = match observer.restore(machine, id, &node.name)? {
                Some(value) => value,
                None => self.step(machine, id, &values, session.as_deref_mut(), observer)?,
            };
            values[id] = Some(value);
            done += schedule[id].seconds + schedule[id].refresh_seconds;
            for slice in &node.inputs {
                if last_use[slice.node] == id {
                    values[slice.node] = None;
                }
            }
        }
        values.pop().flatten().ok_or(InferError::Malformed { what: "plan".into(), reason: "it has no steps".into() })
    }

    fn step<M: Machine>(
        &self,
        machine: &M,
        id: NodeId,
        values: &[Option<Value<M>>],
        session: Option<&mut Session<M>>,
        observer: &mut dyn Observer<M>,
    ) -> Result<Value<M>> {
        let node = &self.graph.nodes[id];
        let view = |slice: &crate::graph::Slice| {
            let value = values[slice.node].as_deref().unwrap_or_default();
            value.get(slice.from..slice.from + slice.len).unwrap_or_default()
        };
        let inputs: Vec<&[M::Vector]> = node.inputs.iter().map(view).collect();
        let _label = machine.log().label(&node.name);
        let start = Instant::now();
        let mut value = exec::evaluate(machine, &self.folded, node, &inputs, self.placement.levels[id], session)?;
        let time = start.elapsed();
        let start = Instant::now();
        let mut refreshes = 0;
        if let Some(&to) = self.placement.refreshes.get(&id) {
            let _label = machine.log().label(&format!("{}.refresh", node.name));
            value = exec::refresh(machine, &node.name, &value, &self.choice, to)?;
            let (pairs, singles) = self.choice.counts(value.len());
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
        observer.after(machine, &done)?;
        Ok(value)
    }

    fn check_input<M: Machine>(&self, machine: &M, input: &[M::Vector]) -> Result<()> {
        let mismatch = |what, expected: String, found: String| Err(InferError::Mismatch { what, expected, found });
        if machine.slots() != self.folded.geometry.slots {
            let expected = self.folded.geometry.slots.to_string();
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

    /// Steps whose values are wanted, given those that were kept.
    fn needed<M: Machine>(&self, observer: &dyn Observer<M>) -> Vec<bool> {
        let nodes = &self.graph.nodes;
        let mut needed = vec![false; nodes.len()];
        if let Some(last) = needed.last_mut() {
            *last = true;
        }
        for (id, node) in nodes.iter().enumerate().rev() {
            if needed[id] && !observer.has(id, &node.name) {
                node.inputs.iter().for_each(|slice| needed[slice.node] = true);
            }
        }
        needed
    }

    fn last_uses(&self) -> Vec<NodeId> {
        self.graph.consumers().iter().map(|readers| readers.last().copied().unwrap_or(usize::MAX)).collect()
    }
}
