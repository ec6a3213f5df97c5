//! `cipherlm eval`: what a model is worth, on public tasks and on text.

mod choices;
mod compare;
mod data;
mod score;
mod sentences;
mod text;

use crate::console::{out_json, say};
use crate::exit::usage;
use crate::model::{Loaded, load};
use crate::options::{ModelOption, count};
use crate::outputs::Outputs;
use crate::progress::bar;
use crate::system::machine;
use anyhow::Context;
use cipherlm_files::Access;
use cipherlm_model::{Attention, Mode, Prepared, Runner};
use clap::{Args, ValueEnum};
use rayon::prelude::*;
use score::Score;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    /// What to measure; without it, --text compares exact functions with polynomials.
    #[arg(long, value_enum, requires = "data", required_unless_present = "text")]
    task: Option<Task>,
    /// The task's data: a text (perplexity), lines of JSON (lambada, piqa, winogrande, arc), lines
    /// of `score TAB sentence TAB sentence` (sts), a folder with corpus.tsv and queries.tsv
    /// (retrieval).
    #[arg(long, value_name = "FILE", requires = "task")]
    data: Option<PathBuf>,
    /// The attention that is measured: it must be the model's own. Default: exact functions.
    #[arg(long, value_enum, requires = "task")]
    operator: Option<Operator>,
    /// Take the first N items.
    #[arg(long, value_name = "N", requires = "task", value_parser = count(1..=1 << 32))]
    limit: Option<usize>,
    /// Columns of score and sentences, counted from 1, or from 0 where one of them is 0.
    #[arg(long, value_name = "S,A,B", value_delimiter = ',', requires = "task")]
    columns: Option<Vec<usize>>,
    /// Answers of piqa, one number a line (default: the file `…-labels.lst` beside the data).
    #[arg(long, value_name = "FILE", requires = "task")]
    labels: Option<PathBuf>,
    /// Of perplexity: also the mean divergence from this model's next-token probabilities, in nats
    /// a token. It is the one that the measured model was made from.
    #[arg(long, value_name = "MODEL", requires = "task")]
    teacher: Option<PathBuf>,
    /// Text before every item of a decoder's task, special tokens included; it is not scored.
    #[arg(long, value_name = "TEXT", requires = "task")]
    prefix: Option<String>,
    /// Of piqa, winogrande and arc: the last N items stand solved before every other, and are not
    /// scored.
    #[arg(long, value_name = "N", default_value = "0", requires = "task", value_parser = count(0..=64))]
    shots: usize,
    /// Text to compare exact functions with polynomials on.
    #[arg(long, value_name = "FILE", conflicts_with = "task")]
    text: Option<PathBuf>,
    /// Tokens a window or sentence (default: the model's context; 64 for sentences).
    #[arg(long, value_parser = count(2..=1 << 20))]
    window: Option<usize>,
    /// With --text: stop after this many windows.
    #[arg(long, default_value = "64", value_parser = count(1..=1 << 32))]
    windows: usize,
    /// Also write the result as JSON here (`--json FILE` does the same); replaces what is there.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
}

/// Public tasks.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Task {
    /// Perplexity of a text, in windows.
    Perplexity,
    /// The last word of a passage.
    Lambada,
    /// Which of two ways reaches a goal.
    Piqa,
    /// What a gap stands for.
    Winogrande,
    /// Science questions.
    Arc,
    /// Rank correlation of similarities with judgements.
    Sts,
    /// The right sentences for a question, among all of them.
    Retrieval,
}

/// The functions at the model's non-linear sites.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Operator {
    /// The softmax of a model before its conversion.
    Softmax,
    /// PowerSoftmax with exact functions.
    Power,
    /// The certified polynomials: what runs under encryption, without the noise.
    Polynomial,
}

/// A model ready for many items.
struct Judge<'m> {
    loaded: &'m Loaded,
    prepared: Prepared<'m>,
    mode: Mode,
    /// Tokens before every item of a decoder's task.
    prefix: Vec<u32>,
    /// Solved items before every question.
    shots: usize,
    /// Texts, or questions, with a value outside a certified range.
    outside: AtomicUsize,
    quiet: bool,
}

impl Judge<'_> {
    /// Answers for all items, in order, on all threads.
    fn each<I: Sync, T: Send>(
        &self,
        items: &[I],
        answer: impl Fn(&mut Runner<'_>, &I) -> anyhow::Result<T> + Sync,
    ) -> anyhow::Result<Vec<T>> {
        let bar = bar(!self.quiet);
        bar.set_length(items.len() as u64);
        let one = |runner: &mut cipherlm_model::Result<Runner<'_>>, item: &I| {
            let runner = runner.as_mut().map_err(|error| anyhow::anyhow!("{error}"))?;
            let before = violations(runner);
            let done = answer(runner, item);
            self.outside.fetch_add(usize::from(violations(runner) > before), Ordering::Relaxed);
            bar.inc(1);
            done
        };
        let answers = items.par_iter().map_init(|| self.prepared.runner(self.mode), one).collect();
        bar.finish_and_clear();
        answers
    }
}

/// Values that left a certified range so far.
fn violations(runner: &Runner<'_>) -> u64 {
    runner.stats().map(|(_, _, stats)| stats.violations).sum()
}

/// One task, or the comparison of both machines on a text.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    let report = outputs.report("--json-file", options.json_file.as_deref())?;
    let (value, lines, whole) = match (options.task, &options.text) {
        (Some(task), _) => {
            let (value, lines) = measure(task, options, as_json)?;
            (value, lines, true)
        }
        (None, Some(text)) => compare::run(&options.model.load()?, text, options.window, options.windows)?,
        (None, None) => return Err(usage("eval takes --task with --data, or --text")),
    };
    if as_json {
        out_json(&value);
    } else {
        lines.iter().for_each(|line| say!("{line}"));
    }
    if let Some(report) = report {
        report.write(format!("{value}\n").as_bytes(), Access::Everyone)?;
    }
    Ok(whole)
}

fn measure(task: Task, options: &Options, quiet: bool) -> anyhow::Result<(Value, Vec<String>)> {
    let loaded = options.model.load()?;
    let (operator, mode) = operator(&loaded, options.operator)?;
    let prefix = match &options.prefix {
        Some(text) => loaded.tokenizer.encode(text)?,
        // A model with public tokens begins every text itself.
        None if loaded.model.spec().prefix.is_empty() => loaded.tokenizer.begin().into_iter().collect(),
        None => vec![],
    };
    if options.shots > 0 && !matches!(task, Task::Piqa | Task::Winogrande | Task::Arc) {
        return Err(usage("--shots goes with the tasks piqa, winogrande and arc"));
    }
    if options.teacher.is_some() && task != Task::Perplexity {
        return Err(usage("--teacher goes with the task perplexity"));
    }
    let teacher = options.teacher.as_deref().map(|path| load(Some(path)).context("--teacher")).transpose()?;
    let (prepared, shots) = (Prepared::new(&loaded.model)?, options.shots);
    let outside = AtomicUsize::new(0);
    let judge = Judge { loaded: &loaded, prepared, mode, prefix, shots, outside, quiet };
    let data = options.data.as_deref().unwrap_or_else(|| std::path::Path::new(""));
    let clock = Instant::now();
    let Score { items, metric, score, stderr, more } = match task {
        Task::Perplexity => text::perplexity(&judge, teacher.as_ref(), data, options.window, options.limit)?,
        Task::Lambada => choices::lambada(&judge, data, options.limit)?,
        Task::Piqa => choices::piqa(&judge, data, options.labels.as_deref(), options.limit)?,
        Task::Winogrande => choices::winogrande(&judge, data, options.limit)?,
        Task::Arc => choices::arc(&judge, data, options.limit)?,
        Task::Sts => {
            let columns = options.columns.as_deref();
            sentences::similarity(&judge, data, columns, options.window, options.limit)?
        }
        Task::Retrieval => sentences::retrieval(&judge, data, options.window, options.limit)?,
    };
    let seconds = clock.elapsed().as_secs_f64();
    let named = |value: &dyn ToString| value.to_string();
    let task = task.to_possible_value().map_or_else(String::new, |value| named(&value.get_name()));
    let mut value = json!({
        "model": loaded.model.spec().name,
        "task": task,
        "operator": operator,
        "items": items,
        "metric": metric,
        "score": score,
        "stderr": stderr,
        "seconds": seconds,
        "machine": machine(),
    });
    let mut lines = vec![format!(
        "{} on {task}, {operator}: {items} items in {seconds:.1} s, clear text ({})",
        loaded.name(),
        machine()
    )];
    lines.push(format!("{metric:<24} {score:>10.4}  standard error {stderr:.4}"));
    if !loaded.model.spec().sites.is_empty() {
        let outside = judge.outside.load(Ordering::Relaxed);
        lines.push(format!("{:<24} {outside:>10}", "texts outside ranges"));
        value["texts_outside_ranges"] = json!(outside);
    }
    for (name, score) in more {
        lines.push(format!("{name:<24} {score:>10.4}"));
        value[name] = json!(score);
    }
    Ok((value, lines))
}

/// The operator's name and mode, refused where it is not the model's.
fn operator(loaded: &Loaded, asked: Option<Operator>) -> anyhow::Result<(&'static str, Mode)> {
    let softmax = matches!(loaded.model.shape().attention, Attention::Softmax);
    let refuse = |has: &str, try_: &str| {
        Err(usage(format!("--operator: {} has {has}: take --operator {try_}", loaded.name())))
    };
    match asked {
        None if softmax => Ok(("softmax", Mode::Exact)),
        None => Ok(("power", Mode::Exact)),
        Some(Operator::Softmax) if softmax => Ok(("softmax", Mode::Exact)),
        Some(Operator::Softmax) => refuse("PowerSoftmax attention", "power or polynomial"),
        Some(_) if softmax => refuse("softmax attention, which is not converted yet", "softmax"),
        Some(Operator::Power) => Ok(("power", Mode::Exact)),
        Some(Operator::Polynomial) => {
            cipherlm_model::ensure_certified(&loaded.model)?;
            Ok(("polynomial", Mode::Polynomial))
        }
    }
}
