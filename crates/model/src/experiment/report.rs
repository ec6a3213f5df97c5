//! Tables, charts and words of the experiments, all from the CSV's numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::{Budget, Cell, Outcome, Text, arms, key};
use crate::config::{Attention, Form};
use crate::curves::{Chart, Series};
use crate::error::{Error, Result};

type Results = BTreeMap<String, Outcome>;

pub(super) fn stability(
    cells: &[Cell],
    results: &Results,
    budget: Budget,
    text: Text,
    omitted: usize,
    out: &Path,
) -> Result<()> {
    let mut words = String::from("# Stability: which powers, shifts and epsilons train\n\n");
    let _ = writeln!(
        words,
        "`cargo xtask experiment stability [--quick]`. Decoders of width {}, {} heads, context {}, {} steps of {} tokens \
         ({} tokens in all), learning rate 2e-3 with cosine, text: {}. {} cells were run, {omitted} cells of the whole grid \
         (2 and 4 layers, 3 seeds, p 2 to 16, c 0, 1, 3, three epsilons) were left out. Perplexities are per word on \
         held-out text; the ratio is to the softmax twin with the same seed, tokens and steps.\n",
        budget.width,
        budget.heads,
        budget.context,
        budget.steps,
        budget.batch * budget.context,
        budget.steps * budget.batch * budget.context,
        name(text),
        cells.len(),
    );
    table(&mut words, cells, results);
    let mut worst: Option<(f64, String)> = None;
    let mut best: Option<(f64, String)> = None;
    let mut failed = Vec::new();
    for cell in cells {
        let Some(o) = results.get(&key(cell)) else { continue };
        let ratio = o.perplexity / baseline(cell, results);
        let (p, c, rest) = operator(cell);
        if o.mode != "trained" {
            failed.push(format!("p = {p}, c = {c}, {rest}: {}", o.mode));
        }
        if matches!(cell.attention, Attention::Power(_)) && ratio.is_finite() {
            let label = format!("p = {p}, c = {c}, {rest}");
            if best.as_ref().is_none_or(|b| ratio < b.0) {
                best = Some((ratio, label.clone()));
            }
            if worst.as_ref().is_none_or(|w| ratio > w.0) {
                worst = Some((ratio, label));
            }
        }
    }
    words.push('\n');
    if let (Some(best), Some(worst)) = (best, worst) {
        let _ = writeln!(
            words,
            "Closest to softmax: {} ({:.3}). Furthest among the runs that ended: {} ({:.3}). ",
            best.1, best.0, worst.1, worst.0
        );
    }
    let _ = match failed.len() {
        0 => writeln!(words, "No run failed."),
        n => writeln!(words, "{n} runs failed: {}.", failed.join("; ")),
    };
    words.push_str("\n![ratio against p](stability-ratio.svg)\n\n![locality against p](stability-distance.svg)\n");
    let chart = |title: &str, y: &str, log, value: &dyn Fn(&Cell, &Outcome) -> f64| Chart {
        title: title.into(),
        x: "p".into(),
        y: y.into(),
        log,
        series: lines(cells, results, value),
    };
    let ratio = chart("Perplexity over the softmax twin", "ratio", false, &|c, o| o.perplexity / baseline(c, results));
    let distance = chart("Locality of attention", "mean distance in tokens", false, &|_, o| o.distance);
    write(&out.join("stability-ratio.svg"), &ratio.svg())?;
    write(&out.join("stability-distance.svg"), &distance.svg())?;
    write(&out.join("stability.md"), &words)
}

pub(super) fn twins(cells: &[Cell], results: &Results, budget: Budget, out: &Path) -> Result<()> {
    let mut words = String::from("# PowerSoftmax and its softmax twin\n\n");
    let _ = writeln!(
        words,
        "`cargo xtask experiment twins [--quick]`. Same seed, tokens, batches and steps: width {}, {} steps of {} \
         tokens. Held-out perplexity per word.\n",
        budget.width,
        budget.steps,
        budget.batch * budget.context
    );
    let arms = arms();
    let softmax: Vec<&Cell> = cells.iter().filter(|c| c.attention == Attention::Softmax).collect();
    let ratio = |twin: &Cell, power| {
        let cell = Cell { attention: Attention::Power(power), ..twin.clone() };
        results.get(&key(&cell)).map(|o| (o.perplexity, o.perplexity / baseline(twin, results)))
    };
    let heads: String = arms.iter().map(|(name, _)| format!(" {name} | ratio |")).collect();
    let _ = writeln!(
        words,
        "| text | layers | seed | softmax |{heads}\n|---|---|---|---|{}",
        "---|---|".repeat(arms.len())
    );
    for twin in &softmax {
        let _ = write!(words, "| {} | {} | {} |", name(twin.text), twin.layers, twin.seed);
        let _ = write!(words, " {:.2} |", results.get(&key(twin)).map_or(f64::NAN, |o| o.perplexity));
        for (_, power) in arms {
            let _ = match ratio(twin, power) {
                Some((perplexity, ratio)) => write!(words, " {perplexity:.2} | {ratio:.3} |"),
                None => write!(words, " not run | |"),
            };
        }
        words.push('\n');
    }
    let mut series = Vec::new();
    words.push_str("\n| text | layers | operator | seeds | mean ratio | largest |\n|---|---|---|---|---|---|\n");
    let groups: BTreeSet<(Text, usize)> = softmax.iter().map(|c| (c.text, c.layers)).collect();
    for (label, power) in arms {
        let mut lines: BTreeMap<Text, Vec<(f64, f64)>> = BTreeMap::new();
        for &(text, layers) in &groups {
            let here = softmax.iter().filter(|c| (c.text, c.layers) == (text, layers));
            let found: Vec<f64> = here.filter_map(|c| ratio(c, power)).map(|r| r.1).collect();
            if found.is_empty() {
                continue;
            }
            let mean = found.iter().sum::<f64>() / found.len() as f64;
            let largest = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let _ =
                writeln!(words, "| {} | {layers} | {label} | {} | {mean:.3} | {largest:.3} |", name(text), found.len());
            lines.entry(text).or_default().push((layers as f64, mean));
        }
        let named = |(text, points)| Series { name: format!("{label}, {}", name(text)), points };
        series.extend(lines.into_iter().map(named));
    }
    words.push_str("\n![mean ratio](twins.svg)\n");
    let title = "Perplexity over the softmax twin, mean of the seeds".into();
    let chart = Chart { title, x: "layers".into(), y: "ratio".into(), log: true, series };
    write(&out.join("twins.svg"), &chart.svg())?;
    write(&out.join("twins.md"), &words)
}

/// Powers and shifts against one softmax run.
pub(super) fn shifts(cells: &[Cell], results: &Results, budget: Budget, out: &Path) -> Result<()> {
    let mut words = String::from("# Powers and shifts at equal budget\n\n");
    let _ = writeln!(
        words,
        "`cargo xtask experiment shifts [--quick]`. Same seed, tokens, batches and steps: width {}, {} steps of {} tokens, \
         text: {}. Held-out perplexity per word. Near zero `(x + c)^p` is `exp(x p / c)`: p / c is the slope that \
         training starts from, p / c = 1 that of softmax.\n",
        budget.width,
        budget.steps,
        budget.batch * budget.context,
        cells.first().map_or("", |c| name(c.text)),
    );
    table(&mut words, cells, results);
    write(&out.join("shifts.md"), &words)
}

/// One line per cell.
fn table(words: &mut String, cells: &[Cell], results: &Results) {
    words.push_str("| layers | seed | p | c | epsilon, form | perplexity | ratio | mean distance | max score | row-mean spread | outcome |\n");
    words.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for cell in cells {
        let Some(o) = results.get(&key(cell)) else { continue };
        let (p, c, rest) = operator(cell);
        let _ = writeln!(
            words,
            "| {} | {} | {p} | {c} | {rest} | {:.2} | {:.3} | {:.2} | {:.1} | {:.1e} | {} |",
            cell.layers,
            cell.seed,
            o.perplexity,
            o.perplexity / baseline(cell, results),
            o.distance,
            o.score,
            o.spread,
            o.mode
        );
    }
}

/// Perplexity of the softmax twin.
fn baseline(cell: &Cell, results: &Results) -> f64 {
    let twin = Cell { attention: Attention::Softmax, ..cell.clone() };
    results.get(&key(&twin)).map_or(f64::NAN, |o| o.perplexity)
}

/// One line per shift and form, averaged over seeds and depths.
fn lines(cells: &[Cell], results: &Results, value: &dyn Fn(&Cell, &Outcome) -> f64) -> Vec<Series> {
    let mut sums: BTreeMap<String, BTreeMap<u32, (f64, f64)>> = BTreeMap::new();
    for cell in cells {
        let (Attention::Power(p), Some(o)) = (cell.attention, results.get(&key(cell))) else { continue };
        let form = if p.form == Form::Stable { "stable, relative" } else { "mean, absolute" };
        let slot = sums.entry(format!("c = {}, {form}", p.shift)).or_default().entry(p.power).or_insert((0.0, 0.0));
        slot.0 += value(cell, o);
        slot.1 += 1.0;
    }
    let points = |by: BTreeMap<u32, (f64, f64)>| by.into_iter().map(|(p, (sum, n))| (f64::from(p), sum / n)).collect();
    sums.into_iter().map(|(name, by)| Series { name, points: points(by) }).collect()
}

fn operator(cell: &Cell) -> (String, String, String) {
    let key = key(cell);
    let fields: Vec<&str> = key.split(',').collect();
    let [_, _, _, p, c, epsilon, form] = fields[..] else { return Default::default() };
    (
        p.to_owned(),
        c.to_owned(),
        [epsilon, form].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join(", "),
    )
}

fn name(text: Text) -> &'static str {
    match text {
        Text::Stories => "TinyStories",
        Text::Plays => "tiny-shakespeare",
        Text::Generated => "generated stories",
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io(path))
}
