//! Where the time of a run went, under both accounting rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherlm_circuits::slots::{Machine, OpKind, OpTotal};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::Operator;
use crate::plan::Plan;
use crate::run::{Done, Observer, Progress, Start};
use crate::vector::POWER_LABEL;

/// One finished step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// Name of the step.
    pub name: String,
    /// Kind of work.
    pub class: Operator,
    /// Layer it belongs to.
    pub layer: Option<usize>,
    /// Seconds of the step.
    pub seconds: f64,
    /// Seconds of the refresh after it.
    pub refresh_seconds: f64,
    /// Refresh operations after it.
    pub refreshes: usize,
    /// Seconds predicted for step and refresh.
    pub predicted: f64,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Model name.
    pub model: String,
    /// Prompt length of the plan.
    pub length: usize,
    /// Seconds of the forward pass.
    pub seconds_total: f64,
    /// Refresh operations.
    pub bootstraps: usize,
    /// Refresh operations by layer.
    pub bootstraps_by_layer: Vec<usize>,
    /// Seconds by kind of work, refreshes and encoding as kinds of their own.
    pub by_operator: BTreeMap<String, f64>,
    /// Seconds by kind of work, each refresh charged to the steps whose levels it replaces, in
    /// proportion to those levels.
    pub bootstrap_attributed: BTreeMap<String, f64>,
    /// Seconds by primitive.
    pub by_primitive: BTreeMap<String, f64>,
    /// Every step.
    pub steps: Vec<StepTime>,
}

/// Collects a [`Report`] during a run and passes progress on.
pub struct Profiler<'p, P> {
    plan: &'p Plan,
    progress: P,
    start: Instant,
    steps: Vec<StepTime>,
    /// Their numbers in the plan: a resumed run does not do all.
    numbers: Vec<usize>,
    predicted: Vec<f64>,
    /// What the machine's log held when the run began, by label, kind and level.
    before: Rows,
    /// What this run added to it.
    own: Rows,
}

type Rows = BTreeMap<(Arc<str>, OpKind, usize), OpTotal>;

fn rows_of<M: Machine>(machine: &M) -> Rows {
    machine.log().rows().into_iter().map(|row| ((row.label, row.kind, row.level), row.total)).collect()
}

impl<'p, P: FnMut(&Progress<'_>) -> bool> Profiler<'p, P> {
    /// A profiler for one run of a plan.
    pub fn new(plan: &'p Plan, progress: P) -> Self {
        let predicted = plan.schedule().iter().map(|s| s.seconds + s.refresh_seconds).collect();
        let (before, own) = (Rows::new(), Rows::new());
        Self { plan, progress, start: Instant::now(), steps: vec![], numbers: vec![], predicted, before, own }
    }

    /// The report, with the primitives that the machine recorded during this run.
    pub fn finish(self) -> Report {
        let mut report = Report {
            model: self.plan.model().spec().name.clone(),
            length: self.plan.tokens(),
            seconds_total: self.start.elapsed().as_secs_f64(),
            bootstraps: self.plan.refreshes().0,
            bootstraps_by_layer: self.plan.refreshes_by_layer(),
            ..Report::default()
        };
        // Encoding and the power run inside steps of other kinds; the log knows their time by
        // label.
        let mut encode: BTreeMap<&str, f64> = BTreeMap::new();
        let mut power: BTreeMap<&str, f64> = BTreeMap::new();
        for ((label, kind, _), total) in &self.own {
            let seconds = total.time.as_secs_f64();
            *report.by_primitive.entry(primitive(*kind).to_owned()).or_default() += seconds;
            if *kind == OpKind::Encode {
                *encode.entry(label.trim_end_matches(POWER_LABEL)).or_default() += seconds;
            } else if let Some(step) = label.strip_suffix(POWER_LABEL) {
                *power.entry(step).or_default() += seconds;
            }
        }
        let mut pending: Vec<(Operator, f64)> = vec![];
        for (number, step) in self.numbers.iter().zip(&self.steps) {
            let encoding = encode.get(step.name.as_str()).copied().unwrap_or(0.0).min(step.seconds);
            let powering = power.get(step.name.as_str()).copied().unwrap_or(0.0).min(step.seconds - encoding);
            let parts = [
                (step.class, step.seconds - encoding - powering),
                (Operator::PowerSoftmax, powering),
                (Operator::Encode, encoding),
            ];
            for (class, seconds) in parts.into_iter().filter(|(_, seconds)| *seconds > 0.0) {
                *report.by_operator.entry(name(class)).or_default() += seconds;
                *report.bootstrap_attributed.entry(name(class)).or_default() += seconds;
            }
            pending.push((step.class, self.plan.depth_of(*number) as f64));
            if step.refreshes > 0 {
                *report.by_operator.entry(name(Operator::Bootstrap)).or_default() += step.refresh_seconds;
                let levels: f64 = pending.iter().map(|(_, depth)| depth).sum();
                for (class, depth) in pending.drain(..) {
                    let share = if levels > 0.0 { depth / levels } else { 0.0 };
                    *report.bootstrap_attributed.entry(name(class)).or_default() +=
                        share * step.refresh_seconds;
                }
            }
        }
        let known: f64 = report.by_operator.values().sum();
        let rest = (report.seconds_total - known).max(0.0);
        *report.by_operator.entry(name(Operator::Other)).or_default() += rest;
        *report.bootstrap_attributed.entry(name(Operator::Other)).or_default() += rest;
        report.steps = self.steps;
        report
    }
}

impl<M: Machine, P: FnMut(&Progress<'_>) -> bool> Observer<M> for Profiler<'_, P> {
    fn enter(&mut self, start: &Start<'_, M>) -> Result<()> {
        self.before = rows_of(start.machine);
        Ok(())
    }

    fn leave(&mut self, machine: &M) {
        for (key, total) in rows_of(machine) {
            let before = self.before.get(&key).copied().unwrap_or_default();
            let own = self.own.entry(key).or_default();
            // A log that was cleared meanwhile has less than before.
            own.count += total.count.checked_sub(before.count).unwrap_or(total.count);
            own.time += total.time.checked_sub(before.time).unwrap_or(total.time);
        }
    }

    fn before(&mut self, progress: &Progress<'_>) -> bool {
        if self.steps.is_empty() && progress.elapsed < Duration::from_millis(50) {
            self.start = Instant::now();
        }
        (self.progress)(progress)
    }

    fn after(&mut self, _: &M, done: &Done<'_, M>) -> Result<()> {
        self.numbers.push(done.step);
        self.steps.push(StepTime {
            name: done.name.to_owned(),
            class: done.class,
            layer: done.layer,
            seconds: done.time.as_secs_f64(),
            refresh_seconds: done.refresh_time.as_secs_f64(),
            refreshes: done.refreshes,
            predicted: self.predicted.get(done.step).copied().unwrap_or(0.0),
        });
        Ok(())
    }
}

fn name(class: Operator) -> String {
    match class {
        Operator::PlainMatmul => "plain_matmul",
        Operator::CipherMatmul => "cipher_matmul",
        Operator::PowerSoftmax => "power_softmax",
        Operator::ActivationNorm => "activation_norm",
        Operator::AddRepack => "add_repack",
        Operator::Bootstrap => "bootstrap",
        Operator::Encode => "encode",
        Operator::Other => "other",
    }
    .to_owned()
}

fn primitive(kind: OpKind) -> &'static str {
    match kind {
        OpKind::Encode => "encode",
        OpKind::Add => "add",
        OpKind::AddPlain => "add_plain",
        OpKind::MulPlain | OpKind::MulPlainExtended => "mul_plain",
        OpKind::MulConst => "mul_const",
        OpKind::Mul => "mul",
        OpKind::Relin => "relinearise",
        OpKind::Rescale => "rescale",
        OpKind::Rotate | OpKind::ModUp | OpKind::KeyProduct | OpKind::ModDown => "rotation",
        OpKind::Conjugate => "conjugate",
        OpKind::Refresh => "bootstrap",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Plan, Target};
    use cipherlm_model::{Shape, random};

    fn plan() -> Plan {
        let model = random::certified("small", &Shape::preset("test").unwrap(), 1).unwrap();
        let target = Target::uniform(512, 14, 40, 60).unwrap();
        Plan::compile(Arc::new(model), target, &Options { tokens: 8, ..Options::default() }).unwrap()
    }

    fn run(plan: &Plan, machine: &cipherlm_circuits::slots::Clear) -> (Rows, Report) {
        let input = plan.pack(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        let input = input.into_iter().map(|v| machine.input(v, plan.input_level()).unwrap()).collect();
        let mut profiler = Profiler::new(plan, |_: &Progress<'_>| true);
        plan.run(machine, input, &mut profiler).unwrap();
        (profiler.own.clone(), profiler.finish())
    }

    #[test]
    fn a_second_run_on_one_machine_is_not_charged_for_the_first() {
        let plan = plan();
        let machine = plan.clear_machine();
        let (first, report) = run(&plan, &machine);
        let (second, _) = run(&plan, &machine);
        assert!(first.values().map(|total| total.count).sum::<u64>() > 100);
        assert_eq!(first, second);
        assert_eq!(report.steps.len(), plan.steps() - 1);
        assert_eq!(report.bootstraps, report.steps.iter().map(|step| step.refreshes).sum::<usize>());
    }

    /// Two steps and a refresh, in seconds that are easy to follow.
    #[test]
    fn refreshes_are_charged_by_the_levels_that_they_replace() {
        let plan = plan();
        let deep = |name: &str| {
            let number = plan.schedule().iter().position(|step| step.name == name).unwrap();
            (number, plan.depth_of(number))
        };
        let (linear, power) = (deep("layers.0.attn.qkv.product"), deep("layers.0.attn.attend"));
        assert_eq!((linear.1, power.1), (1, 5));
        let mut profiler = Profiler::new(&plan, |_: &Progress<'_>| true);
        let step = |class, seconds, refreshes| StepTime {
            name: String::new(),
            class,
            layer: None,
            seconds,
            refresh_seconds: 12.0 * refreshes as f64,
            refreshes,
            predicted: 0.0,
        };
        profiler.numbers = vec![linear.0, power.0];
        profiler.steps = vec![step(Operator::PlainMatmul, 1.0, 0), step(Operator::CipherMatmul, 3.0, 1)];
        let report = profiler.finish();
        let apart = |kind: &str| report.by_operator[kind];
        assert_eq!((apart("plain_matmul"), apart("cipher_matmul"), apart("bootstrap")), (1.0, 3.0, 12.0));
        let charged = |kind: &str| report.bootstrap_attributed[kind];
        assert!((charged("plain_matmul") - (1.0 + 2.0)).abs() < 1e-9, "{}", charged("plain_matmul"));
        assert!((charged("cipher_matmul") - (3.0 + 10.0)).abs() < 1e-9, "{}", charged("cipher_matmul"));
        assert!(!report.bootstrap_attributed.contains_key("bootstrap"));
    }
}
