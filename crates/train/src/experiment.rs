//! Experiments: which powers, shifts and epsilons train, and how far PowerSoftmax is from its softmax twin.
//!
//! Every experiment is a list of cells. A cell is one short training run; its result is one line of a CSV file, written
//! when the cell is done, so an interrupted experiment continues with the first missing cell.

mod report;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use cipherlm_model::Tokenizer;

use crate::config::{Attention, Epsilon, Form, ModelConfig, Power};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::eval;
use crate::export::refuse;
use crate::probe::{Probe, Site};
use crate::recipe::Data;
use crate::trainer::{TrainConfig, Trainer};

/// A public corpus, if the data folder is there, else the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Text {
    /// `tinystories` of the data folder.
    Stories,
    /// `shakespeare` of the data folder (the last tenth is held out).
    Plays,
    /// `wikitext-2` of the data folder.
    Articles,
    /// The seeded generator.
    Generated,
}

/// One training run of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Operator.
    pub attention: Attention,
    /// Corpus.
    pub text: Text,
    /// Blocks.
    pub layers: usize,
    /// Seed of weights and data order.
    pub seed: u64,
    /// Factor on the learning rate of the query and key projections ([`crate::optim::AdamW::with_query_key_rate`]).
    pub query_key_rate: f64,
}

/// How much of an experiment is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// A part that takes minutes.
    Quick,
    /// All cells.
    Whole,
    /// Those of all cells whose name ([`key`]) begins so: how processes share a grid, each with its own folder.
    Only(String),
    /// None: tables and charts from the cells that the CSV already has.
    Report,
}

/// Size of all cells of an experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Width of the models.
    pub width: usize,
    /// Heads.
    pub heads: usize,
    /// Context.
    pub context: usize,
    /// Vocabulary of the tokenizer.
    pub vocab: usize,
    /// Windows per step.
    pub batch: usize,
    /// Steps.
    pub steps: usize,
}

/// What a cell ended with.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Held-out perplexity per word; NaN if the run failed.
    pub perplexity: f64,
    /// Mean distance from query to attended key, weighted by the magnitude of attention and averaged over layers, in tokens.
    pub distance: f64,
    /// Largest score magnitude, shift included.
    pub score: f64,
    /// Largest over smallest row mean, all layers together.
    pub spread: f64,
    /// `trained`, or how it failed.
    pub mode: String,
}

/// The grid of powers, shifts, epsilons and forms. The quick part takes minutes; the rest of the grid is
/// named in the report. Writes `stability.csv`, two charts and `stability.md` to `out`.
pub fn stability(extent: Extent, out: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    let quick = extent == Extent::Quick;
    let budget =
        Budget { width: 64, heads: 2, context: 64, vocab: 512, batch: 16, steps: if quick { 150 } else { 400 } };
    let text = if data_folder().join("tinystories").exists() { Text::Stories } else { Text::Generated };
    let (mut cells, mut omitted) = (Vec::new(), 0usize);
    for layers in [2, 4] {
        for seed in 1..=3 {
            let cell = |attention| Cell { attention, text, layers, seed, query_key_rate: 1.0 };
            let keep = !quick || (layers == 2 && seed == 1);
            let mut add = |c: Cell| if keep { cells.push(c) } else { omitted += 1 };
            add(cell(Attention::Softmax));
            add(cell(Attention::Pointwise));
            for power in [2u32, 4, 6, 8, 12, 16] {
                for shift in [0.0, 1.0, 3.0] {
                    for (form, epsilon) in epsilons(power, shift) {
                        let part = !quick || (shift != 1.0 && form_in_quick(form, epsilon, power, shift));
                        let c = cell(Attention::Power(Power { power, shift, form, epsilon }));
                        if keep && part { cells.push(c) } else { omitted += 1 }
                    }
                }
            }
        }
    }
    let results = run(&cells, budget, &out.join("stability.csv"), extent, &mut progress)?;
    report::stability(&cells, &results, budget, text, omitted, out)
}

/// Softmax and PowerSoftmax with equal seeds, tokens and steps, at equal learning rates and with a raised one for queries and keys.
/// Writes `twins.csv`, a chart and `twins.md`. The quick part is one seed, two layers and equal rates.
pub fn twins(extent: Extent, out: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    let quick = extent == Extent::Quick;
    let budget = twins_budget(quick);
    let public = [(Text::Stories, "tinystories"), (Text::Plays, "shakespeare"), (Text::Articles, "wikitext-2")];
    let there = public.into_iter().filter(|(_, folder)| data_folder().join(folder).exists());
    let mut texts: Vec<Text> = there.map(|(text, _)| text).collect();
    if texts.is_empty() {
        texts.push(Text::Generated);
    }
    let seeds = 1..=if quick { 1 } else { 3 };
    let depths: &[usize] = if quick { &[2] } else { &[2, 4] };
    let arms = arms();
    let (equal, raised): (Vec<&Arm>, Vec<&Arm>) = arms.iter().partition(|arm| arm.rate == 1.0);
    let mut cells = Vec::new();
    // The most informative first: an interrupted grid still compares the twins over seeds and texts.
    for (group, &layers) in [equal, raised].iter().flat_map(|group| depths.iter().map(move |layers| (group, layers))) {
        for (seed, &text) in seeds.clone().flat_map(|seed| texts.iter().map(move |text| (seed, text))) {
            let kept = group.iter().filter(|arm| !quick || arm.rate == 1.0);
            cells.extend(kept.map(|arm| arm.cell(text, layers, seed)));
        }
    }
    let results = run(&cells, budget, &out.join("twins.csv"), extent, &mut progress)?;
    report::twins(&cells, &results, budget, out)
}

/// One column of [`twins`].
struct Arm {
    name: &'static str,
    attention: Attention,
    rate: f64,
}

impl Arm {
    fn cell(&self, text: Text, layers: usize, seed: u64) -> Cell {
        Cell { attention: self.attention, text, layers, seed, query_key_rate: self.rate }
    }
}

/// What [`twins`] compares: softmax; the shipped operator; the closest of depth three ([`shifts`] finds it); the paper's; and the
/// first three with the learning rate of queries and keys that suits each.
fn arms() -> [Arm; 7] {
    let arm = |name, attention, rate| Arm { name, attention, rate };
    let shifted = |power, shift| Attention::Power(Power::shifted(power, shift));
    [
        arm("softmax", Attention::Softmax, 1.0),
        arm("(x+3)^4", Attention::Power(Power::shipped()), 1.0),
        arm("(x+8)^8", shifted(8, 8.0), 1.0),
        arm("x^4", Attention::Power(Power::plain(4)), 1.0),
        arm("softmax, ×2", Attention::Softmax, 2.0),
        arm("(x+3)^4, ×4", Attention::Power(Power::shipped()), 4.0),
        arm("(x+8)^8, ×2", shifted(8, 8.0), 2.0),
    ]
}

/// Which power and shift come closest to softmax at the budget of [`twins`], on the cell where the
/// shipped ones are furthest. Writes `shifts.csv` and `shifts.md`. The quick part is the first few.
pub fn shifts(extent: Extent, out: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    let quick = extent == Extent::Quick;
    let text = if data_folder().join("shakespeare").exists() { Text::Plays } else { Text::Generated };
    let base = Cell { attention: Attention::Softmax, text, layers: 2, seed: 3, query_key_rate: 1.0 };
    let shapes =
        [(4, 3.0), (8, 6.0), (4, 6.0), (6, 4.5), (8, 8.0), (6, 6.0), (2, 3.0), (8, 12.0), (16, 16.0), (4, 4.0)];
    let mut cells = vec![base.clone()];
    cells.extend(
        shapes
            .iter()
            .take(if quick { 3 } else { shapes.len() })
            .map(|&(power, shift)| Cell { attention: Attention::Power(Power::shifted(power, shift)), ..base.clone() }),
    );
    let budget = twins_budget(quick);
    let results = run(&cells, budget, &out.join("shifts.csv"), extent, &mut progress)?;
    report::shifts(&cells, &results, budget, out)
}

/// Trains one cell.
pub fn train_cell(cell: &Cell, budget: Budget, train: &Corpus, held_out: &Corpus) -> Result<Outcome> {
    let Budget { width, heads, context, vocab, batch, steps } = budget;
    let config = ModelConfig::decoder(vocab, context, cell.layers, width, heads, cell.attention);
    let mut settings = TrainConfig { evaluate_windows: 128, ..TrainConfig::new(cell.seed, batch, steps, 2e-3) };
    if cell.query_key_rate != 1.0 {
        settings.optimiser = settings.optimiser.with_query_key_rate(cell.query_key_rate);
    }
    let mut trainer = Trainer::new("cell", config, settings, None, &Device::flex())?;
    let nats = match trainer.run(train, held_out, |_| {}) {
        Ok(nats) => nats,
        Err(Error::Diverged { step, reason }) => {
            let mode = format!("diverged at step {step}: {reason}").replace(',', ";");
            return Ok(Outcome { perplexity: f64::NAN, distance: f64::NAN, score: f64::NAN, spread: f64::NAN, mode });
        }
        Err(other) => return Err(other),
    };
    let model = trainer.valid();
    let mut probe = Probe::observe();
    eval::observe(&model, held_out, 32, &mut probe)?;
    let distances = eval::attention_distance(&model, held_out, 8)?;
    let distance = distances.iter().sum::<f64>() / distances.len() as f64;
    let ranges = probe.ranges().iter();
    let score = ranges.clone().filter(|((s, _), _)| *s == Site::Scores).map(|(_, r)| r.magnitude()).fold(0.0, f64::max);
    let means: Vec<_> = ranges.filter(|((s, _), _)| *s == Site::RowMean).map(|(_, r)| *r).collect();
    let spread =
        means.iter().map(|r| r.max).fold(0.0, f64::max) / means.iter().map(|r| r.min).fold(f64::INFINITY, f64::min);
    let perplexity = eval::word_perplexity(nats, held_out);
    // Attention that no longer moves anything: its weights sum to far less than one.
    let mode = if distance < 0.05 { "attention off" } else { "trained" }.to_owned();
    Ok(Outcome { perplexity, distance, score, spread, mode })
}

fn twins_budget(quick: bool) -> Budget {
    Budget { width: 128, heads: 4, context: 128, vocab: 512, batch: 16, steps: if quick { 250 } else { 800 } }
}

/// Name of a cell, the key of its CSV line.
pub fn key(cell: &Cell) -> String {
    let text = match cell.text {
        Text::Stories => "stories",
        Text::Plays => "plays",
        Text::Articles => "articles",
        Text::Generated => "generated",
    };
    let operator = match cell.attention {
        Attention::Softmax => "softmax;;;".to_owned(),
        Attention::Pointwise => "pointwise;;;".to_owned(),
        Attention::Power(p) => {
            let epsilon = match p.epsilon {
                Epsilon::Absolute(e) => format!("{e:.3e}"),
                Epsilon::Relative(e) => format!("relative {e:.0e}"),
                Epsilon::Frozen => "frozen".to_owned(),
            };
            format!("{};{};{epsilon};{:?}", p.power, p.shift, p.form)
        }
    };
    format!("{text};{};{};{operator};{}", cell.layers, cell.seed, cell.query_key_rate).replace(';', ",").to_lowercase()
}

/// Runs the cells that the CSV does not have yet, or none for a report.
fn run(
    cells: &[Cell],
    budget: Budget,
    csv: &Path,
    extent: Extent,
    progress: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, Outcome>> {
    if let Some(folder) = csv.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let stamp = format!(
        "# width {} heads {} context {} vocab {} batch {} steps {}",
        budget.width, budget.heads, budget.context, budget.vocab, budget.batch, budget.steps
    );
    let mut done = read(csv, &stamp)?;
    let mut corpora: BTreeMap<Text, (Corpus, Corpus)> = BTreeMap::new();
    for (at, cell) in cells.iter().enumerate() {
        let key = key(cell);
        let wanted = match &extent {
            Extent::Report => false,
            Extent::Only(start) => key.starts_with(start),
            Extent::Quick | Extent::Whole => true,
        };
        if !wanted || done.contains_key(&key) {
            continue;
        }
        if let std::collections::btree_map::Entry::Vacant(slot) = corpora.entry(cell.text) {
            slot.insert(corpus(cell.text, budget.vocab)?);
        }
        let (train, held_out) = &corpora[&cell.text];
        let outcome = train_cell(cell, budget, train, held_out)?;
        progress(&format!("{}/{}  {key}  {:.2}  {}", at + 1, cells.len(), outcome.perplexity, outcome.mode));
        append(csv, &stamp, &key, &outcome)?;
        done.insert(key, outcome);
    }
    Ok(done)
}

/// Tokenised training and held-out text.
fn corpus(text: Text, vocab: usize) -> Result<(Corpus, Corpus)> {
    let file = |name: &str| data_folder().join(name);
    let (train, held_out) = match text {
        Text::Stories => {
            Data::Files { train: file("tinystories/part1.txt.xz"), held_out: file("tinystories/part2.txt.xz") }
                .read()?
        }
        Text::Articles => Data::Files {
            train: file("wikitext-2/wiki.train.tokens.xz"),
            held_out: file("wikitext-2/wiki.valid.tokens.xz"),
        }
        .read()?,
        Text::Generated => Data::Generated { seed: 1, stories: 20_000 }.read()?,
        Text::Plays => {
            let all = crate::recipe::read_text(&file("shakespeare/tinyshakespeare.txt.xz"))?;
            let cut = all.len() * 9 / 10;
            let cut = all[cut..].find("\n\n").map_or(cut, |at| cut + at);
            (all[..cut].to_owned(), all[cut..].to_owned())
        }
    };
    let tokenizer = Tokenizer::train(&train, vocab).map_err(refuse)?;
    let wrap = |text: &str| -> Result<Corpus> {
        let tokens = tokenizer.encode(text).map_err(refuse)?;
        Ok(Corpus::new(tokens, text.split_whitespace().count()))
    };
    Ok((wrap(&train)?, wrap(&held_out)?))
}

/// Epsilons tried for a power and shift: 1 % and 0.01 % of the starting row mean in the mean form, the relative one in
/// the stable form.
fn epsilons(power: u32, shift: f64) -> [(Form, Epsilon); 3] {
    let start = shift.max(1.0).powi(power as i32);
    [
        (Form::Mean, Epsilon::Absolute(1e-2 * start)),
        (Form::Mean, Epsilon::Absolute(1e-4 * start)),
        (Form::Stable, Epsilon::Relative(1e-6)),
    ]
}

fn form_in_quick(form: Form, epsilon: Epsilon, power: u32, shift: f64) -> bool {
    form == Form::Stable || epsilon == epsilons(power, shift)[0].1
}

fn data_folder() -> PathBuf {
    PathBuf::from("../shared/data")
}

fn read(csv: &Path, stamp: &str) -> Result<BTreeMap<String, Outcome>> {
    let mut done = BTreeMap::new();
    let Ok(text) = std::fs::read_to_string(csv) else { return Ok(done) };
    let corrupt = |reason: String| Error::Corrupt {
        path: csv.into(),
        reason,
        hint: "move it away to start the experiment afresh",
    };
    if text.lines().next() != Some(stamp) {
        return Err(corrupt(format!("its first line is not `{stamp}`")));
    }
    for line in text.lines().skip(2) {
        let fields: Vec<&str> = line.split(',').collect();
        let [.., perplexity, distance, score, spread, mode] = fields[..] else {
            return Err(corrupt(format!("short line `{line}`")));
        };
        let number = |s: &str| s.parse::<f64>().map_err(|e| corrupt(format!("`{line}`: {e}")));
        let outcome = Outcome {
            perplexity: number(perplexity)?,
            distance: number(distance)?,
            score: number(score)?,
            spread: number(spread)?,
            mode: mode.to_owned(),
        };
        done.insert(fields[..fields.len() - 5].join(","), outcome);
    }
    Ok(done)
}

fn append(csv: &Path, stamp: &str, key: &str, o: &Outcome) -> Result<()> {
    let fresh = !csv.exists();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(csv).map_err(Error::io(csv))?;
    let header =
        "text,layers,seed,power,shift,epsilon,form,query_key_rate,word_perplexity,distance,score,spread,outcome";
    let head = if fresh { format!("{stamp}\n{header}\n") } else { String::new() };
    writeln!(file, "{head}{key},{:.4},{:.4},{:.4},{:.4e},{}", o.perplexity, o.distance, o.score, o.spread, o.mode)
        .map_err(Error::io(csv))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_distinct_keys_and_lines_read_back() {
        let cell = |attention| Cell { attention, text: Text::Generated, layers: 2, seed: 1, query_key_rate: 1.0 };
        let mut keys: Vec<String> = [2, 4, 12]
            .into_iter()
            .flat_map(|p| epsilons(p, 3.0).map(|(form, epsilon)| Power { power: p, shift: 3.0, form, epsilon }))
            .map(|p| key(&cell(Attention::Power(p))))
            .collect();
        keys.push(key(&cell(Attention::Softmax)));
        keys.extend(arms().iter().map(|arm| key(&arm.cell(Text::Stories, 2, 1))));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert!(keys.iter().all(|k| k.matches(',').count() == 7), "{keys:?}");

        let path = std::env::temp_dir().join(format!("cipherlm-cells-{}.csv", std::process::id()));
        let outcome = Outcome { perplexity: f64::NAN, distance: 1.5, score: 2.0, spread: 1e9, mode: "diverged".into() };
        append(&path, "# a", &keys[0], &outcome).unwrap();
        append(&path, "# a", &keys[1], &Outcome { perplexity: 9.25, ..outcome.clone() }).unwrap();
        let back = read(&path, "# a").unwrap();
        assert!(back[&keys[0]].perplexity.is_nan() && back[&keys[1]].perplexity == 9.25 && back.len() == 2);
        assert!(matches!(read(&path, "# b"), Err(Error::Corrupt { .. })));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn only_cells_of_that_name_are_run() {
        let folder = std::env::temp_dir().join(format!("cipherlm-only-{}", std::process::id()));
        let cells: Vec<Cell> = (1..=3).map(|seed| arms()[1].cell(Text::Generated, 1, seed)).collect();
        let budget = Budget { width: 8, heads: 2, context: 8, vocab: 300, batch: 1, steps: 1 };
        let mut lines = Vec::new();
        let csv = folder.join("cells.csv");
        let only = Extent::Only("generated,1,2,".into());
        let results = run(&cells, budget, &csv, only, &mut |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(results.keys().collect::<Vec<_>>(), [&key(&cells[1])]);
        assert!(lines.len() == 1 && lines[0].starts_with("2/3  generated,1,2,4,3,"), "{lines:?}");
        let report = run(&cells, budget, &csv, Extent::Report, &mut |_| panic!("a report trains nothing")).unwrap();
        assert_eq!(report.len(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_report_of_twins_counts_what_meets_the_aim() {
        let folder = std::env::temp_dir().join(format!("cipherlm-twins-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let arms = arms();
        let outcome =
            |perplexity| Outcome { perplexity, distance: 1.0, score: 1.0, spread: 1.0, mode: "trained".into() };
        let mut results = BTreeMap::new();
        let mut cells = Vec::new();
        // Seed 1: softmax 100, (x+3)^4 101, with raised rates 80 and 90. Seed 2: 100 and 110, no raised rates.
        for (seed, values) in
            [(1, vec![(0, 100.0), (1, 101.0), (4, 80.0), (5, 90.0)]), (2, vec![(0, 100.0), (1, 110.0)])]
        {
            cells.extend(arms.iter().map(|arm| arm.cell(Text::Stories, 2, seed)));
            for (arm, perplexity) in values {
                results.insert(key(&arms[arm].cell(Text::Stories, 2, seed)), outcome(perplexity));
            }
        }
        report::twins(&cells, &results, twins_budget(false), &folder).unwrap();
        let words = std::fs::read_to_string(folder.join("twins.md")).unwrap();
        for line in [
            "| TinyStories | 2 | 2 | 100.00 | 1.000 | 110.00 | 1.100 | not run | | not run | |",
            "| TinyStories | 2 | (x+3)^4 | 2 | 1.055 | 1.100 | 1 of 2 | 1.262 | 1.262 | 0 of 1 |",
            "| TinyStories | 2 | (x+3)^4, ×4 | 1 | 0.900 | 0.900 | 1 of 1 | 1.125 | 1.125 | 0 of 1 |",
            "| TinyStories | 2 | softmax, ×2 | 1 | 0.800 | 0.800 | 1 of 1 | | | |",
        ] {
            assert!(words.contains(line), "{line}\nis not in\n{words}");
        }
        assert!(!words.contains("| 2 | (x+8)^8 |"), "no summary of what was not run");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
