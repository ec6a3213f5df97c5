//! Tables, charts and words of the experiments, all from the CSV's numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use cipherlm_model::Attention;

use super::cell::{Arm, Budget, Cell, Outcome, Text, arms, key};
use crate::arch::Form;
use crate::checkpoint;
use crate::curves::{Chart, Series};
use crate::error::Result;

type Results = BTreeMap<String, Outcome>;

pub(super) fn stability(
    cells: &[Cell],
    results: &Results,
    budget: Budget,
    text: Text,
    omitted: usize,
    out: &Path,
) -> Result<()> {
    let missing: Vec<String> = cells.iter().map(key).filter(|key| !results.contains_key(key)).collect();
    let mut words = String::from("# Stability: which powers, shifts and epsilons train\n\n");
    let _ = writeln!(
        words,
        "`cargo xtask experiment stability [--quick]`. Decoders of width {}, {} heads, context {}, {} \
         steps of {} tokens \
         ({} tokens in all), learning rate 2e-3 with cosine, text: {}. {} cells of the whole grid (2 and 4 \
         layers, 3 seeds, p 2 \
         to 16, c 0, 1, 3, three epsilons) were run, {} were not{}. Perplexities are per word on held-out \
         text; the ratio is \
         to the softmax twin with the same seed, tokens and steps.\n",
        budget.width,
        budget.heads,
        budget.context,
        budget.steps,
        budget.batch * budget.context,
        budget.steps * budget.batch * budget.context,
        name(text),
        cells.len() - missing.len(),
        missing.len() + omitted,
        missing.first().map(|key| format!(" (the first of them: `{key}`)")).unwrap_or_default(),
    );
    table(&mut words, cells, results);
    words.push('\n');
    extremes(&mut words, cells, results);
    words.push_str(
        "\n![ratio against p](stability-ratio.svg)\n\n![locality against p](stability-distance.svg)\n",
    );
    let chart = |title: &str, y: &str, log, value: &dyn Fn(&Cell, &Outcome) -> f64| Chart {
        title: title.into(),
        x: "p".into(),
        y: y.into(),
        log,
        series: lines(cells, results, value),
    };
    let ratio = chart("Perplexity over the softmax twin", "ratio", false, &|c, o| {
        o.perplexity / baseline(c, results)
    });
    let distance = chart("Locality of attention", "mean distance in tokens", false, &|_, o| o.distance);
    write(&out.join("stability-ratio.svg"), &ratio.svg())?;
    write(&out.join("stability-distance.svg"), &distance.svg())?;
    write(&out.join("stability.md"), &words)
}

/// The cells closest to softmax and furthest from it, and those that failed.
fn extremes(words: &mut String, cells: &[Cell], results: &Results) {
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
        if matches!(cell.attention, Attention::PowerSoftmax { .. }) && ratio.is_finite() {
            let label = format!("p = {p}, c = {c}, {rest}");
            if best.as_ref().is_none_or(|b| ratio < b.0) {
                best = Some((ratio, label.clone()));
            }
            if worst.as_ref().is_none_or(|w| ratio > w.0) {
                worst = Some((ratio, label));
            }
        }
    }
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
}

/// Largest ratio that the twins aim for.
const AIM: f64 = 1.02;

pub(super) fn twins(cells: &[Cell], results: &Results, budget: Budget, out: &Path) -> Result<()> {
    let mut words = String::from("# PowerSoftmax and its softmax twin\n\n");
    let _ = writeln!(
        words,
        "`cargo xtask experiment twins [--quick]`. Same seed, tokens, batches and steps: width {}, {} \
         steps of {} tokens, learning rate 2e-3. Held-out perplexity per word, and its ratio to softmax.\n",
        budget.width,
        budget.steps,
        budget.batch * budget.context
    );
    let arms = arms();
    let plain = |cell: &&Cell| cell.attention == Attention::Softmax && cell.query_key_rate == 1.0;
    let twins: Vec<&Cell> = cells.iter().filter(plain).collect();
    let perplexity = |arm: &Arm, twin: &Cell| {
        results.get(&key(&arm.cell(twin.text, twin.layers, twin.seed))).map_or(f64::NAN, |o| o.perplexity)
    };
    let softmax = &arms[0];
    let ratio = |arm: &Arm, to: &Arm, twin: &Cell| perplexity(arm, twin) / perplexity(to, twin);

    let equal: Vec<&Arm> = arms.iter().filter(|arm| arm.rate == 1.0).collect();
    twin_table(&mut words, &twins, &equal, &|arm, twin| [perplexity(arm, twin), ratio(arm, softmax, twin)]);
    words.push_str(
        "\nWith the learning rate of the query and key projections raised by the factor that the column \
         names; `ratio` is still to softmax at equal rates.\n\n",
    );
    let raise: Vec<&Arm> = arms.iter().filter(|arm| arm.rate != 1.0).collect();
    twin_table(&mut words, &twins, &raise, &|arm, twin| [perplexity(arm, twin), ratio(arm, softmax, twin)]);

    let groups: BTreeSet<(Text, usize)> = twins.iter().map(|c| (c.text, c.layers)).collect();
    let means = summary(&mut words, &arms, &groups, &twins, &ratio);
    words.push_str("\n![mean ratio](twins.svg)\n");
    write(&out.join("twins.svg"), &twin_chart(&means, &groups).svg())?;
    write(&out.join("twins.md"), &words)
}

/// Ratio of an operator's perplexity to another's, beside one twin.
type Ratio<'a> = &'a dyn Fn(&Arm, &Arm, &Cell) -> f64;

/// One line per operator, text and depth; returns the mean ratios by operator, with their depths.
fn summary<'a>(
    words: &mut String,
    arms: &'a [Arm; 7],
    groups: &BTreeSet<(Text, usize)>,
    twins: &[&Cell],
    ratio: Ratio<'_>,
) -> BTreeMap<&'a str, Vec<(f64, f64)>> {
    let [softmax, .., raised, _, _] = arms;
    let _ = write!(
        words,
        "\n| text | layers | operator | seeds | mean over softmax | largest | at most {AIM} | mean over \
         softmax ×2 | largest | at most {AIM} |\n|---|---|---|---|---|---|---|---|---|---|\n"
    );
    let mut means: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for arm in &arms[1..] {
        for &(text, layers) in groups {
            let over = |to: &Arm| -> Vec<f64> {
                let here = twins.iter().filter(|c| (c.text, c.layers) == (text, layers));
                here.map(|c| ratio(arm, to, c)).filter(|r| r.is_finite()).collect()
            };
            let first = over(softmax);
            let second = if arm.name == raised.name { Vec::new() } else { over(raised) };
            if first.is_empty() {
                continue;
            }
            let _ = write!(words, "| {} | {layers} | {} | {} |", name(text), arm.name, first.len());
            for found in [&first, &second] {
                let met = found.iter().filter(|r| **r <= AIM).count();
                let _ = match mean(found) {
                    Some(mean) => {
                        let largest = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        write!(words, " {mean:.3} | {largest:.3} | {met} of {} |", found.len())
                    }
                    None => write!(words, " | | |"),
                };
            }
            words.push('\n');
            if text != Text::Articles {
                means.entry(arm.name).or_default().extend(mean(&first).map(|mean| (layers as f64, mean)));
            }
        }
    }
    means
}

/// Mean ratios over depth. An operator is drawn at the depths where it has both texts.
fn twin_chart(means: &BTreeMap<&str, Vec<(f64, f64)>>, groups: &BTreeSet<(Text, usize)>) -> Chart {
    let by_depth = |points: &[(f64, f64)]| {
        let depths: BTreeSet<usize> = groups.iter().map(|g| g.1).collect();
        let texts = |depth| groups.iter().filter(|g| g.1 == depth && g.0 != Text::Articles).count();
        let at =
            |depth: usize| points.iter().filter(|p| p.0 == depth as f64).map(|p| p.1).collect::<Vec<f64>>();
        let whole = depths.into_iter().map(|d| (d, at(d))).filter(|(d, found)| found.len() == texts(*d));
        whole.filter_map(|(d, found)| mean(&found).map(|mean| (d as f64, mean))).collect::<Vec<_>>()
    };
    let drawn =
        means.iter().map(|(arm, points)| (*arm, by_depth(points))).filter(|(_, points)| !points.is_empty());
    let series = drawn.map(|(arm, points)| Series { name: arm.into(), points }).collect();
    let title = "Perplexity over softmax: mean of seeds, stories and plays".into();
    Chart { title, x: "layers".into(), y: "ratio".into(), log: true, series }
}

/// One line per text, depth and seed; perplexity and ratio of each operator.
fn twin_table(words: &mut String, twins: &[&Cell], arms: &[&Arm], value: &dyn Fn(&Arm, &Cell) -> [f64; 2]) {
    let heads: String = arms.iter().map(|arm| format!(" {} | ratio |", arm.name)).collect();
    let _ =
        writeln!(words, "| text | layers | seed |{heads}\n|---|---|---|{}", "---|---|".repeat(arms.len()));
    for twin in twins {
        let values: Vec<[f64; 2]> = arms.iter().map(|arm| value(arm, twin)).collect();
        if values.iter().all(|v| v[0].is_nan()) {
            continue;
        }
        let _ = write!(words, "| {} | {} | {} |", name(twin.text), twin.layers, twin.seed);
        for [perplexity, ratio] in values {
            let _ = match perplexity.is_nan() {
                false => write!(words, " {perplexity:.2} | {ratio:.3} |"),
                true => write!(words, " not run | |"),
            };
        }
        words.push('\n');
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Powers and shifts against one softmax run.
pub(super) fn shifts(cells: &[Cell], results: &Results, budget: Budget, out: &Path) -> Result<()> {
    let mut words = String::from("# Powers and shifts at equal budget\n\n");
    let _ = writeln!(
        words,
        "`cargo xtask experiment shifts [--quick]`. Same seed, tokens, batches and steps: width {}, {} \
         steps of {} tokens, \
         text: {}. Held-out perplexity per word. Near zero `(x + c)^p` is `exp(x p / c)`: p / c is the \
         slope that \
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
    words.push_str(
        "| layers | seed | p | c | epsilon, form | perplexity | ratio | mean distance | max \
                    score | row-mean spread | outcome |\n",
    );
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
    let twin = Cell { attention: Attention::Softmax, form: Form::Mean, query_key_rate: 1.0, ..cell.clone() };
    results.get(&key(&twin)).map_or(f64::NAN, |o| o.perplexity)
}

/// One line per shift and form, averaged over seeds and depths.
fn lines(cells: &[Cell], results: &Results, value: &dyn Fn(&Cell, &Outcome) -> f64) -> Vec<Series> {
    let mut sums: BTreeMap<String, BTreeMap<u32, (f64, f64)>> = BTreeMap::new();
    for cell in cells {
        let (Attention::PowerSoftmax { p, c, .. }, Some(o)) = (cell.attention, results.get(&key(cell)))
        else {
            continue;
        };
        let form = if cell.form == Form::Stable { "stable, relative" } else { "mean, absolute" };
        let slot = sums.entry(format!("c = {c}, {form}")).or_default().entry(p).or_insert((0.0, 0.0));
        slot.0 += value(cell, o);
        slot.1 += 1.0;
    }
    let points =
        |by: BTreeMap<u32, (f64, f64)>| by.into_iter().map(|(p, (sum, n))| (f64::from(p), sum / n)).collect();
    sums.into_iter().map(|(name, by)| Series { name, points: points(by) }).collect()
}

fn operator(cell: &Cell) -> (String, String, String) {
    let key = key(cell);
    let fields: Vec<&str> = key.split(',').collect();
    let [_, _, _, p, c, epsilon, form, _] = fields[..] else { return Default::default() };
    (
        p.to_owned(),
        c.to_owned(),
        [epsilon, form].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join(", "),
    )
}

/// Name of a text in tables.
pub(super) fn name(text: Text) -> &'static str {
    match text {
        Text::Stories => "TinyStories",
        Text::Plays => "tiny-shakespeare",
        Text::Articles => "WikiText-2",
        Text::Generated => "generated stories",
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    checkpoint::write(path, text.as_bytes())
}
